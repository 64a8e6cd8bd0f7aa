"""The machines that the library is cross-built for, and what their system libraries offer."""

from __future__ import annotations

import dataclasses
import pathlib

BIONIC = pathlib.Path(__file__).resolve().parent / "bionic"
GLIBC = "2.17"  # that of manylinux_2_17, also known as manylinux2014
ANDROID_API = 21  # the first with 64-bit ABIs
ANDROID_PAGE_SIZE = 16384  # of newer 64-bit devices; files aligned so run with smaller pages, too


@dataclasses.dataclass(frozen=True)
class Target:
    """A machine and its system.

    Attributes:
        name: What the command line calls it.
        triple: The machine for the compiler; with the oldest glibc on Linux.
        architecture: The key of `build.ISA_FLAGS`.
        elf_machine: `e_machine` of its ELF files, as pyelftools names it.
        bits: 32 or 64.
        page_size: The alignment of segments; 0 for the linker's own.
        abi: The folder of an AAR or APK on Android; the platform's tag of a wheel on Linux.
        flags: Flags of all files.
        isa_flags: Flags of the files of an instruction set, after the others; `None` for `build.ISA_FLAGS`.
    """

    name: str
    triple: str
    architecture: str
    elf_machine: str
    bits: int
    page_size: int
    abi: str
    flags: tuple[str, ...] = ()
    isa_flags: dict[str, list[str]] | None = None

    @property
    def android(self) -> bool:
        """Whether its system is Android."""
        return "android" in self.triple


def _android(abi: str, machine: str, architecture: str, elf_machine: str, bits: int, *flags: str) -> Target:
    page_size = ANDROID_PAGE_SIZE if bits == 64 else 4096
    triple = f"{machine}{ANDROID_API}"
    return Target(f"android-{abi}", triple, architecture, elf_machine, bits, page_size, abi, flags)


# Zig names a processor with its features where other compilers take -march and -mfpu.
_ARM = "-mcpu=generic+v7a+vfp3d16"
TARGETS = {
    target.name: target
    for target in (
        _android("arm64-v8a", "aarch64-linux-android", "aarch64", "EM_AARCH64", 64, "-mno-outline-atomics"),
        _android(
            "armeabi-v7a", "armv7a-linux-androideabi", "arm", "EM_ARM", 32, "-mfpu=vfpv3-d16", "-fno-unwind-tables"
        ),
        _android("x86_64", "x86_64-linux-android", "x86_64", "EM_X86_64", 64),
        Target("linux-x86_64", f"x86_64-linux-gnu.{GLIBC}", "x86_64", "EM_X86_64", 64, 0, "manylinux_2_17_x86_64"),
        Target(
            "linux-aarch64",
            f"aarch64-linux-gnu.{GLIBC}",
            "aarch64",
            "EM_AARCH64",
            64,
            0,
            "manylinux_2_17_aarch64",
            ("-mcpu=generic", "-mno-outline-atomics"),
            {"neon": [], "dotprod": ["-mcpu=generic+dotprod"]},
        ),
        Target(
            "linux-armv7",
            f"arm-linux-gnueabihf.{GLIBC}",
            "arm",
            "EM_ARM",
            32,
            0,
            "manylinux_2_17_armv7l",
            (_ARM, "-fno-unwind-tables"),
            {"neon": [f"{_ARM}+neon"]},
        ),
    )
}


def bionic_symbols() -> dict[str, list[str]]:
    """The functions that a library for Android may need, by the system library that has them."""
    symbols: dict[str, list[str]] = {}
    for line in (BIONIC / "symbols.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            library, *names = line.split()
            symbols.setdefault(library, []).extend(names)
    return symbols
