"""The C tests of tests/native, built for arm as static programs and run under qemu: every path that the machine has,
the scalar one as its oracle."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
from collections.abc import Callable
from types import ModuleType

import pytest

PROGRAMS_FOLDER = pathlib.Path(__file__).resolve().parents[1] / "native"
TRIPLES = {"aarch64": "aarch64-linux-musl", "arm": "arm-linux-musleabihf"}
TARGETS = {"aarch64": "linux-aarch64", "arm": "linux-armv7"}
# With and without the instructions that only some have: the dot product, and on 32-bit NEON.
PROCESSORS = {"aarch64": ["max", "cortex-a53"], "arm": ["max", "cortex-a8"]}
MACHINES = [(architecture, processor) for architecture, processors in PROCESSORS.items() for processor in processors]


def load_native_tests() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keras_efficient_native_tests", PROGRAMS_FOLDER / "test_native.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


native_tests = load_native_tests()
ARGUMENTS = {name: ["2"] for name in native_tests.ARGUMENTS}  # random cases; the emulator is slow
Programs = Callable[[str, str], pathlib.Path]


@pytest.fixture(scope="module")
def programs(cross: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Builds a test program of a name for an architecture; the library's objects are built once."""
    build = cross.build
    objects: dict[str, list[str]] = {}
    built: dict[tuple[str, str], pathlib.Path] = {}

    def compile_files(folder: pathlib.Path, architecture: str, files: list[pathlib.Path], include: str) -> list[str]:
        target = cross.TARGETS[TARGETS[architecture]]
        cc = [*cross.find_zig(), "cc", "-target", TRIPLES[architecture]]
        isa_flags = target.isa_flags or build.ISA_FLAGS[architecture]
        flags = [*target.flags, include]
        return build.compile_objects(folder, files, cc, flags, isa_flags=isa_flags)

    def program(name: str, architecture: str) -> pathlib.Path:
        if (name, architecture) in built:
            return built[name, architecture]
        include = f"-I{PROGRAMS_FOLDER}"
        if architecture not in objects:
            folder = tmp_path_factory.mktemp(architecture)
            objects[architecture] = compile_files(folder, architecture, build.sources(architecture), include)
        folder = tmp_path_factory.mktemp(f"{architecture}_{name}")
        files = [PROGRAMS_FOLDER / f"{name}.c", *(PROGRAMS_FOLDER / file for file in native_tests.PROGRAMS[name])]
        own = compile_files(folder, architecture, files, include)
        target = cross.TARGETS[TARGETS[architecture]]
        cc = [*cross.find_zig(), "cc", "-target", TRIPLES[architecture], *target.flags, "-static"]
        build.run([*cc, *own, *objects[architecture], "-lm", "-o", str(folder / name)])
        built[name, architecture] = folder / name
        return folder / name

    return program


@pytest.mark.parametrize(("architecture", "processor"), MACHINES)
@pytest.mark.parametrize("name", native_tests.PROGRAMS)
def test_program(emulators: dict[str, str], programs: Programs, name: str, architecture: str, processor: str) -> None:
    command = [emulators[architecture], "-cpu", processor, str(programs(name, architecture))]
    process = subprocess.run([*command, *ARGUMENTS.get(name, [])], capture_output=True, text=True, timeout=1800)
    assert process.returncode == 0, process.stdout + process.stderr
