"""Cross-built libraries, read back: machine, pages, exports, and nothing expected of a system that it may not have."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from types import ModuleType

import pytest

pytest.importorskip("elftools", reason="needs pyelftools")

from native import build, readback
from native.targets import TARGETS

ARM64 = TARGETS["android-arm64-v8a"]
JNI = """
#include <jni.h>
JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *vm, void *reserved) { (void)vm; (void)reserved; return JNI_VERSION_1_6; }
JNIEXPORT jlong JNICALL Java_org_example_Size_of(JNIEnv *env, jclass c) { (void)env; (void)c; return sizeof(jlong); }
int not_for_others(void) { return 1; }
"""


@pytest.mark.parametrize("name", TARGETS)
def test_library_is_as_its_target_needs_it(libraries: Mapping[str, pathlib.Path], name: str) -> None:
    assert readback.problems_of(libraries[name], TARGETS[name]) == []


def test_the_command_reads_all_of_them_back(
    libraries: Mapping[str, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {libraries[name].parents[1] for name in TARGETS}
    assert readback.main([str(folder) for folder in folders]) == 0
    assert capsys.readouterr().out.count("as it should be") == len(TARGETS)


def test_another_machine_is_noticed(libraries: Mapping[str, pathlib.Path]) -> None:
    found = readback.problems_of(libraries["android-armeabi-v7a"], ARM64)
    assert {"has the machine EM_ARM, not EM_AARCH64", "has the bits 32, not 64"} <= set(found)
    assert "has segments aligned to 4096 bytes, not to 16384" in found


def link(cross: ModuleType, folder: pathlib.Path, code: str, *flags: str) -> pathlib.Path:
    """A library for 64-bit Android with mistakes that `code` and `flags` make."""
    source, compiled, library = folder / "bad.c", folder / "bad.o", folder / cross.LIBRARY
    source.write_text(code)
    zig = cross.find_zig()
    build.run([*zig, "clang", "-target", ARM64.triple, "-fPIC", "-c", str(source), "-o", str(compiled)])
    stubs = cross.stub_libraries(folder, zig, ARM64)
    command = [*zig, "ld.lld", "-m", "aarch64linux", "-shared", "--soname", cross.LIBRARY, str(compiled), "--as-needed"]
    build.run([*command, *stubs, "-zmax-page-size=16384", "-zcommon-page-size=16384", *flags, "-o", str(library)])
    return library


GOOD = "void tflite_plugin_create_delegate(void) {}\nvoid tflite_plugin_destroy_delegate(void) {}\n"


@pytest.mark.parametrize(
    ("code", "flags", "problem"),
    [
        (GOOD, ["--hash-style=both"], None),
        (GOOD, ["--hash-style=gnu"], "has no DT_HASH"),
        (GOOD + "int further;", ["--hash-style=both"], "exports further"),
        ("void tflite_plugin_create_delegate(void) {}", [], "does not export tflite_plugin_destroy_delegate"),
        (GOOD + "int fork(void); int f(void) { return fork(); }", [], "expects fork of its libraries"),
        (GOOD + "float tanhf(float); float f(float x) { return tanhf(x); }", ["--hash-style=both"], "exports f"),
        (GOOD, ["-zmax-page-size=4096", "-zcommon-page-size=4096"], "has segments aligned to 4096 bytes, not to 16384"),
        (GOOD, ["-zcommon-page-size=4096"], "becomes read-only up to the middle of a page, which Android rounds up"),
        (GOOD, ["-z", "execstack"], "has memory that may be written and executed"),
        (GOOD, ["--rpath", "/opt/lib", "--enable-new-dtags"], "has DT_RUNPATH"),
        (GOOD, ["--soname", "libother.so"], f"has the name libother.so, not {build.DEFAULT_OUTPUT.name}"),
        (GOOD + "_Thread_local int t; int *f(void) { return &t; }", [], "exports __emutls_v.t"),
    ],
)
def test_each_mistake_is_found(
    cross: ModuleType, tmp_path: pathlib.Path, code: str, flags: list[str], problem: str | None
) -> None:
    found = readback.problems_of(link(cross, tmp_path, code, *flags), ARM64)
    assert found == [] if problem is None else problem in found


def test_what_android_lacks_does_not_link(cross: ModuleType, tmp_path: pathlib.Path) -> None:
    extra = tmp_path / "extra.c"
    extra.write_text("int fork(void);\n__attribute__((constructor)) static void f(void) { fork(); }\n")
    with pytest.raises(build.BuildError, match="undefined symbol: fork"):
        cross.cross_build(ARM64, tmp_path / "out", [extra])
    assert list((tmp_path / "out").iterdir()) == []


def test_warnings_are_errors(cross: ModuleType, tmp_path: pathlib.Path) -> None:
    extra = tmp_path / "extra.c"
    extra.write_text("int f(int unused) { return 1; }\n")
    with pytest.raises(build.BuildError, match="unused parameter"):
        cross.cross_build(ARM64, tmp_path / "out", [extra])


@pytest.mark.parametrize("name", ["android-arm64-v8a", "android-armeabi-v7a"])
def test_java_binding(cross: ModuleType, tmp_path: pathlib.Path, name: str) -> None:
    try:
        cross.jni_headers()
    except build.BuildError as error:
        pytest.skip(str(error))
    extra = tmp_path / "binding.c"
    extra.write_text(JNI)
    assert cross.main(["--target", name, "--extra", str(extra), "--out", str(tmp_path)]) == 0
    library = tmp_path / name / cross.LIBRARY
    assert readback.problems_of(library, TARGETS[name], jni=True) == []
    assert readback.problems_of(library, TARGETS[name]) == ["exports JNI_OnLoad", "exports Java_org_example_Size_of"]


def test_same_sources_same_bytes(
    cross: ModuleType, libraries: Mapping[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    again = cross.cross_build(ARM64, tmp_path)
    assert again.read_bytes() == libraries[ARM64.name].read_bytes()


def test_bad_arguments(cross: ModuleType, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["--out", "x"],
        ["--all", "--target", ARM64.name, "--out", "x"],
        ["--target", "mips", "--out", "x"],
    ):
        with pytest.raises(SystemExit):
            cross.main([*arguments, "--out", str(tmp_path)])
    assert "invalid choice: 'mips'" in capsys.readouterr().err
    assert readback.main([str(tmp_path)]) == 1
    assert "No library found" in capsys.readouterr().err


def test_no_zig(cross: ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZIG", str(tmp_path / "absent"))
    assert cross.main(["--target", ARM64.name, "--out", str(tmp_path / "out")]) == 1
