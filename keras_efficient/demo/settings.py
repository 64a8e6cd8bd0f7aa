"""What the demo does for each data set: one recipe that every network of a run is trained with."""

import dataclasses
import pathlib

from keras_efficient.datasets import Dataset
from keras_efficient.demo.networks import Topology


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Topology and training, the same for the static, the small and the dynamic network.

    Attributes:
        convolutions: `(width, stride, exit behind it)` of each convolution.
        epochs: Passes over the training images.
        batch_size: Images per step.
        learning_rate: Peak of the one-cycle schedule of AdamW.
        weight_decay: Of AdamW.
        shift: Images are shifted by up to that many pixels each way.
        noise: Standard deviation of the noise added to pixels in [0, 1].
        flip: Whether images are mirrored.
        budget: Share of the gated layers' MACs that the dynamic network is trained to.
        exit_budget: Mean cost that the exit policies may spend, 1 being the whole dynamic network.
        copies: Augmented copies of each held-out image that the exit policies see.
    """

    convolutions: tuple[tuple[int, int, bool], ...]
    epochs: int
    batch_size: int
    learning_rate: float
    shift: int
    budget: float
    weight_decay: float = 1e-2
    noise: float = 0.05
    flip: bool = False
    exit_budget: float = 0.12
    copies: int = 10

    def topology(self, dataset: Dataset) -> Topology:
        """The network of this recipe for the images and classes of a data set."""
        return Topology(dataset.input_shape, dataset.num_classes, self.convolutions)


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run of the demo.

    Attributes:
        out: Directory of the results.
        data: Name of the data set.
        data_dir: Directory of its `.npz` file, or None.
        seed: Of weights, augmentation and policies.
        epochs: Instead of the recipe's, or None.
        threads: Threads while measuring.
        images: At most so many training, validation and test images each, or None.
        agent_iterations: Rounds of learning of the TF-Agents policy.
    """

    out: pathlib.Path
    data: str = "digits"
    data_dir: str | None = None
    seed: int = 0
    epochs: int | None = None
    threads: int = 1
    images: int | None = None
    agent_iterations: int = 60

    @property
    def recipe(self) -> Recipe:
        """The data set's recipe, with this run's epochs."""
        recipe = RECIPES[self.data]
        return recipe if self.epochs is None else dataclasses.replace(recipe, epochs=self.epochs)


RECIPES = {
    "digits": Recipe(
        convolutions=((16, 1, False), (32, 2, True), (64, 1, True), (128, 1, False), (128, 1, False)),
        epochs=40,
        batch_size=32,
        learning_rate=4e-3,
        shift=1,
        budget=0.5,
    ),
    "mnist": Recipe(
        convolutions=((16, 2, False), (32, 2, True), (64, 1, True), (128, 2, False), (128, 1, False)),
        epochs=2,
        batch_size=64,
        learning_rate=4e-3,
        shift=2,
        budget=0.5,
        exit_budget=0.25,
        copies=1,
    ),
    "cifar10": Recipe(
        convolutions=(
            (16, 1, False),
            (32, 2, False),
            (64, 1, True),
            (128, 2, True),
            (128, 1, False),
            (128, 1, False),
        ),
        epochs=4,
        batch_size=64,
        learning_rate=4e-3,
        shift=3,
        budget=0.5,
        noise=0.0,
        flip=True,
        exit_budget=0.5,
        copies=1,
    ),
}
