"""Image data sets with fixed splits: digits (embedded), and MNIST, CIFAR-10 and Omniglot from `.npz` files."""

from keras_efficient.datasets.augmented import Augmented, augment
from keras_efficient.datasets.dataset import Dataset
from keras_efficient.datasets.load import DATA_VARIABLE, NAMES, load

__all__ = ["DATA_VARIABLE", "NAMES", "Augmented", "Dataset", "augment", "load"]
