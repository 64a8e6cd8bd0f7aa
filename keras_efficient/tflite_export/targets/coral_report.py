"""What `coral_check` found."""

import collections
import dataclasses
import enum
import io
from typing import Any

from keras_efficient.tflite_export.targets.edge_tpu_compiler import CompilerVerdict


class Status(enum.Enum):
    """Where an operator would run."""

    EDGE_TPU = "edge tpu"
    HOST = "conversion on the cpu"
    CPU = "cpu"
    BEHIND = "cpu, behind a cut"


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that the compiler minds.

    Attributes:
        rule: Its name.
        reason: One sentence.
        mend: How to mend it, one sentence.
        certainty: `"documented"`, `"observed"`, `"inferred"` or `"recalled"`.
        sources: Addresses of the pages that say so.
        doubt: True where it costs something, or may, but is not known to keep the operator off the Edge TPU.
    """

    rule: str
    reason: str
    mend: str
    certainty: str
    sources: tuple[str, ...]
    doubt: bool = False


@dataclasses.dataclass(frozen=True)
class OperatorVerdict:
    """One operator.

    Attributes:
        index: Its place in the main subgraph.
        operator: Its name, of a custom op its own.
        version: In the file.
        output: Names of the tensors that it makes.
        status: Where it would run.
        findings: What keeps it off the Edge TPU, or is doubtful.
        cut: Whether the compiler stops here: the first one that is not mapped on its path.
    """

    index: int
    operator: str
    version: int
    output: str
    status: Status
    findings: tuple[Finding, ...]
    cut: bool


@dataclasses.dataclass(frozen=True)
class CoralReport:
    """The verdict on a file.

    Attributes:
        path: The file.
        refusals: What makes the compiler refuse the whole file.
        operators: Every operator of the main subgraph, in order.
        compiler: What `edgetpu_compiler` says, None where it was not run.
        table_version: Version of the compiler that the facts are about.
    """

    path: str
    refusals: tuple[Finding, ...]
    operators: tuple[OperatorVerdict, ...]
    compiler: CompilerVerdict | None
    table_version: str

    @property
    def compiles(self) -> bool:
        """Whether the compiler would take the file."""
        return not self.refusals

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything that was found, refusals first."""
        return (*self.refusals, *(finding for verdict in self.operators for finding in verdict.findings))

    @property
    def cuts(self) -> tuple[OperatorVerdict, ...]:
        """The operators at which the compiler stops."""
        return tuple(verdict for verdict in self.operators if verdict.cut)

    @property
    def mapped(self) -> int:
        """Number of operators on the Edge TPU: 0 where the file is refused."""
        return sum(verdict.status is Status.EDGE_TPU for verdict in self.operators) if self.compiles else 0

    @property
    def maps_fully(self) -> bool:
        """Whether all of the file runs on the Edge TPU, apart from conversions of float inputs and outputs."""
        placed = all(verdict.status in (Status.EDGE_TPU, Status.HOST) for verdict in self.operators)
        return self.compiles and placed

    @property
    def disagreements(self) -> tuple[str, ...]:
        """Where `edgetpu_compiler` says something else than the table, one sentence each; empty where it was not run.

        Counts are by operator, since the compiler's log names no tensors.
        """
        if self.compiler is None:
            return ()
        if self.compiler.compiled != self.compiles:
            verdicts = {True: "compiles", False: "is refused"}
            return (
                f"By the table the file {verdicts[self.compiles]}, by edgetpu_compiler it "
                f"{verdicts[self.compiler.compiled]}: {self.compiler.message}",
            )
        if not self.compiles:
            return ()
        ours = collections.Counter(v.operator for v in self.operators if v.status is Status.EDGE_TPU)
        theirs = self.compiler.mapped
        return tuple(
            f"{name}: {ours[name]} on the Edge TPU by the table, {theirs[name]} by edgetpu_compiler."
            for name in sorted(set(ours) | set(theirs))
            if ours[name] != theirs[name]
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        plain = dataclasses.asdict(self)
        for entry, verdict in zip(plain["operators"], self.operators, strict=True):
            entry["status"] = verdict.status.value
        totals = {"compiles": self.compiles, "mapped": self.mapped, "maps_fully": self.maps_fully}
        return {**plain, **totals, "disagreements": list(self.disagreements)}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "CoralReport":
        """The report that `to_dict` made plain values of, also after JSON."""

        def finding(entry: dict[str, Any]) -> Finding:
            return Finding(**{**entry, "sources": tuple(entry["sources"])})

        def verdict(entry: dict[str, Any]) -> OperatorVerdict:
            found = tuple(finding(one) for one in entry["findings"])
            return OperatorVerdict(**{**entry, "status": Status(entry["status"]), "findings": found})

        compiler = plain["compiler"]
        if compiler is not None:
            rows = tuple((str(name), int(count), str(status)) for name, count, status in compiler["operators"])
            compiler = CompilerVerdict(**{**compiler, "operators": rows})
        return cls(
            path=plain["path"],
            refusals=tuple(finding(entry) for entry in plain["refusals"]),
            operators=tuple(verdict(entry) for entry in plain["operators"]),
            compiler=compiler,
            table_version=plain["table_version"],
        )

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        console = Console(file=io.StringIO(), width=120, markup=False, highlight=False)
        console.print(self._headline())
        rows = collections.Counter(
            (v.operator, v.version, v.status.value + (" (cut)" if v.cut else ""), _words(v.findings))
            for v in self.operators
        )
        operators = Table("operator", "version", "count", "runs on", "why, and what to do")
        for refusal in self.refusals:
            console.print(f"Refused: {refusal.reason} {refusal.mend} ({refusal.certainty}: {refusal.sources[0]})")
        for (operator, version, status, words), count in rows.items():
            operators.add_row(operator, str(version), str(count), status, words)
        console.print(operators)
        if self.compiler is not None:
            console.print(f"edgetpu_compiler {self.compiler.version}: {self.compiler.message}")
        for sentence in self.disagreements:
            console.print(f"Differs: {sentence}")
        return str(console.file.getvalue()).rstrip()  # type: ignore[attr-defined]

    def _headline(self) -> str:
        if not self.compiles:
            return f"{self.path}: edgetpu_compiler {self.table_version} refuses this file."
        total = len(self.operators)
        return (
            f"{self.path}: {self.mapped} of {total} operators on the Edge TPU (edgetpu_compiler {self.table_version})."
        )


def _words(findings: tuple[Finding, ...]) -> str:
    return "\n".join(f"{finding.reason} {finding.mend} ({finding.certainty})" for finding in findings)
