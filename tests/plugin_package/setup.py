"""Builds the kernel with the machine's C compiler against the installed headers of keras-efficient."""

import os
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

from keras_efficient import _native


class BuildKernel(build_py):
    """Compiles `kernel.c` into the package."""

    def run(self) -> None:
        super().run()
        target = Path(self.build_lib) / "ke_tiny" / "libke_tiny.so"
        source = Path(__file__).parent / "ke_tiny" / "kernel.c"
        compiler = os.environ.get("CC", "cc")
        flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", f"-I{_native.include_dir()}"]
        subprocess.run([compiler, *flags, str(source), "-o", str(target)], check=True)


class PlatformDistribution(Distribution):
    """A wheel with a shared library belongs to one platform."""

    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": BuildKernel}, distclass=PlatformDistribution)
