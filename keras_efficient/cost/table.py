"""A profile as a table for people."""

import io
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from keras_efficient.cost.profiling import LayerCost, Profile

WIDTH = 140


def render(profile: "Profile") -> str:
    """Rows for the layers that compute or store something, then the totals and what could not be counted."""
    table = Table(title=f"Cost of {profile.model} per sample", box=box.SIMPLE_HEAD, show_footer=True)
    known = profile.expected_macs is not None
    expected = f"over {profile.samples} samples" if profile.samples else "expected"
    table.add_column("layer", footer="total", overflow="fold")
    table.add_column("class")
    table.add_column("calls", justify="right")
    table.add_column("MACs", justify="right", footer=short(profile.macs))
    table.add_column(expected, justify="right", footer=short(profile.expected_macs))
    table.add_column("share", justify="right", footer=_share(profile.expected_macs, profile.macs))
    table.add_column("parameters", justify="right", footer=f"{profile.parameters:,}")
    table.add_column("bytes", justify="right", footer=f"{profile.bytes:,.0f}")
    for layer in profile.layers:
        if layer.macs or layer.parameters or not layer.counted:
            table.add_row(*_cells(layer))
    text = io.StringIO()
    console = Console(file=text, width=WIDTH, color_system=None)
    console.print(table)
    if not known:
        console.print("This network decides per input what it computes: give `data` for the expected MACs.")
    if profile.uncounted:
        console.print("Not counted, since their use of weights is not known: " + ", ".join(profile.uncounted))
    return text.getvalue()


def short(number: float | None) -> str:
    """`40.6 M` for 40,551,424; `?` for None."""
    if number is None:
        return "?"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:,.0f}"


def _cells(layer: "LayerCost") -> list[str]:
    macs = short(layer.macs) if layer.counted else "not counted"
    expected, share = short(layer.expected_macs), _share(layer.expected_macs, layer.macs)
    return [
        *(layer.name, layer.class_name, str(layer.calls), macs),
        *(expected, share, f"{layer.parameters:,}", f"{layer.bytes:,.0f}"),
    ]


def _share(part: float | None, whole: float) -> str:
    return "" if part is None or not whole else f"{100 * part / whole:.1f} %"
