"""Reading a data set's `.npz` file, with every disagreement said in one sentence."""

import os
import zipfile
from pathlib import Path

import numpy as np

Shapes = dict[str, tuple[int | None, ...]]


def read_npz(
    directory: str | os.PathLike[str], name: str, expected: Shapes, optional: Shapes | None = None
) -> dict[str, np.ndarray]:
    """The arrays of `directory/name.npz`.

    Args:
        directory: Where the file lies.
        name: The data set's name.
        expected: Shape per key that must be there; None stands for any length.
        optional: Shape per key that may be there.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no `.npz` file, a key is missing or an array has another shape.
    """
    path = Path(directory) / f"{name}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"Invalid value for argument `data_dir`. Expected a directory with the file {path.name}. "
            f"Received: {directory}"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in [*expected, *(optional or {})] if key in file.files}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read. Expected an .npz file of plain arrays. Received: {error}") from error
    missing = sorted(set(expected) - set(arrays))
    if missing:
        raise ValueError(f"{path} is incomplete. Expected the arrays {sorted(expected)}. Missing: {missing}")
    for key, array in arrays.items():
        _check_shape(path, key, array, expected.get(key) or (optional or {})[key])
    return arrays


def check_samples(source: str, images: np.ndarray, labels: np.ndarray, num_classes: int, brightest: int) -> None:
    """Raises `ValueError` unless pixels in `[0, brightest]` come with one label in `[0, num_classes)` per image."""
    if len(images) != len(labels) or not len(images):
        raise ValueError(
            f"{source} is inconsistent. Expected one label per image. "
            f"Received: {len(images)} images and {len(labels)} labels"
        )
    for what, array, largest in (("labels", labels, num_classes - 1), ("pixels", images, brightest)):
        if array.dtype.kind not in "iub" or array.min() < 0 or array.max() > largest:
            raise ValueError(
                f"{source} has invalid {what}. Expected whole numbers from 0 to {largest}. "
                f"Received: {array.dtype} from {array.min()} to {array.max()}"
            )


def _check_shape(path: Path, key: str, array: np.ndarray, expected: tuple[int | None, ...]) -> None:
    fits = len(array.shape) == len(expected) and all(
        wanted is None or size == wanted for size, wanted in zip(array.shape, expected, strict=True)
    )
    if not fits:
        wanted = str(tuple("any" if size is None else size for size in expected)).replace("'", "")
        raise ValueError(f"Array `{key}` of {path} has an invalid shape. Expected {wanted}. Received: {array.shape}")
