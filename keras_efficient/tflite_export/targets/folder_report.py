"""What an export for a device gives back."""

import dataclasses
import io
from typing import Any

from keras_efficient.tflite_export.report import ExportReport
from keras_efficient.tflite_export.targets.coral_report import CoralReport


@dataclasses.dataclass(frozen=True)
class FolderReport(ExportReport):
    """The outcome of an export for a device; `path` is a folder or `.zip` file, `bytes` all of it.

    For Coral, `parity` and `exit_mismatches` compare the stages, run on this CPU, with Keras: int8 differs by steps.

    Attributes:
        target: `"android"` or `"coral"`.
        files: Bytes by name.
        checks: What the Edge TPU compiler would make of each stage, for Coral.
        label_mismatches: Inputs whose largest logit is another one than in Keras, for Coral.
    """

    target: str = ""
    files: dict[str, int] = dataclasses.field(default_factory=dict)
    checks: dict[str, CoralReport] = dataclasses.field(default_factory=dict)
    label_mismatches: int = 0

    def to_dict(self) -> dict[str, Any]:
        checks = {name: report.to_dict() for name, report in self.checks.items()}
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**plain, "notes": list(self.notes), "checks": checks}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "FolderReport":
        """The report that `to_dict` made plain values of."""
        checks = {name: CoralReport.from_dict(entry) for name, entry in plain["checks"].items()}
        return cls(**{**plain, "notes": tuple(plain["notes"]), "checks": checks})

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        files = Table(title=f"For {self.target}", title_justify="left", show_header=False)
        for name, size in self.files.items():
            check = self.checks.get(name)
            mapped = "" if check is None else f", {check.mapped} of {len(check.operators)} operators on the Edge TPU"
            files.add_row(name, f"{size:,} bytes{mapped}")
        if self.checks:
            files.add_row("other label than Keras", f"{self.label_mismatches} of {self.verified_inputs} inputs")
        console = Console(file=io.StringIO(), width=100, markup=False, highlight=False)
        console.print(files)
        return f"{super().__str__()}\n{console.file.getvalue().rstrip()}"  # type: ignore[attr-defined]
