"""ALQ of a trained network, round by round; what is finished is on disk, and an interrupted run goes on."""

import dataclasses
import pathlib

import keras

from benchmarks.alq import networks
from keras_efficient import datasets
from keras_efficient.callbacks import AdaptiveBitwidth
from keras_efficient.quantization import MultiBitModel, quantize


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is quantised.

    Attributes:
        bits: Bases at the start.
        groups: Groups of each layer, see `quantization.quantize`.
        steps: Average bit-widths after the rounds, the last one being the target.
        rate: Learning rate at the start of every round.
        basis_epochs, coordinate_epochs: Of each round.
        latent_epochs, final_epochs: After the last round.
    """

    bits: int
    groups: dict[str, int | str]
    steps: tuple[float, ...]
    rate: float = 1e-3
    basis_epochs: int = 1
    coordinate_epochs: int = 1
    latent_epochs: int = 8
    final_epochs: int = 2


LENET5 = Recipe(
    2,
    {"conv1": "kernelwise", "conv2": "kernelwise", "dense1": 400, "dense2": 500},
    (1.1, 0.6, 0.325),
    latent_epochs=6,
    final_epochs=1,
)

VGG_SMALL = Recipe(
    3,
    {"conv1": "channelwise", "dense1": 512, "dense2": 128, "dense3": 128},  # of a quarter of the width
    (1.9, 1.15, 0.66),
    latent_epochs=12,
    final_epochs=3,
)


def compressed(
    work: pathlib.Path, model: keras.Model, dataset: datasets.Dataset, recipe: Recipe, seed: int = 0
) -> MultiBitModel:
    """The network after the last step, trained on; every step leaves a file in `work`."""
    work.mkdir(parents=True, exist_ok=True)
    files = [work / f"bits_{bits:g}.keras" for bits in recipe.steps] + [work / "trained.keras"]
    done = max((number for number, file in enumerate(files) if file.exists()), default=-1)
    network = keras.saving.load_model(files[done]) if done >= 0 else quantize(model, recipe.bits, recipe.groups).model
    for number in range(done + 1, len(files)):
        keras.utils.set_random_seed(seed + number)
        last = number == len(recipe.steps)
        schedule = AdaptiveBitwidth(
            recipe.steps[min(number, len(recipe.steps) - 1)],
            keep=0.01,
            basis_epochs=recipe.basis_epochs,
            coordinate_epochs=recipe.coordinate_epochs,
            latent_epochs=recipe.latent_epochs if last else 0,
            final_epochs=recipe.final_epochs if last else 0,
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
