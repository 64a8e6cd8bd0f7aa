"""Running `edgetpu_compiler`, which is x86-64 Linux only and closed, and reading its log."""

import collections
import dataclasses
import pathlib
import re
import shutil
import subprocess
import tempfile

PROGRAM = "edgetpu_compiler"
MAPPED = "Mapped to Edge TPU"
TIMEOUT_SECONDS = 600
_ROW = re.compile(r"^([A-Z][A-Za-z0-9_]*)\s+(\d+)\s{2,}(\S.*)$")
_VERSION = re.compile(r"Edge TPU Compiler version (\S+)")


@dataclasses.dataclass(frozen=True)
class CompilerVerdict:
    """What the compiler said.

    Attributes:
        version: Its version, `"?"` where it names none.
        compiled: Whether it wrote a file.
        message: Why not, or how many operators it mapped.
        operators: `(operator, count, status)` as in its log.
    """

    version: str
    compiled: bool
    message: str
    operators: tuple[tuple[str, int, str], ...]

    @property
    def mapped(self) -> "collections.Counter[str]":
        """Operators on the Edge TPU, counted by name."""
        counts: collections.Counter[str] = collections.Counter()
        for operator, count, status in self.operators:
            counts[operator] += count if status == MAPPED else 0
        return counts


def run(file: pathlib.Path) -> CompilerVerdict | None:
    """Compiles a file into a folder that is thrown away; None where the compiler is not on the PATH."""
    program = shutil.which(PROGRAM)
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [program, "-s", "-o", folder, str(file)], capture_output=True, text=True, timeout=TIMEOUT_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return CompilerVerdict("?", False, f"It could not be run: {error}", ())
    return read_log(done.stdout + "\n" + done.stderr, done.returncode == 0)


def read_log(text: str, succeeded: bool) -> CompilerVerdict:
    """The verdict in what the compiler printed."""
    version = _VERSION.search(text)
    rows = [match for line in text.splitlines() if (match := _ROW.match(line.strip()))]
    operators = tuple((match[1], int(match[2]), match[3].strip()) for match in rows)
    compiled = succeeded and "Model compiled successfully" in text
    verdict = CompilerVerdict(version[1] if version else "?", compiled, "", operators)
    return dataclasses.replace(verdict, message=_message(text, verdict))


def _message(text: str, verdict: CompilerVerdict) -> str:
    if verdict.compiled:
        total = sum(count for _, count, _ in verdict.operators)
        return f"{verdict.mapped.total()} of {total} operators mapped."
    signs = ("ERROR:", "Invalid model", "Compilation failed", "Model not quantized", "Internal compiler error")
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith(signs)]
    return " ".join(lines)[:500] or "It wrote no file and gave no reason."
