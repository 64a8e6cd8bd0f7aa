"""Results in cells: what is finished is on disk, and an interrupted run goes on with what is left."""

import json
import pathlib
from collections.abc import Callable
from typing import Any


class Cells:
    """JSON values by name in a directory; each is computed once."""

    def __init__(self, directory: pathlib.Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """The value of a cell, made and written (whole or not at all) where it is missing."""
        path = self.directory / f"{name}.json"
        if not path.exists():
            value = make()
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(value))
            part.replace(path)
        return json.loads(path.read_text())
