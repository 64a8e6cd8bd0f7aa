"""A folder with an arm Debian's Python, numpy and tflite-runtime, for qemu's user emulation. Needs no rights.

    python tests/cross/debian_root.py arm64

prints the folder, which is made once and kept under the user's cache directory by a hash of what goes into it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import lzma
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile

MIRROR = "https://deb.debian.org/debian"
RELEASE = "bookworm"
PACKAGES = [
    "libblas3",
    "libbz2-1.0",
    "libc6",
    "libcrypt1",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "libgfortran5",
    "liblapack3",
    "liblzma5",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libssl3",
    "libstdc++6",
    "libuuid1",
    "python3-numpy",
    "python3.11-minimal",
    "zlib1g",
]
RUNTIME = "tflite-runtime==2.14.0"
LIBRARIES = {
    "arm64": "aarch64-linux-gnu",
    "armhf": "arm-linux-gnueabihf",
}  # where Debian has an architecture's libraries
WHEELS = {"arm64": "manylinux_2_34_aarch64", "armhf": "manylinux_2_34_armv7l"}
EMULATORS = {"arm64": "qemu-aarch64", "armhf": "qemu-arm"}


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read())


def package_index(architecture: str) -> dict[str, dict[str, str]]:
    """What the release's index says of each of our packages."""
    text = lzma.decompress(fetch(f"{MIRROR}/dists/{RELEASE}/main/binary-{architecture}/Packages.xz")).decode()
    found = {}
    for paragraph in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Package") in PACKAGES:
            found[fields["Package"]] = fields
    return found


def members(archive: bytes) -> dict[str, bytes]:
    """The members of an `ar` archive, which a Debian package is."""
    found, at = {}, 8
    while at + 60 <= len(archive):
        header = archive[at : at + 60]
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        found[name] = archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


def unpack(package: bytes, root: pathlib.Path) -> None:
    """Unpacks the files of a Debian package into `root`."""
    (data,) = (content for name, content in members(package).items() if name.startswith("data.tar"))
    with tarfile.open(fileobj=io.BytesIO(data)) as files:
        files.extractall(root, filter="tar")


def add_runtime(architecture: str, root: pathlib.Path) -> None:
    """Unpacks tflite-runtime's wheel where Debian's Python looks."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--platform", WHEELS[architecture]]
        command = [sys.executable, "-m", "pip", "download", "-q", *options, "-d", folder, RUNTIME]
        subprocess.run(command, check=True, capture_output=True, text=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            files.extractall(root / "usr" / "lib" / "python3" / "dist-packages")


def cache_directory() -> pathlib.Path:
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "keras-efficient"


def debian_root(architecture: str) -> pathlib.Path:
    """The folder for `architecture` (`arm64` or `armhf`), made on the first call; raises OSError without a network."""
    recipe = "\n".join([MIRROR, RELEASE, *PACKAGES, RUNTIME, WHEELS[architecture]])
    root = cache_directory() / f"debian-{architecture}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    if root.is_dir():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    index = package_index(architecture)
    new = pathlib.Path(tempfile.mkdtemp(dir=root.parent, prefix="new-"))
    try:
        for name in PACKAGES:
            package = fetch(f"{MIRROR}/{index[name]['Filename']}")
            if hashlib.sha256(package).hexdigest() != index[name]["SHA256"]:
                raise OSError(f"The package {name} is not the one of Debian's index: its SHA-256 differs.")
            unpack(package, new)
        add_runtime(architecture, new)
        new.chmod(0o755)
        if not root.is_dir():
            os.rename(new, root)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return root


def python_command(architecture: str, emulator: str, root: pathlib.Path) -> list[str]:
    """The command that starts the folder's Python under `emulator`."""
    libraries = LIBRARIES[architecture]
    folders = [f"lib/{libraries}", f"usr/lib/{libraries}", f"usr/lib/{libraries}/blas", f"usr/lib/{libraries}/lapack"]
    settings = {
        "LD_LIBRARY_PATH": ":".join(str(root / folder) for folder in folders),
        "PYTHONHOME": str(root / "usr"),
        "PYTHONPATH": str(root / "usr" / "lib" / "python3" / "dist-packages"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    options = [part for name, value in settings.items() for part in ("-E", f"{name}={value}")]
    return [emulator, "-L", str(root), *options, str(root / "usr" / "bin" / "python3.11"), "-s"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make an arm Debian's Python for qemu.")
    parser.add_argument("architecture", choices=sorted(LIBRARIES))
    print(debian_root(parser.parse_args().architecture))


if __name__ == "__main__":
    main()
