"""What an export for a device gives back."""

import dataclasses
import io
from typing import Any

from keras_efficient.tflite_export.report import ExportReport
from keras_efficient.tflite_export.targets.coral_report import CoralReport


@dataclasses.dataclass(frozen=True)
class FolderReport:
    """The outcome of an export for a device.

    Attributes:
        path: The folder or `.zip` file.
        target: `"android"` or `"coral"`.
        files: Bytes by name.
        model: The report on the model file, for Android.
        checks: What the Edge TPU compiler would make of each stage, for Coral.
        agreement: For Coral: share of the verified inputs with the label, and the exit, that Keras gives them.
        verified_inputs: How many inputs that was measured on.
        notes: What is missing or runs elsewhere than hoped, one sentence each.
    """

    path: str
    target: str
    files: dict[str, int]
    model: ExportReport | None = None
    checks: dict[str, CoralReport] = dataclasses.field(default_factory=dict)
    agreement: dict[str, float] = dataclasses.field(default_factory=dict)
    verified_inputs: int = 0
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        checks = {name: report.to_dict() for name, report in self.checks.items()}
        return {**dataclasses.asdict(self), "checks": checks}

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        title = f"Exported {self.path} for {self.target}"
        table = Table(title=title, title_justify="left", show_header=False)
        for name, size in self.files.items():
            check = self.checks.get(name)
            mapped = "" if check is None else f", {check.mapped} of {len(check.operators)} operators on the Edge TPU"
            table.add_row(name, f"{size:,} bytes{mapped}")
        for what, share in self.agreement.items():
            table.add_row(f"same {what} as Keras", f"{share:.1%} of {self.verified_inputs} inputs")
        for note in self.notes:
            table.add_row("note", note)
        console = Console(file=io.StringIO(), width=110, markup=False, highlight=False)
        console.print(table)
        if self.model is not None:
            console.print(str(self.model))
        return str(console.file.getvalue()).rstrip()  # type: ignore[attr-defined]
