"""Optional dependencies: imported where they are needed, and named with their pip command where they are missing."""

import importlib
import importlib.util
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Imports a module that belongs to an extra of this package.

    Raises:
        ImportError: One sentence with the pip command, when the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise _missing(error.name or module, extra) from error


def require_installed(module: str, extra: str) -> None:
    """Raises what `require` raises, without importing the module."""
    top = module.partition(".")[0]
    if importlib.util.find_spec(top) is None:
        raise _missing(top, extra)


def _missing(module: str, extra: str) -> ImportError:
    name = module.partition(".")[0]
    return ImportError(
        f'{name!r} is needed here and is not installed: pip install "keras-efficient[{extra}]"', name=name
    )
