"""`keras-efficient inspect`: what is in a `.tflite` file, as tables."""

import argparse
import json
import pathlib
from typing import Any

from rich.table import Table

from keras_efficient.cli.files import existing, made_console


def run(options: argparse.Namespace) -> None:
    """Reads the file, prints tables, or JSON with `--json`."""
    folder = pathlib.Path(options.file)
    files = sorted(folder.glob("*.tflite")) if folder.is_dir() else [existing(options.file, ".tflite")]
    if not files:
        raise FileNotFoundError(f"There is no .tflite file in {options.file!r}. Expected an exported folder.")
    from keras_efficient.cli.contents import describe

    found = {str(file): describe(file.read_bytes()) for file in files}
    if options.json:
        print(json.dumps(found if folder.is_dir() else next(iter(found.values())), indent=2))
        return
    console = made_console()
    for name, contents in found.items():
        console.print(name, soft_wrap=True)  # a long path is not cut
        for table in (_overview(contents), _ops(contents), _subgraphs(contents)):
            if table.row_count:
                console.print(table)


def _overview(found: dict[str, Any]) -> Table:
    table = Table(show_header=False)
    known = found["metadata"]
    table.add_row("bytes", f"{found['bytes']:,}")
    for signature in found["signatures"]:
        for kind in ("inputs", "outputs"):
            table.add_row(f"{kind} of {signature['key']}", "\n".join(_described(tensor) for tensor in signature[kind]))
    if "macs" in known:
        macs = known["macs"]
        table.add_row(
            "dense MACs",
            f"{macs['dense']:,.0f} ({macs['builtin']:,.0f} builtin, {macs['ops']:,.0f} in ops with kernels)",
        )
    for number, exit_entry in enumerate(known.get("exits", []), start=1):
        table.add_row(f"exit {number}", f"{exit_entry['macs']:,.0f} MACs up to here, everything open")
    for key, value in known.items():
        if key not in ("macs", "exits", "ops"):
            table.add_row(key, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
    if not known:
        table.add_row("metadata", "not written by keras-efficient")
    return table


def _described(tensor: dict[str, Any]) -> str:
    return f"{tensor['name']} {tensor['dtype']} {tensor['shape']}"


def _ops(found: dict[str, Any]) -> Table:
    table = Table("op", "form", "version", "count", title="ops with kernels of a delegate", title_justify="left")
    for op in found["ops"]:
        table.add_row(op["name"], op["form"], str(op["version"] or "?"), str(op["count"]))
    return table


def _subgraphs(found: dict[str, Any]) -> Table:
    table = Table("", "subgraph", "ops", "constants", title="subgraphs", title_justify="left")
    for part in found["subgraphs"]:
        ops = ", ".join(f"{count} {name}" for name, count in part["ops"].items())
        table.add_row(str(part["index"]), part["name"], ops, f"{part['constant_bytes']:,} bytes")
    return table
