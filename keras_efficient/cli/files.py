"""Reading what the user names on the command line."""

import pathlib
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

Array = NDArray[Any]
WIDTH = 120  # where output goes to a file or a pipe


def made_console() -> Console:
    """A console as wide as the terminal, or wide enough for every table where there is none."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=WIDTH)


def existing(path: str, ending: str) -> pathlib.Path:
    """The path of a file that is there.

    Raises:
        ValueError: If the name has another ending.
        FileNotFoundError: If there is no such file.
    """
    file = pathlib.Path(path)
    if file.suffix != ending:
        raise ValueError(f"Invalid file name. Expected a name that ends in {ending}. Received: {path!r}")
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {path!r}. Expected an existing {ending} file.")
    return file


def arrays_by_name(path: str) -> Any:
    """One array where an `.npz` file holds one, else all by name, as `tflite_export.export` takes them."""
    file = existing(path, ".npz")
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays: dict[str, Array] = {name: stored[name] for name in stored.files}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read. Expected an .npz file of plain arrays. Received: {error}") from error
    if not arrays:
        raise ValueError(f"{path} is empty. Expected at least one array.")
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays
