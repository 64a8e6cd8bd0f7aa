"""Source distribution and wheel, with a C compiler and without one."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    int(setuptools.__version__.partition(".")[0]) < 77, reason="this setuptools is older than pyproject.toml asks for"
)


def build(kind, source, output, **environment):
    """Runs the build backend in `source`; returns the file it wrote and what it said."""
    finished = subprocess.run(
        [sys.executable, "-c", f"import setuptools.build_meta as b; print(b.build_{kind}({str(output)!r}))"],
        cwd=source,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return output / finished.stdout.splitlines()[-1], finished.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """An unpacked source distribution, made from a copy of the tree."""
    copy = tmp_path_factory.mktemp("copy") / "tree"
    ignored = shutil.ignore_patterns(
        ".git", "build", "*.so", "__pycache__", "*.egg-info", ".venv", "venv", ".*_cache", ".hypothesis"
    )
    shutil.copytree(ROOT, copy, ignore=ignored)
    archive, _ = build("sdist", copy, tmp_path_factory.mktemp("sdist"))
    unpacked = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(archive, unpacked)
    (tree,) = unpacked.iterdir()
    return tree


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_wheel(source, tmp_path):
    wheel, said = build("wheel", source, tmp_path)
    assert "-py3-none-" in wheel.name
    assert "portable decomposition" not in said
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "_native/libkeras_efficient.so",
        "_native/include/keras_efficient_plugin.h",
        "datasets/digits.npz",
        "datasets/digits.md",
        "py.typed",
    ):
        assert f"keras_efficient/{name}" in names
    assert any(name.endswith("LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names if not name.startswith("keras_efficient-")} == {"keras_efficient"}


def test_wheel_without_a_compiler(source, tmp_path):
    wheel, said = build("wheel", source, tmp_path, CC=str(tmp_path / "absent"))
    (line,) = (line for line in said.splitlines() if "portable decomposition" in line)
    assert "No C compiler found" in line
    assert not any(name.endswith(".so") for name in zipfile.ZipFile(wheel).namelist())
