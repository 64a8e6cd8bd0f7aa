"""The header of a native library: for which processor it is, and how large the pages may be that it is loaded in."""

import struct
from dataclasses import dataclass

LOAD = 1
ABIS = {(64, 183): "arm64-v8a", (32, 40): "armeabi-v7a", (64, 62): "x86_64", (32, 3): "x86"}  # bits and e_machine


@dataclass(frozen=True)
class Elf:
    """What the loader looks at first.

    Attributes:
        abi: Architecture as Android names it.
        page_size: Largest page that it can be loaded in, in bytes: the least alignment of its segments.
    """

    abi: str
    page_size: int


def read(content: bytes) -> Elf:
    """Parses the header of a shared library.

    Raises:
        ValueError: If it is none, is cut off, or for no processor that Android runs on.
    """
    if len(content) < 64 or content[:4] != b"\x7fELF" or content[4] not in (1, 2) or content[5] != 1:
        raise ValueError(f"Expected a little-endian ELF file. Received: {len(content)} bytes, {content[:6]!r} first")
    bits = 32 * content[4]
    machine = struct.unpack_from("<H", content, 18)[0]
    if (bits, machine) not in ABIS:
        raise ValueError(
            f"Expected a library for one of {list(ABIS.values())}. Received: machine {machine}, {bits} bits"
        )
    table = struct.unpack_from("<Q", content, 32)[0] if bits == 64 else struct.unpack_from("<I", content, 28)[0]
    size, count = struct.unpack_from("<HH", content, 54 if bits == 64 else 42)
    kind, alignment = ("<I44xQ" if bits == 64 else "<I24xI"), []
    for row in range(count):
        try:
            segment, aligned = struct.unpack_from(kind, content, table + row * size)
        except struct.error as error:
            raise ValueError(f"Expected program headers inside the ELF file. Received: {error}") from error
        if segment == LOAD:
            alignment.append(aligned)
    if not alignment:
        raise ValueError("Expected an ELF file with segments to load. Received: none")
    return Elf(ABIS[bits, machine], min(alignment))
