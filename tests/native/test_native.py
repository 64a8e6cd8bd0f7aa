"""Builds the native library with AddressSanitizer and UndefinedBehaviorSanitizer and runs the C tests beside this file.

Each of them is a program of its own: `python tests/native/test_native.py FOLDER` builds them there to be run by hand.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import flatbuffers.flexbuffers
import numpy as np
import pytest

HERE = pathlib.Path(__file__).resolve().parent
NATIVE = HERE.parents[1] / "native"

_spec = importlib.util.spec_from_file_location("keras_efficient_native_build", NATIVE / "build.py")
assert _spec is not None
assert _spec.loader is not None
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

# Sizes that no memory holds are refused by malloc, as they are without the sanitizer.
ENVIRONMENT = {
    **os.environ,
    "ASAN_OPTIONS": "allocator_may_return_null=1:max_allocation_size_mb=512:detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
HARNESS = ["fake_runtime.c", "op_models.c"]
# random cases
ARGUMENTS = {
    "test_gated_conv_2d_kernel": ["30"],
    "test_gated_conv_2d_int8_kernel": ["30"],
    "test_gated_depthwise_conv_2d_kernel": ["60"],
    "test_multi_bit_conv_2d_kernel": ["30"],
}
PROGRAMS = {
    "test_attributes": [],
    "test_thread_pool": [],
    "test_multi_bit_dense_kernel": [],
    "test_multi_bit_conv_2d_kernel": [],
    "test_gate_net_kernel": [],
    "test_gated_conv_2d_kernel": [],
    "test_gated_conv_2d_int8_kernel": [],
    "test_gated_depthwise_conv_2d_kernel": [],
    "test_delegate": HARNESS,
    "test_mutants": HARNESS,
}

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")


class Workshop:
    """Sanitized objects of the library, and programs linked with them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.cc = build.find_compiler()
        sources = build.sources(build.architecture_of(self.cc))
        self.objects = build.compile_objects(folder, sources, self.cc, sanitize=True)

    def program(self, name: str, flags: tuple[str, ...] = ()) -> pathlib.Path:
        """Compiles and links one test program."""
        folder = self.folder / "_".join((name, *flags))
        folder.mkdir(exist_ok=True)
        files = [HERE / f"{name}.c", *(HERE / file for file in PROGRAMS[name])]
        objects = build.compile_objects(folder, files, self.cc, [f"-I{HERE}", *flags], sanitize=True)
        target = folder / name
        libraries = [flag for flag in build.LINK_FLAGS if flag != "-shared"]
        command = [*self.cc, *build.SANITIZE_FLAGS, *objects, *self.objects, *libraries, "-o", str(target)]
        subprocess.run(command, check=True)
        return target


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("native"))


def run(program: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(program), *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(workshop: Workshop, name: str) -> None:
    process = run(workshop.program(name), *ARGUMENTS.get(name, []))
    assert process.returncode == 0, process.stdout + process.stderr


def test_an_overflow_is_seen(workshop: Workshop) -> None:
    process = run(workshop.program("test_delegate", ("-DKE_PLANT_OVERFLOW",)))
    assert process.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in process.stderr


@pytest.mark.parametrize(
    ("attributes", "key", "kind", "expected"),
    [
        ({"a": 1, "b": -7}, "b", "int", [-7]),
        ({"a": 1, "b": -70000}, "b", "int", [-70000]),
        ({"a": 2**40, "b": 200}, "b", "int", [200]),
        ({"a": 2**62, "zebra": True}, "a", "int", [2**62]),
        ({"a": 2**62, "zebra": True}, "zebra", "int", [1]),
        ({"a": 0.5, "b": 3}, "a", "float", [0.5]),
        ({"a": 0.1, "b": 3}, "a", "float", [0.1]),
        ({"a": 1, "b": 3}, "b", "float", [3.0]),
        ({"weights": [1, 2, 3], "version": 1}, "weights", "ints", [1, 2, 3]),
        ({"weights": [1000, 70000], "version": 1}, "weights", "ints", [1000, 70000]),
        ({"weights": [], "version": 1}, "weights", "ints", []),
        ({"weights": [5, True], "version": 1}, "weights", "ints", [5, 1]),
    ],
)
def test_reads_what_the_official_writer_wrote(
    workshop: Workshop,
    tmp_path: pathlib.Path,
    attributes: dict[str, object],
    key: str,
    kind: str,
    expected: list[float],
) -> None:
    file = tmp_path / "attributes"
    file.write_bytes(flatbuffers.flexbuffers.Dumps(attributes))
    process = run(workshop.program("test_attributes"), str(file), key, kind)
    assert process.returncode == 0, process.stderr
    assert np.array_equal([float(line) for line in process.stdout.split()], expected)


def test_reads_typed_and_indirect_values(workshop: Workshop, tmp_path: pathlib.Path) -> None:
    builder = flatbuffers.flexbuffers.Builder()
    with builder.Map():
        builder.IndirectInt("far", -123456789012)
        builder.IndirectFloat("further", 0.25)
        builder.IndirectUInt("unsigned", 77)
        builder.Key("typed")
        builder.TypedVectorFromElements([9, -8, 7, 6, 5])
        builder.Key("tuple")
        builder.FixedTypedVectorFromElements([4, 300])
    file = tmp_path / "attributes"
    file.write_bytes(bytes(builder.Finish()))
    program = workshop.program("test_attributes")
    for key, kind, expected in [
        ("far", "int", [-123456789012]),
        ("unsigned", "int", [77]),
        ("further", "float", [0.25]),
        ("typed", "ints", [9, -8, 7, 6, 5]),
        ("tuple", "ints", [4, 300]),
    ]:
        process = run(program, str(file), key, kind)
        assert process.returncode == 0, (key, process.returncode)
        assert [float(line) for line in process.stdout.split()] == expected


def test_build_says_that_there_is_no_compiler() -> None:
    environment = {**os.environ, "CC": "no-such-compiler"}
    command = [sys.executable, str(NATIVE / "build.py"), "--out", "unused.so"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        "No C compiler found. Expected no-such-compiler on the path; install one or set CC."
    ]


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(tempfile.mkdtemp())
    target.mkdir(parents=True, exist_ok=True)
    workbench = Workshop(target)
    for program_name in PROGRAMS:
        print(workbench.program(program_name))
