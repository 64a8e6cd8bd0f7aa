"""What `export` gives back: what was written, how well it agrees with Keras, and what stayed as it was."""

import dataclasses
import io
from typing import Any


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """The outcome of one export.

    Attributes:
        path: The file.
        ops: Form of the ops in it: `"composite"`, `"custom"` or `"builtin"`.
        written: Number of ops of each name that were written whole.
        bytes: Size of the file.
        parity: Largest absolute difference between Keras and the file in a stock runtime, per output, over
            `verified_inputs` inputs; empty where no runtime could run the form (then `notes` says so).
        verified_inputs: How many inputs the parity was measured on.
        exit_mismatches: Inputs that left at another exit than in Keras (a score on the threshold); they are not in
            `parity`.
        dense_macs: Multiply-adds per sample with everything open and no exit taken.
        quantized: Share of the arithmetic builtin ops (convolution, dense, addition, pooling) that run in int8, None
            for float files.
        notes: What was not converted and why, one sentence each.
    """

    path: str
    ops: str
    written: dict[str, int]
    bytes: int
    parity: dict[str, float]
    verified_inputs: int
    exit_mismatches: int
    dense_macs: float
    quantized: float | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(show_header=False)
        written = ", ".join(f"{count} x {name}" for name, count in sorted(self.written.items())) or "none"
        table.add_row("ops", f"{self.ops}: {written}")
        table.add_row("bytes", f"{self.bytes:,}")
        table.add_row("dense MACs", f"{self.dense_macs:,.0f}")
        for name, difference in self.parity.items():
            table.add_row(f"parity of {name}", f"{difference:.2e} over {self.verified_inputs} inputs")
        if self.exit_mismatches:
            table.add_row("other exit than Keras", f"{self.exit_mismatches} of {self.verified_inputs} inputs")
        if self.quantized is not None:
            table.add_row("int8 ops", f"{self.quantized:.1%}")
        for note in self.notes:
            table.add_row("note", note)
        console = Console(file=io.StringIO(), width=100, markup=False, highlight=False)
        console.print(f"Exported {self.path}", soft_wrap=True)  # a long path is not cut
        console.print(table)
        return str(console.file.getvalue()).rstrip()  # type: ignore[attr-defined]
