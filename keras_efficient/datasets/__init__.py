"""Image data sets with fixed splits: digits (embedded), and MNIST, CIFAR-10 and Omniglot from `.npz` files."""

from keras_efficient.datasets.augmented import Augmented, augment
from keras_efficient.datasets.dataset import Dataset
from keras_efficient.datasets.load import DATA_VARIABLE, NAMES, load
from keras_efficient.datasets.multi_task import MultiTaskDataset, TaskBatches, omniglot_alphabets, two_digit_scenes
from keras_efficient.datasets.scenes import Scenes, Translated, digit_scenes, regions_of, translated

__all__ = [
    "DATA_VARIABLE",
    "NAMES",
    "Augmented",
    "Dataset",
    "MultiTaskDataset",
    "Scenes",
    "TaskBatches",
    "Translated",
    "augment",
    "digit_scenes",
    "load",
    "omniglot_alphabets",
    "regions_of",
    "translated",
    "two_digit_scenes",
]
