"""What the Edge TPU compiler takes, read from `edge_tpu_16.json`: one row per operator, each with its source."""

import dataclasses
import functools
import importlib.resources
import json
from typing import Any

FILE = "edge_tpu_16.json"
CERTAINTIES = ("documented", "observed", "inferred", "recalled")


@dataclasses.dataclass(frozen=True)
class Row:
    """One operator.

    Attributes:
        operator: Name of the builtin operator.
        supported: Whether the Edge TPU runs it at all.
        limitation: The condition in words; empty where there is none.
        rules: Names of the functions in `edge_tpu_rules` that test the condition.
        mend: What to use instead, for an operator that is not supported.
        certainty: How sure the row is: one of `CERTAINTIES`.
        sources: Addresses of the pages that say so.
    """

    operator: str
    supported: bool
    limitation: str
    rules: tuple[str, ...]
    mend: str
    certainty: str
    sources: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class NewestVersion:
    """The newest version of an operator that the compiler can know; files with a newer one are refused whole."""

    version: int
    mend: str
    certainty: str
    sources: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """The whole file.

    Attributes:
        compiler: Version of the compiler that the table is about.
        rows: By operator.
        newest: By operator; an operator that is not in it is unknown to the compiler.
        sources: Addresses by short name.
    """

    compiler: str
    rows: dict[str, Row]
    newest: dict[str, NewestVersion]
    sources: dict[str, str]

    def row(self, operator: str) -> Row:
        """The row of an operator; of one that is not listed, a row that says it is not supported."""
        return self.rows.get(operator) or Row(
            operator,
            False,
            "",
            (),
            "Use operators of the list of supported operations instead.",
            "documented",
            (self.sources["coral"],),
        )


@functools.cache
def table() -> Table:
    """The table, read once."""
    entries = json.loads(importlib.resources.files(__package__).joinpath(FILE).read_text("utf-8"))
    addresses: dict[str, str] = entries["sources"]

    def urls(entry: dict[str, Any]) -> tuple[str, ...]:
        return tuple(addresses[name] for name in entry["source"])

    rows = {
        entry["operator"]: Row(
            entry["operator"],
            entry["supported"],
            entry.get("limitation", ""),
            tuple(entry.get("rules", ())),
            entry.get("mend", ""),
            entry["certainty"],
            urls(entry),
        )
        for entry in entries["operators"]
    }
    general = entries["versions"]
    mend = "Convert the model with builtin operators that TensorFlow of 2021 had."
    newest = {
        name: NewestVersion(version, mend, general["certainty"], urls(general))
        for name, version in general["newest"].items()
    }
    for entry in entries["refused_versions"]:
        newest[entry["operator"]] = NewestVersion(entry["newest"], entry["mend"], entry["certainty"], urls(entry))
    return Table(entries["compiler"], rows, newest, addresses)
