"""TensorFlow Lite's library for Android x86-64, made loadable in a Java virtual machine on Linux x86-64.

There is no TensorFlow Lite of the versions in use for Java on Linux. Android's differs in its C library alone:
`bionic.c` fills in the few functions that glibc lacks, and symbol versions, which name bionic, are taken out of the
file. What runs in the tests is then the very code that runs on a phone or emulator.
"""

from __future__ import annotations

import io
import pathlib
import struct
import subprocess
import zipfile

from elftools.elf.elffile import ELFFile

HERE = pathlib.Path(__file__).resolve().parent
LIBRARY = "libtensorflowlite_jni.so"
IN_AAR = f"jni/x86_64/{LIBRARY}"
SYSTEM = ("libc.so", "libm.so", "libdl.so", "liblog.so")  # loaded first, by these names
VERSION_TAGS = {"DT_VERSYM", "DT_VERDEF", "DT_VERDEFNUM", "DT_VERNEED", "DT_VERNEEDNUM"}
IGNORED_TAG = 0x60000000  # no meaning to any loader
RENAMED = {b"sysconf": b"sysconA", b"strerror_r": b"strerror_A"}


def prepare(aar: pathlib.Path, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes the runtime of an AAR and the libraries that it needs into `folder`; returns the latter in order."""
    with zipfile.ZipFile(aar) as archive:
        (folder / LIBRARY).write_bytes(without_versions(archive.read(IN_AAR)))
    return [_compile(folder / name) for name in SYSTEM]


def _compile(library: pathlib.Path) -> pathlib.Path:
    source = [str(HERE / "bionic.c")] if library.name == "libc.so" else ["-xc", "/dev/null"]
    flags = [
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-Wl,-soname,{library.name}",
        "-Wl,--no-as-needed",
    ]
    subprocess.run(["cc", *flags, *source, "-xnone", "-lm", "-ldl", "-o", str(library)], check=True)
    return library


def without_versions(content: bytes) -> bytes:
    """An ELF library without symbol versions, and with the two system calls of another meaning renamed."""
    patched = bytearray(content)
    elf = ELFFile(io.BytesIO(content))
    dynamic = elf.get_section_by_name(".dynamic")
    for number, tag in enumerate(dynamic.iter_tags()):
        if tag.entry.d_tag in VERSION_TAGS:
            struct.pack_into("<Q", patched, dynamic["sh_offset"] + 16 * number, IGNORED_TAG)
    strings = elf.get_section_by_name(".dynstr")
    names = strings.data()
    for old, new in RENAMED.items():
        whole = b"\0" + old + b"\0"
        if names.count(whole) != 1 or names.count(old + b"\0") != 1:
            raise ValueError(f"Expected one name {old!r} in the library. Received: {names.count(old)}")
        start = strings["sh_offset"] + names.index(whole) + 1
        patched[start : start + len(new)] = new
    return bytes(patched)
