"""What the tests of cross builds share: the build scripts as a package, and programs that run other machines' code."""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
import sys
from types import ModuleType

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EMULATORS = {"aarch64": "qemu-aarch64", "arm": "qemu-arm"}


def load_native() -> None:
    """Makes `import native.cross` work without the root on the path, where it would hide the installed package."""
    if "native" in sys.modules:
        return
    folder = ROOT / "native"
    spec = importlib.util.spec_from_file_location(
        "native", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["native"] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


load_native()


@pytest.fixture(scope="session")
def cross() -> ModuleType:
    """`native/cross.py`, where there is a Zig to build with."""
    import native.cross

    try:
        native.cross.find_zig()
    except native.cross.build.BuildError as error:
        pytest.skip(str(error))
    return native.cross


class Libraries(dict[str, pathlib.Path]):
    """The library by target's name, built when it is first asked for."""

    def __init__(self, cross: ModuleType, folder: pathlib.Path) -> None:
        super().__init__()
        self.cross, self.folder = cross, folder

    def __missing__(self, name: str) -> pathlib.Path:
        assert self.cross.main(["--target", name, "--out", str(self.folder)]) == 0
        self[name] = self.folder / name / self.cross.LIBRARY
        return self[name]


@pytest.fixture(scope="session")
def libraries(cross: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    """The cross-built libraries."""
    return Libraries(cross, tmp_path_factory.mktemp("libraries"))


def emulator(architecture: str) -> str:
    """The program that runs code of `architecture` here; skips the test where there is none."""
    name = EMULATORS[architecture]
    found = shutil.which(f"{name}-static") or shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (Debian: apt-get install qemu-user-static)")
    return found


@pytest.fixture(scope="session")
def emulators() -> dict[str, str]:
    """The emulators by architecture; skips the test where one is missing."""
    return {architecture: emulator(architecture) for architecture in EMULATORS}
