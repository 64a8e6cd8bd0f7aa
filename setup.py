"""Builds the native library; everything else is in setup.cfg.

The library and the headers for plugins are written into ``keras_efficient/_native`` of the source tree, where an
editable installation finds them, and travel from there into the wheel as package data. The library is plain C without
Python's ABI, so one wheel serves every Python version of a platform.

With ``KERAS_EFFICIENT_TARGET`` (``linux-aarch64``, see ``native/targets.py``) the wheel is for that machine: its
library is cross-built, needs an old glibc only, and does not touch the source tree. ``native/wheels.py`` uses it.
"""

import os
import runpy
import shutil
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
NATIVE = ROOT / "native"
PACKAGE = ROOT / "keras_efficient" / "_native"
TARGET = os.environ.get("KERAS_EFFICIENT_TARGET")


def build_native_library() -> None:
    """Compile native/ into the package, or say in one line that the package goes without."""
    names = runpy.run_path(str(PACKAGE / "__init__.py"))
    library = PACKAGE / names["LIBRARY_NAME"]
    try:
        runpy.run_path(str(NATIVE / "build.py"))["build"](library, forgiving=True)
    except Exception as error:  # whatever stops the compiler, the Python package still works
        library.unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:500]
        print(f"{names['MISSING_LIBRARY']} [{reason}]", file=sys.stderr)


def cross_target():
    """The machine of ``KERAS_EFFICIENT_TARGET``, and the module that builds for it."""
    sys.path.insert(0, str(ROOT))
    from native import cross

    wheels = {name: target for name, target in cross.TARGETS.items() if not target.android}
    if TARGET not in wheels:
        raise SystemExit(
            f"Invalid value for `KERAS_EFFICIENT_TARGET`. Expected one of {', '.join(wheels)}. Received: {TARGET}."
        )
    return wheels[TARGET], cross


def copy_headers() -> None:
    """Put the headers that plugins include beside the library."""
    shutil.rmtree(PACKAGE / "include", ignore_errors=True)
    shutil.copytree(NATIVE / "include", PACKAGE / "include")


class BuildPy(build_py):
    def run(self) -> None:
        target, cross = (None, None) if TARGET is None else cross_target()
        copy_headers()
        if target is None:
            build_native_library()
        self.__dict__.pop("data_files", None)  # listed before the library existed
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # no leftovers of an earlier build in the wheel
        super().run()
        if target is not None:
            cross.cross_build(target, Path(self.build_lib) / PACKAGE.relative_to(ROOT))


class PlatformWheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2] if TARGET is None else cross_target()[0].abi


class PlatformDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": BuildPy, "bdist_wheel": PlatformWheel}, distclass=PlatformDistribution)
