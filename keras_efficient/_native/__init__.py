"""Where the compiled delegate and the header for plugin authors lie inside the installed package.

Both are written here by the installation (``setup.py``) from ``native/``. This module imports nothing but the standard
library, because ``setup.py`` itself runs it.
"""

from pathlib import Path

LIBRARY_NAME = "libkeras_efficient.so"
MISSING_LIBRARY = (
    "keras-efficient is installed without its native library (no working C compiler was found by the installation): "
    "models run through their portable decomposition, with the same results but without the saving in time."
)


def library_path() -> Path:
    """Path of the delegate's shared library.

    Raises:
        FileNotFoundError: with one sentence, where the installation found no C compiler.
    """
    path = Path(__file__).resolve().parent / LIBRARY_NAME
    if not path.is_file():
        raise FileNotFoundError(MISSING_LIBRARY)
    return path


def include_dir() -> Path:
    """Directory of ``keras_efficient_plugin.h``, the header that a plugin's kernels are compiled against.

    Raises:
        FileNotFoundError: where the package was not installed (a bare source tree).
    """
    path = Path(__file__).resolve().parent / "include"
    if not path.is_dir():
        raise FileNotFoundError(
            f"The plugin headers are missing. Expected the directory {path}, which `pip install` writes; "
            "install the package instead of running its bare source tree."
        )
    return path
