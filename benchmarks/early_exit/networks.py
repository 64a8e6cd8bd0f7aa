"""The networks of the comparison, trained alike; training goes on where it was interrupted."""

import argparse
import pathlib

import keras

from benchmarks import training
from keras_efficient import datasets
from keras_efficient.models import MultiExit, thin_resnet


def multi_exit(depth: int, dataset: datasets.Dataset) -> MultiExit:
    """A thin ResNet with an exit behind every block; all its channels are there behind the third."""
    blocks = (depth - 2) // 2
    backbone = thin_resnet(
        depth, num_classes=dataset.num_classes, input_shape=dataset.input_shape, blocks=(1, 1, blocks - 2)
    )
    return MultiExit.from_model(backbone, [f"block_{k}" for k in range(1, blocks)], name="multi_exit")


def loss_weights(num_exits: int) -> list[float]:
    """Weights of the exits' losses, `k / K`: first exits, with few channels to go by, must not outvote the last."""
    return [k / num_exits for k in range(1, num_exits + 1)]


def static(depth: int, dataset: datasets.Dataset) -> keras.Model:
    """A thin ResNet as it is."""
    return thin_resnet(depth, num_classes=dataset.num_classes, input_shape=dataset.input_shape)


def trunk(network: MultiExit) -> keras.Model:
    """The same trained network without its exits."""
    x = inputs = keras.Input(network.stages[0].input.shape[1:], name="image")
    for stage in network.stages:
        x = stage(x)
    return keras.Model(inputs, x, name="static")


def recipe(name: str, depth: int, epochs: int) -> training.Recipe:
    """How `"multi_exit"` or `"static"` networks are trained: alike, but that the losses of many exits add up."""
    if name == "static":
        return training.Recipe(epochs)
    weights = loss_weights((depth - 2) // 2)
    return training.Recipe(epochs, peak=0.15, clip=5.0, options={"loss_weights": weights})


def trained(work: pathlib.Path, name: str, depth: int, dataset: datasets.Dataset, epochs: int) -> keras.Model:
    """The network `<name>_<depth>` in the folder `work`, trained first where it is not there."""
    make = {"multi_exit": multi_exit, "static": static}[name]
    path = work / f"{name}_{depth}.keras"
    return training.trained(path, lambda: make(depth, dataset), dataset, recipe(name, depth, epochs))


def main() -> None:
    """Trains one network: `python -m benchmarks.early_exit.networks NAME DEPTH EPOCHS --work DIR`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=["multi_exit", "static"])
    parser.add_argument("depth", type=int)
    parser.add_argument("epochs", type=int)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    dataset = datasets.load("cifar10", options.data_dir)
    options.work.mkdir(parents=True, exist_ok=True)
    trained(options.work, options.name, options.depth, dataset, options.epochs)


if __name__ == "__main__":
    main()
