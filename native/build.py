"""Builds the shared library that TFLite loads as an external delegate. Needs a C11 compiler and nothing else.

    python native/build.py [--out PATH] [--sanitize] [--cc COMPILER]

A kernel folder's files are compiled for the instruction set that their names end in (`avx512.c`, `tile_avx2.c`);
those files are left out on machines of another architecture. Which of the others runs is decided on the device.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence

NATIVE = pathlib.Path(__file__).resolve().parent
DEFAULT_OUTPUT = NATIVE.parent / "keras_efficient" / "_native" / "libkeras_efficient.so"

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
INCLUDES = [f"-I{NATIVE}", f"-I{NATIVE / 'include'}"]
LINK_FLAGS = ["-shared", "-pthread", "-lm", "-ldl"]
SANITIZE_FLAGS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
    "-g",
    "-O1",
]
# Unrolled vector code takes minutes with every check inlined; what matters there is where it reads and writes.
SANITIZE_VECTOR_FLAGS = ["-fno-sanitize=undefined"]
SANITIZE_VECTOR_GCC_FLAGS = ["--param", "asan-instrumentation-with-call-threshold=0"]
ISA_FLAGS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"],
}


class BuildError(RuntimeError):
    """The library could not be built; the message says why in one sentence."""


def isa_of(source: pathlib.Path) -> str | None:
    """The instruction set that a file is compiled for, by the end of its name."""
    ending = source.stem.split("_")[-1]
    return ending if ending in ISA_FLAGS else None


def targets_x86_64(cc: Sequence[str]) -> bool:
    """Whether the compiler makes code for x86-64, which may not be what this machine is."""
    try:
        machine = subprocess.run([*cc, "-dumpmachine"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        machine = platform.machine()
    return machine.strip().lower().startswith(("x86_64", "amd64"))


def sources(x86_64: bool = True) -> list[pathlib.Path]:
    """All C files of the library for this kind of machine."""
    found = [*NATIVE.glob("*.c"), *NATIVE.glob("ops/*.c"), *NATIVE.glob("kernels/*/*.c")]
    return sorted(source for source in found if x86_64 or isa_of(source) is None)


def find_compiler(cc: str | None = None) -> list[str]:
    """The compiler's command: the argument, `CC`, or the first of cc, gcc and clang on the path."""
    named = cc or os.environ.get("CC")
    candidates = [named.split()] if named else [["cc"], ["gcc"], ["clang"]]
    for candidate in candidates:
        if shutil.which(candidate[0]):
            return candidate
    names = " or ".join(candidate[0] for candidate in candidates)
    raise BuildError(f"No C compiler found. Expected {names} on the path; install one or set CC.")


def _run(command: list[str]) -> None:
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode != 0:
        raise BuildError(f"The C compiler failed: {' '.join(command)}\n{process.stderr}")


def is_gcc(cc: Sequence[str]) -> bool:
    """Whether the compiler is GCC, by what it says of itself."""
    version = subprocess.run([*cc, "--version"], capture_output=True, text=True).stdout
    return "Free Software Foundation" in version


def compile_objects(
    folder: pathlib.Path,
    files: Sequence[pathlib.Path],
    cc: Sequence[str],
    flags: Sequence[str] = (),
    sanitize: bool = False,
    jobs: int = 2,
) -> list[str]:
    """Compiles every file into `folder`; returns the object files."""
    checks = SANITIZE_FLAGS if sanitize else []
    vector_checks = (
        [*checks, *SANITIZE_VECTOR_FLAGS, *(SANITIZE_VECTOR_GCC_FLAGS if is_gcc(cc) else [])] if sanitize else []
    )

    def compile_one(source: pathlib.Path) -> str:
        target = folder / ("_".join(source.parts[-3:]) + ".o")
        isa = isa_of(source)
        extra = [*ISA_FLAGS[isa], *vector_checks] if isa else checks
        _run([*cc, *FLAGS, *INCLUDES, *extra, *flags, "-c", str(source), "-o", str(target)])
        return str(target)

    with concurrent.futures.ThreadPoolExecutor(jobs) as executor:
        return list(executor.map(compile_one, files))


def build(
    out: os.PathLike[str] | str = DEFAULT_OUTPUT, sanitize: bool = False, cc: str | None = None, forgiving: bool = False
) -> pathlib.Path:
    """Compiles and links the library to `out`, which is written whole or not at all.

    Args:
        out: Path of the shared library.
        sanitize: With AddressSanitizer and UndefinedBehaviorSanitizer.
        cc: The C compiler, with its arguments.
        forgiving: Lets warnings pass, for compilers on users' machines that know more of them than ours.

    Raises:
        BuildError: there is no compiler, or it failed.
    """
    compiler = find_compiler(cc)
    output = pathlib.Path(out).resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    extra = SANITIZE_FLAGS if sanitize else []
    files = sources(targets_x86_64(compiler))
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        flags = ["-Wno-error"] if forgiving else []
        objects = compile_objects(pathlib.Path(folder), files, compiler, flags, sanitize=sanitize)
        library = pathlib.Path(folder) / output.name
        _run([*compiler, *extra, *objects, *LINK_FLAGS, "-o", str(library)])
        os.replace(library, output)
    return output


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build the keras-efficient delegate.")
    parser.add_argument("--out", default=DEFAULT_OUTPUT, help="the shared library to write")
    parser.add_argument("--sanitize", action="store_true", help="with AddressSanitizer and UndefinedBehaviorSanitizer")
    parser.add_argument("--cc", help="the C compiler, with its arguments")
    arguments = parser.parse_args()
    try:
        print(build(arguments.out, sanitize=arguments.sanitize, cc=arguments.cc))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
