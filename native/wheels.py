"""Builds wheels that carry the library for all machines of a platform, so that installing them needs no compiler.

    pip install ziglang pyelftools "setuptools>=77"
    python -m native.wheels --out dist

The libraries are cross-built, this machine's own one too: they need no newer glibc than the wheel's tag says. Each
wheel is read back before it is kept.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence

from . import build, readback
from .cross import LIBRARY
from .targets import TARGETS, Target

TARGETS_OF_WHEELS = ("linux-x86_64", "linux-aarch64")
MEMBER = f"keras_efficient/_native/{LIBRARY}"


def problems_of(wheel: pathlib.Path, target: Target) -> list[str]:
    """What is wrong with a wheel, one line for each thing."""
    problems = []
    tag = f"py3-none-{target.abi}"
    if not wheel.stem.endswith(f"-{tag}"):
        problems.append(f"is called {wheel.name}, not ...-{tag}.whl")
    with zipfile.ZipFile(wheel) as files, tempfile.TemporaryDirectory() as folder:
        libraries = [name for name in files.namelist() if name.endswith(".so")]
        (tags,) = (files.read(name).decode() for name in files.namelist() if name.endswith(".dist-info/WHEEL"))
        if f"Tag: {tag}" not in tags.splitlines():
            problems.append(f"does not say that it is for {tag}")
        if libraries != [MEMBER]:
            return [*problems, f"carries the libraries {libraries}, not {[MEMBER]}"]
        return problems + readback.problems_of(files.extract(MEMBER, folder), target)


def build_wheel(target: Target, out: pathlib.Path, source: pathlib.Path) -> pathlib.Path:
    """Builds the wheel of a target into `out` from the source tree.

    Raises:
        BuildError: it could not be built, or is not as it should be.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        code = f"import setuptools.build_meta as backend; backend.build_wheel({folder!r})"
        environment = {**os.environ, "KERAS_EFFICIENT_TARGET": target.name}
        process = subprocess.run(
            [sys.executable, "-c", code], cwd=source, env=environment, capture_output=True, text=True
        )
        if process.returncode != 0:
            raise build.BuildError(f"The wheel for {target.name} failed.\n{process.stderr[-4000:]}")
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        problems = problems_of(wheel, target)
        if problems:
            raise build.BuildError(f"The wheel {wheel.name} {'; '.join(problems)}.")
        os.replace(wheel, out / wheel.name)
    return out / wheel.name


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    linux = [name for name, target in TARGETS.items() if not target.android]
    parser = argparse.ArgumentParser(prog="python -m native.wheels", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", action="append", choices=linux, help="a machine; may be given again")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="the folder to write to")
    parser.add_argument("--source", default=build.NATIVE.parent, type=pathlib.Path, help="the source tree")
    options = parser.parse_args(arguments)
    try:
        for name in options.target or TARGETS_OF_WHEELS:
            wheel = build_wheel(TARGETS[name], options.out.resolve(), options.source)
            print(f"{wheel} ({wheel.stat().st_size} bytes)")
    except (build.BuildError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
