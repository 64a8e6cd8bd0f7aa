"""`load`: one call per data set, from the package itself, a directory of `.npz` files or `keras.datasets`."""

import importlib.resources
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_efficient.datasets.dataset import Dataset, as_images, stratified_parts
from keras_efficient.datasets.files import Shapes, check_samples, read_npz

DATA_VARIABLE = "KERAS_EFFICIENT_DATA"
Directory = str | os.PathLike[str] | None

DIGIT_NAMES = tuple(str(digit) for digit in range(10))
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Of a data set with a training and a test part, every tenth training image of a class is held out for validation;
# a data set in one piece is dealt out 60 : 20 : 20.
HOLD_OUT = (9, 1)
THREE_PARTS = (3, 1, 1)


def load(name: str, data_dir: Directory = None) -> Dataset:
    """Loads a data set, split into training, validation and test parts that are the same on every machine.

    | name | images | classes | train / validation / test | from |
    |---|---|---|---|---|
    | `digits` | 8 x 8 x 1 | 10 | 1085 / 357 / 355 | the package |
    | `mnist` | 28 x 28 x 1 | 10 | 54,004 / 5,996 / 10,000 | `mnist.npz`, or `keras.datasets` |
    | `cifar10` | 32 x 32 x 3 | 10 | 45,000 / 5,000 / 10,000 | `cifar10.npz`, or `keras.datasets` |
    | `omniglot` | 105 x 105 x 1, ink is 1 | one per character | 60 : 20 : 20 of each character | `omniglot.npz` |

    A file holds `x_train`, `y_train`, `x_test`, `y_test` (uint8), for Omniglot `images` (1 where there is ink),
    `alphabet` and `character` (whole numbers) and, if there are any, `alphabet_names`.

    Args:
        name: One of the names above.
        data_dir: Directory of the `.npz` files; by default the environment variable `KERAS_EFFICIENT_DATA`. Where
            neither is given, `mnist` and `cifar10` come through `keras.datasets`, which downloads them once.

    Returns:
        A `Dataset` with float32 images in [0, 1].

    Raises:
        ValueError: For an unknown name or a file whose arrays do not fit.
        FileNotFoundError: If the directory has no such file, or Omniglot is asked for without a directory.
    """
    if name not in _LOADERS:
        raise ValueError(f"Invalid value for argument `name`. Expected one of {', '.join(NAMES)}. Received: {name!r}")
    if data_dir is None:
        data_dir = os.environ.get(DATA_VARIABLE) or None
    return _LOADERS[name](data_dir)


def _load_digits(data_dir: Directory) -> Dataset:
    resource = importlib.resources.files("keras_efficient.datasets").joinpath("digits.npz")
    with resource.open("rb") as file, np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return _in_three_parts("digits", images, labels, DIGIT_NAMES, std=16.0)


def _load_mnist(data_dir: Directory) -> Dataset:
    return _trained_and_tested("mnist", data_dir, (28, 28), DIGIT_NAMES)


def _load_cifar10(data_dir: Directory) -> Dataset:
    return _trained_and_tested("cifar10", data_dir, (32, 32, 3), CIFAR10_NAMES)


def _load_omniglot(data_dir: Directory) -> Dataset:
    if data_dir is None:
        raise FileNotFoundError(
            f"Data set omniglot needs a directory with omniglot.npz. Expected argument `data_dir` or the variable "
            f"{DATA_VARIABLE}. Received: neither"
        )
    shapes: Shapes = {"images": (None, 105, 105), "alphabet": (None,), "character": (None,)}
    arrays = read_npz(data_dir, "omniglot", shapes, {"alphabet_names": (None,)})
    path = str(Path(data_dir) / "omniglot.npz")
    images, alphabets, characters = arrays["images"], arrays["alphabet"], arrays["character"]
    check_samples(path, images, characters, len(images), brightest=1)
    names = [str(alphabet) for alphabet in arrays.get("alphabet_names", np.arange(256))]
    check_samples(path, images, alphabets, len(names), brightest=1)
    numbers, first, labels = np.unique(characters, return_index=True, return_inverse=True)
    class_names = tuple(f"{names[alphabets[i]]}/{number}" for i, number in zip(first, numbers, strict=True))
    return _in_three_parts("omniglot", images, labels, class_names, std=1.0)


def _in_three_parts(
    name: str, images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], std: float
) -> Dataset:
    parts = stratified_parts(labels, THREE_PARTS)
    x = [as_images(images[part], std) for part in parts]
    y = [labels[part].astype("int64") for part in parts]
    return Dataset(name, x[0], y[0], x[1], y[1], x[2], y[2], len(class_names), class_names, (0.0, std))


def _trained_and_tested(
    name: str, data_dir: Directory, image_shape: tuple[int, ...], class_names: tuple[str, ...]
) -> Dataset:
    if data_dir is None:
        import keras

        train, test = getattr(keras.datasets, name).load_data()
        arrays = {"x_train": train[0], "y_train": train[1].ravel(), "x_test": test[0], "y_test": test[1].ravel()}
        source = f"keras.datasets.{name}"
    else:
        images = (None, *image_shape)
        arrays = read_npz(data_dir, name, {"x_train": images, "y_train": (None,), "x_test": images, "y_test": (None,)})
        source = str(Path(data_dir) / f"{name}.npz")
    for part in ("train", "test"):
        check_samples(source, arrays[f"x_{part}"], arrays[f"y_{part}"], len(class_names), brightest=255)
    kept, held_out = stratified_parts(arrays["y_train"], HOLD_OUT)
    raw = [arrays["x_train"][kept], arrays["x_train"][held_out], arrays["x_test"]]
    labels = [arrays["y_train"][kept], arrays["y_train"][held_out], arrays["y_test"]]
    x = [as_images(part, 255.0) for part in raw]
    y = [part.astype("int64") for part in labels]
    return Dataset(name, x[0], y[0], x[1], y[1], x[2], y[2], len(class_names), class_names, (0.0, 255.0))


_LOADERS: dict[str, Callable[[Directory], Dataset]] = {
    "digits": _load_digits,
    "mnist": _load_mnist,
    "cifar10": _load_cifar10,
    "omniglot": _load_omniglot,
}
NAMES = tuple(_LOADERS)
