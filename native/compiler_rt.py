"""Arithmetic that 32-bit arm has no instructions for, from Zig's runtime.

Compilers call these helpers by the names of arm's run-time ABI (`__aeabi_idiv`). Zig's runtime has its own memcpy and
the like, too, which copy byte by byte; those are left to the system's library here.
"""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Collection, Sequence

from . import build

_SYMBOL_TABLE = 2  # sh_type of a symbol table
_UNDEFINED_GLOBAL = (0, 0, 0x10, 0, 0)  # value, size, info (a global without type), visibility, section


def hand_over(image: bytearray, names: Collection[str]) -> None:
    """Turns the definitions of `names` in a 32-bit little-endian object file into references to another library's."""
    (sections_at,) = struct.unpack_from("<I", image, 32)
    size, count = struct.unpack_from("<2H", image, 46)
    sections = [struct.unpack_from("<10I", image, sections_at + size * i) for i in range(count)]
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind != _SYMBOL_TABLE:
            continue
        strings = sections[link][4]
        for at in range(offset, offset + length, 16):
            start = strings + struct.unpack_from("<I", image, at)[0]
            if image[start : image.index(0, start)].decode() in names:
                struct.pack_into("<IIBBH", image, at + 4, *_UNDEFINED_GLOBAL)


def arm_helpers(
    folder: pathlib.Path, zig: Sequence[str], triple: str, runtime: pathlib.Path, system_names: Collection[str]
) -> list[str]:
    """Compiles the helpers to object files in `folder`.

    Args:
        folder: Where they go.
        zig: The command of Zig.
        triple: The machine, as Zig calls it.
        runtime: `compiler_rt.zig`.
        system_names: Functions that the system's libraries have.

    Raises:
        BuildError: the compiler failed.
    """
    helpers, memory = folder / "compiler_rt.o", folder / "aeabi_memory.o"
    flags = ["-mcpu=generic+v7a+vfp3d16", "-O", "ReleaseSmall", "-fPIC", "-fstrip", "-fno-unwind-tables"]
    command = [*zig, "build-obj", str(runtime), "-target", triple, *flags, "-ffunction-sections"]
    build.run([*command, "--name", "compiler_rt", f"-femit-bin={helpers}"])
    image = bytearray(helpers.read_bytes())
    hand_over(image, system_names)
    helpers.write_bytes(image)
    assembly = str(build.NATIVE / "aeabi_memory.S")
    build.run([*zig, "clang", "-target", "armv7a-linux-gnueabi", "-c", assembly, "-o", str(memory)])
    return [str(memory), str(helpers)]
