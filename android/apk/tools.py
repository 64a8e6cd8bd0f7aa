"""The programs that the build calls, and what it says when one is missing or fails."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

# What provides each program on Debian and Ubuntu.
PACKAGES = {
    "javac": "default-jdk-headless",
    "java": "default-jdk-headless",
    "keytool": "default-jdk-headless",
    "mvn": "maven",
    "aapt": "aapt",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
}


class BuildError(RuntimeError):
    """A step that could not be done; the message is one sentence, then what the program printed."""


def missing(programs: Iterable[str] = PACKAGES) -> list[str]:
    """Those of the programs that are not on the PATH."""
    return [name for name in programs if shutil.which(name) is None]


def check(programs: Iterable[str] = PACKAGES) -> None:
    """Raises `BuildError` with the command that installs what is missing."""
    absent = missing(programs)
    if absent:
        packages = " ".join(sorted({PACKAGES[name] for name in absent}))
        raise BuildError(f"Missing programs: {', '.join(absent)}. On Debian and Ubuntu: apt-get install {packages}")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Runs a program and returns what it printed.

    Raises:
        BuildError: If it is missing or fails; with its output.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except FileNotFoundError:
        check([words[0]] if words[0] in PACKAGES else [])
        raise BuildError(f"Missing program: {words[0]}") from None
    if done.returncode:
        raise BuildError(f"{Path(words[0]).name} failed with status {done.returncode}.\n{done.stdout.strip()}")
    return done.stdout
