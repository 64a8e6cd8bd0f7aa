"""Wheels for platforms: name, tags, what they carry, and that pip takes them where they belong."""

from __future__ import annotations

import ctypes
import pathlib
import platform
import shutil
import subprocess
import sys
from types import ModuleType

import pytest
import setuptools

pytest.importorskip("elftools", reason="needs pyelftools")
if int(setuptools.__version__.partition(".")[0]) < 77:
    pytest.skip("this setuptools is older than pyproject.toml asks for", allow_module_level=True)

from native import wheels
from native.targets import TARGETS

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = wheels.TARGETS_OF_WHEELS


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of the tree without anything that was built in it."""
    copy = tmp_path_factory.mktemp("copy") / "tree"
    keep = [
        "keras_efficient",
        "native",
        "setup.py",
        "setup.cfg",
        "pyproject.toml",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
    ]
    for name in keep:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def built(cross: ModuleType, source: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """The wheels by target."""
    out = tmp_path_factory.mktemp("dist")
    assert wheels.main(["--out", str(out), "--source", str(source)]) == 0
    found = {name: next(out.glob(f"*{TARGETS[name].abi}.whl")) for name in NAMES}
    assert sorted(found.values()) == sorted(out.iterdir())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_wheel_is_as_its_platform_needs_it(built: dict[str, pathlib.Path], name: str) -> None:
    assert wheels.problems_of(built[name], TARGETS[name]) == []


def test_the_source_tree_stays_as_it_was(built: dict[str, pathlib.Path], source: pathlib.Path) -> None:
    assert list((source / "keras_efficient").rglob("*.so")) == []


def test_a_wheel_under_another_name_is_refused(built: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    renamed = tmp_path / built["linux-aarch64"].name.replace("aarch64", "x86_64")
    shutil.copy2(built["linux-aarch64"], renamed)
    found = wheels.problems_of(renamed, TARGETS["linux-x86_64"])
    assert "has the machine EM_AARCH64, not EM_X86_64" in found
    assert "does not say that it is for py3-none-manylinux_2_17_x86_64" in found


def install(folder: pathlib.Path, wheel: pathlib.Path, platform_tag: str) -> subprocess.CompletedProcess[str]:
    options = [
        "--no-deps",
        "--no-index",
        "--find-links",
        str(wheel.parent),
        "--only-binary=:all:",
        "--target",
        str(folder),
    ]
    command = [sys.executable, "-m", "pip", "install", "-q", *options, "--platform", platform_tag, "keras-efficient"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("name", NAMES)
def test_pip_takes_it_where_it_belongs(built: dict[str, pathlib.Path], tmp_path: pathlib.Path, name: str) -> None:
    pytest.importorskip("pip")
    process = install(tmp_path / "site", built[name], TARGETS[name].abi)
    assert process.returncode == 0, process.stderr
    library = tmp_path / "site" / wheels.MEMBER
    if platform.machine() == TARGETS[name].architecture:
        loaded = ctypes.CDLL(str(library))
        loaded.tflite_plugin_create_delegate.restype = ctypes.c_void_p
        loaded.tflite_plugin_destroy_delegate.argtypes = [ctypes.c_void_p]
        delegate = loaded.tflite_plugin_create_delegate(None, None, ctypes.c_size_t(0), None)
        assert delegate
        loaded.tflite_plugin_destroy_delegate(delegate)


def test_pip_leaves_it_where_glibc_is_older(built: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    pytest.importorskip("pip")
    assert install(tmp_path / "site", built["linux-x86_64"], "manylinux_2_5_x86_64").returncode != 0


def test_unknown_targets_are_named(source: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_EFFICIENT_TARGET", "android-x86_64")
    code = "import setuptools.build_meta as backend; backend.build_wheel('unused')"
    process = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert process.returncode != 0
    assert "Expected one of linux-x86_64, linux-aarch64, linux-armv7. Received: android-x86_64." in process.stderr
