"""ALQ of a trained network, round by round; what is finished is on disk, and an interrupted run goes on."""

import dataclasses
import pathlib

import keras

from benchmarks.alq import lessons
from benchmarks.training import save
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
        fresh: Whether every step forgets the moments of the gradients before it, as a run that goes on from disk does.
    """

    bits: int
    groups: dict[str, int | str]
    steps: tuple[Step, ...]
    rate: float = 1e-3
    basis_epochs: int = 1
    coordinate_epochs: int = 1
    fresh: bool = False


LENET5 = Recipe(
    2,
    {"conv1": "kernelwise", "conv2": "kernelwise", "dense1": 400, "dense2": 500},
    (Step(1.1), Step(0.6), Step(0.325, 6, 1), Step(0.31, 4, 1, 0.6)),
)

LEAST_GROUP = 32  # weights; with fewer, scales take more bits than signs
VGG_GROUPS: dict[str, int | str] = {f"conv{number}": "pixelwise" for number in range(2, 7)} | {"conv1": "channelwise"}

VGG_SMALL_QUARTER = Recipe(
    3,
    {**VGG_GROUPS, "dense1": 512, "dense2": 128, "dense3": 128},
    (Step(1.9), Step(1.15), Step(0.66, 12, 3, 0.8)),
)

VGG_SMALL = Recipe(
    3,
    {**VGG_GROUPS, "dense1": 512, "dense2": 512, "dense3": 512},  # the paper's
    (Step(1.4), Step(0.659), Step(0.659, 40, 4, 0.92)),
    fresh=True,
)


def compressed(
    work: pathlib.Path,
    model: keras.Model,
    dataset: datasets.Dataset,
    recipe: Recipe,
    seed: int = 0,
    taught: bool = False,
) -> MultiBitModel:
    """The network after the last step; every step leaves a file in `work`.

    With `taught`, `model` is the teacher of what is made of it.
    """
    work.mkdir(parents=True, exist_ok=True)
    files = [work / f"step_{number}.keras" for number, _ in enumerate(recipe.steps, start=1)]
    done = max((number for number, file in enumerate(files) if file.exists()), default=-1)
    network = _loaded(files[done]) if done >= 0 else quantize(model, recipe.bits, recipe.groups).model
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
        work_of_step = lessons.lessons(dataset, seed + number, model if taught else None)
        network.compile(keras.optimizers.Adam(recipe.rate), work_of_step.loss, metrics=[work_of_step.accuracy])
        network.fit(
            work_of_step.batches,
            epochs=schedule.epochs(network),
            validation_data=work_of_step.validation,
            validation_batch_size=500,
            callbacks=[schedule, Snapshots(work / "snapshot.keras")],
            verbose=2,
        )
        save(network, files[number])
        if recipe.fresh:
            network = _loaded(files[number])
    return network


class Snapshots(keras.callbacks.Callback):
    """Saves the network every `EPOCHS` epochs, to look at while it trains."""

    EPOCHS = 6

    def __init__(self, file: pathlib.Path) -> None:
        super().__init__()
        self._file = file

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if (epoch + 1) % self.EPOCHS == 0:
            save(self.model, self._file)


def _loaded(file: pathlib.Path) -> MultiBitModel:
    return keras.saving.load_model(file, compile=False)
