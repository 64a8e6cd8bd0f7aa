"""Builds the shared library that TFLite loads as an external delegate. Needs a C11 compiler and nothing else.

    python native/build.py [--out PATH] [--sanitize] [--cc COMPILER]

A kernel folder's files are compiled for the instruction set that their names end in (`avx512.c`, `tile_avx2.c`,
`neon.c`) and left out on architectures without it; which of the others runs is decided on the device. For other
machines than this one there is `native/cross.py`.
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
from collections.abc import Mapping, Sequence

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
# Flags by architecture and instruction set. Every aarch64 has NEON; a 32-bit arm is asked at run time.
AVX512_FLAGS = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"]
ISA_FLAGS: dict[str, dict[str, list[str]]] = {
    "x86_64": {
        "avx2": ["-mavx2", "-mfma"],
        "avx512": AVX512_FLAGS,
        "avx512vnni": [*AVX512_FLAGS, "-mavx512vnni"],
        "avx512bitalg": [*AVX512_FLAGS, "-mavx512vnni", "-mavx512vbmi", "-mavx512bitalg"],
    },
    "aarch64": {"neon": [], "dotprod": ["-march=armv8.2-a+dotprod"]},
    "arm": {"neon": ["-march=armv7-a", "-mfpu=neon"]},
}
ARCHITECTURE_OF = {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "arm", "armv7a": "arm", "armv6l": "arm"}


class BuildError(RuntimeError):
    """The library could not be built; the message says why in one sentence."""


def isa_of(source: pathlib.Path) -> str | None:
    """The instruction set that a file is compiled for, by the end of its name."""
    ending = source.stem.split("_")[-1]
    return ending if any(ending in sets for sets in ISA_FLAGS.values()) else None


def architecture_of(cc: Sequence[str]) -> str:
    """The architecture that the compiler makes code for: a key of `ISA_FLAGS`, or another name."""
    try:
        machine = subprocess.run([*cc, "-dumpmachine"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        machine = platform.machine()
    name = machine.strip().lower().partition("-")[0]
    return ARCHITECTURE_OF.get(name, name)


def sources(architecture: str = "x86_64") -> list[pathlib.Path]:
    """All C files of the library for this architecture."""
    found = [*NATIVE.glob("*.c"), *NATIVE.glob("ops/*.c"), *NATIVE.glob("kernels/*/*.c")]
    sets = ISA_FLAGS.get(architecture, {})
    return sorted(source for source in found if (isa_of(source) or "") in {"", *sets})


def find_compiler(cc: str | None = None) -> list[str]:
    """The compiler's command: the argument, `CC`, or the first of cc, gcc and clang on the path."""
    named = cc or os.environ.get("CC")
    candidates = [named.split()] if named else [["cc"], ["gcc"], ["clang"]]
    for candidate in candidates:
        if shutil.which(candidate[0]):
            return candidate
    names = " or ".join(candidate[0] for candidate in candidates)
    raise BuildError(f"No C compiler found. Expected {names} on the path; install one or set CC.")


def run(command: list[str]) -> None:
    """Runs a compiler or linker; what it says becomes a BuildError when it fails."""
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
    isa_flags: Mapping[str, Sequence[str]] | None = None,
    includes: Sequence[str] = (),
) -> list[str]:
    """Compiles every file into `folder`; returns the object files.

    Args:
        folder: Where the object files go.
        files: C files.
        cc: The C compiler, with its arguments.
        flags: Further flags for all files.
        sanitize: With AddressSanitizer and UndefinedBehaviorSanitizer.
        jobs: How many compilers run at once.
        isa_flags: Flags by instruction set, `ISA_FLAGS` of the compiler's architecture by default.
        includes: Further folders of headers.

    Raises:
        BuildError: the compiler failed.
    """
    flags_of_set = ISA_FLAGS.get(architecture_of(cc), {}) if isa_flags is None else isa_flags
    checks = SANITIZE_FLAGS if sanitize else []
    vector_checks = (
        [*checks, *SANITIZE_VECTOR_FLAGS, *(SANITIZE_VECTOR_GCC_FLAGS if is_gcc(cc) else [])] if sanitize else []
    )

    def compile_one(source: pathlib.Path) -> str:
        target = folder / ("_".join(source.parts[-3:]) + ".o")
        isa = isa_of(source)
        extra = [*flags_of_set.get(isa, ()), *vector_checks] if isa else checks
        folders = [f"-I{include}" for include in includes]
        run([*cc, *FLAGS, *INCLUDES, *folders, *flags, *extra, "-c", str(source), "-o", str(target)])
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
    files = sources(architecture_of(compiler))
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        flags = ["-Wno-error"] if forgiving else []
        objects = compile_objects(pathlib.Path(folder), files, compiler, flags, sanitize=sanitize)
        library = pathlib.Path(folder) / output.name
        run([*compiler, *extra, *objects, *LINK_FLAGS, "-o", str(library)])
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
