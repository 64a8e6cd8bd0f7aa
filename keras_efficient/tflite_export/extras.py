"""Optional dependencies: imported where they are needed, and named with their pip command where they are missing."""

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Imports a module that belongs to an extra of this package.

    Raises:
        ImportError: One sentence with the pip command, when the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        raise ImportError(
            f'{missing!r} is needed here and is not installed: pip install "keras-efficient[{extra}]"', name=missing
        ) from error
