"""ALQ of a trained network, round by round; what is finished is on disk, and an interrupted run goes on."""

import dataclasses
import pathlib

import keras

from benchmarks.alq import networks
from keras_efficient import datasets
from keras_efficient.callbacks import AdaptiveBitwidth
from keras_efficient.quantization import MultiBitModel, quantize


@dataclasses.dataclass(frozen=True)
class Step:
    """One round of pruning, and perhaps of training straight through after it.

    Attributes:
        bits: Average bit-width to prune to.
        latent_epochs, final_epochs, latent_decay: See `AdaptiveBitwidth`.
    """

    bits: float
    latent_epochs: int = 0
    final_epochs: int = 0
    latent_decay: float = 0.9


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is quantised.

    Attributes:
        bits: Bases at the start.
        groups: Groups of each layer, see `quantization.quantize`.
        steps: What follows, each on disk when it is done.
        rate: Learning rate at the start of every round.
        basis_epochs, coordinate_epochs: Before every pruning.
    """

    bits: int
    groups: dict[str, int | str]
    steps: tuple[Step, ...]
    rate: float = 1e-3
    basis_epochs: int = 1
    coordinate_epochs: int = 1


LENET5 = Recipe(
    2,
    {"conv1": "kernelwise", "conv2": "kernelwise", "dense1": 400, "dense2": 500},
    (Step(1.1), Step(0.6), Step(0.325, 6, 1), Step(0.31, 4, 1, 0.6)),
)

VGG_SMALL = Recipe(
    3,
    {"conv1": "channelwise", "dense1": 512, "dense2": 128, "dense3": 128},  # of a quarter of the width
    (Step(1.9), Step(1.15), Step(0.66, 12, 3, 0.8)),
)


def compressed(
    work: pathlib.Path, model: keras.Model, dataset: datasets.Dataset, recipe: Recipe, seed: int = 0
) -> MultiBitModel:
    """The network after the last step; every step leaves a file in `work`."""
    work.mkdir(parents=True, exist_ok=True)
    files = [work / f"bits_{step.bits:g}.keras" for step in recipe.steps]
    done = max((number for number, file in enumerate(files) if file.exists()), default=-1)
    network = keras.saving.load_model(files[done]) if done >= 0 else quantize(model, recipe.bits, recipe.groups).model
    for number, step in list(enumerate(recipe.steps))[done + 1 :]:
        keras.utils.set_random_seed(seed + number)
        schedule = AdaptiveBitwidth(
            step.bits,
            keep=0.01,  # one round
            basis_epochs=recipe.basis_epochs,
            coordinate_epochs=recipe.coordinate_epochs,
            latent_epochs=step.latent_epochs,
            final_epochs=step.final_epochs,
            latent_decay=step.latent_decay,
        )
        network.compile(keras.optimizers.Adam(recipe.rate), networks.loss(), metrics=["accuracy"])
        network.fit(
            networks.batches(dataset, seed + number),
            epochs=schedule.epochs(network),
            validation_data=(dataset.x_validation, dataset.y_validation),
            validation_batch_size=500,
            callbacks=[schedule],
            verbose=2,
        )
        part = files[number].with_suffix(".part.keras")
        network.save(part)
        part.replace(files[number])
    return network
