"""The networks of the comparison, trained alike; training goes on where it was interrupted."""

import argparse
import pathlib
from collections.abc import Callable

import keras

from keras_efficient import datasets
from keras_efficient.models import MultiExit, thin_resnet

BATCH = 128
SHIFT = 4
PEAK_RATES = {"multi_exit": 0.15, "static": 0.2}  # the losses of many exits add up
CLIP_NORMS = {"multi_exit": 5.0, "static": 2.0}  # of the whole gradient, a guard for the first steps
WEIGHT_DECAY = 5e-3  # decoupled: times the rate, not times the momentum's 1 / (1 - 0.9), so ten times the usual 5e-4


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


def trained(
    path: pathlib.Path, make: Callable[[], keras.Model], dataset: datasets.Dataset, epochs: int, seed: int = 0
) -> keras.Model:
    """The network at `path`, trained first where it is not there; an interrupted training goes on at its last epoch."""
    if path.exists():
        return keras.saving.load_model(path)
    keras.utils.set_random_seed(seed)
    model = make()
    batches = datasets.Augmented(dataset.x_train, dataset.y_train, BATCH, shift=SHIFT, seed=seed)
    steps = epochs * len(batches)
    kind = "multi_exit" if isinstance(model, MultiExit) else "static"
    peak = PEAK_RATES[kind]
    rate = keras.optimizers.schedules.CosineDecay(
        peak / 20, steps - steps // 5, warmup_target=peak, warmup_steps=steps // 5
    )
    more = {"loss_weights": loss_weights(model.num_exits)} if isinstance(model, MultiExit) else {}
    model.compile(
        keras.optimizers.SGD(
            rate, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP_NORMS[kind]
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **more,
    )
    backup = path.with_suffix(".backup")
    model.fit(
        batches,
        epochs=epochs,
        validation_data=(dataset.x_validation, dataset.y_validation),
        validation_batch_size=500,
        validation_freq=max(1, epochs // 6),
        verbose=2,
        callbacks=[keras.callbacks.BackupAndRestore(str(backup))],
    )
    written = path.with_suffix(".part.keras")
    model.save(written)
    written.replace(path)
    return model


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
    make = {"multi_exit": multi_exit, "static": static}[options.name]
    path = options.work / f"{options.name}_{options.depth}.keras"
    trained(path, lambda: make(options.depth, dataset), dataset, options.epochs)


if __name__ == "__main__":
    main()
