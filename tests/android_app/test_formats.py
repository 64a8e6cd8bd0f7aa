"""Dex and ELF files, built here byte by byte, and damaged."""

import contextlib
import hashlib
import struct
import zlib

import pytest
from apk import dex, elf
from hypothesis import given, settings
from hypothesis import strategies as st

STRINGS = ["I", "La/B;", "Ljava/lang/Object;", "[[Lc/D$E;", "run"]
TYPES = [0, 1, 2, 3]  # int, a.B, java.lang.Object, c.D$E[][]
METHODS = [(1, 4), (2, 4)]  # a.B.run, java.lang.Object.run
CLASSES = [1]


def sealed(body):
    """A dex file of everything behind the checksum's field but the signature, which is put in."""
    signature = hashlib.sha1(body[32:]).digest()
    body = body[:12] + signature + body[32:]
    return body[:8] + struct.pack("<I", zlib.adler32(body[12:])) + body[12:]


def small_dex():
    """A dex file of one class, laid out by hand from the format's description."""
    data, offsets = b"", []
    tables = 0x70 + 4 * len(STRINGS) + 4 * len(TYPES) + 8 * len(METHODS) + 32 * len(CLASSES)
    for text in STRINGS:
        offsets.append(tables + len(data))
        data += bytes([len(text)]) + text.encode() + b"\0"
    at = 0x70
    places = []
    for rows, width in ((STRINGS, 4), (TYPES, 4), ((), 12), ((), 8), (METHODS, 8), (CLASSES, 32)):
        places += [len(rows), at if rows else 0]
        at += len(rows) * width
    body = struct.pack(f"<{len(STRINGS)}I", *offsets) + struct.pack(f"<{len(TYPES)}I", *TYPES)
    body += b"".join(struct.pack("<HHI", owner, 0, name) for owner, name in METHODS)
    body += b"".join(struct.pack("<I28x", index) for index in CLASSES) + data
    header = struct.pack("<8s4x20x3I", b"dex\n037\0", 0x70 + len(body), 0x70, 0x12345678)
    header += struct.pack("<3I", 0, 0, 0) + struct.pack("<12I", *places) + struct.pack("<2I", len(data), tables)
    return sealed(header + body)


def test_dex():
    found = dex.read(small_dex())
    assert found.version == 37
    assert found.classes == {"a.B"}
    assert found.types == {"a.B", "java.lang.Object", "c.D$E"}
    assert found.methods == {("a.B", "run"), ("java.lang.Object", "run")}


@settings(deadline=None)
@given(st.integers(8, len(small_dex()) - 1), st.integers(1, 255))
def test_damaged_dex(at, flip):
    content = bytearray(small_dex())
    content[at] ^= flip
    with pytest.raises(ValueError, match="Expected a dex file"):
        dex.read(bytes(content))


@settings(deadline=None)
@given(st.integers(0, 15), st.integers(0, 2**32 - 1))
def test_dex_with_tables_elsewhere(word, value):
    content = bytearray(small_dex())
    struct.pack_into("<I", content, 0x2C + 4 * word, value)
    with contextlib.suppress(ValueError):  # and nothing else
        dex.read(sealed(bytes(content)))


@pytest.mark.parametrize("content", [b"", b"dex\n037\0", b"PK\3\4" + bytes(200), b"dex\nabc\0" + bytes(200)])
def test_no_dex(content):
    with pytest.raises(ValueError, match="Expected a dex file"):
        dex.read(content)


def small_elf(bits, machine, alignments, kind=1):
    header_size, row = (64, 56) if bits == 64 else (52, 32)
    ident = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    fields = (3, machine, 1, 0, header_size, 0, 0, header_size, row, len(alignments), 0, 0, 0)
    header = ident + struct.pack("<HHIQQQIHHHHHH" if bits == 64 else "<HHIIIIIHHHHHH", *fields)
    if bits == 64:
        rows = b"".join(struct.pack("<II6Q", kind, 5, 0, 0, 0, 0, 0, align) for align in alignments)
    else:
        rows = b"".join(struct.pack("<8I", kind, 0, 0, 0, 0, 0, 5, align) for align in alignments)
    return header + rows


@pytest.mark.parametrize(
    ("bits", "machine", "abi"), [(64, 183, "arm64-v8a"), (32, 40, "armeabi-v7a"), (64, 62, "x86_64"), (32, 3, "x86")]
)
def test_elf(bits, machine, abi):
    assert elf.read(small_elf(bits, machine, [16384, 65536])) == elf.Elf(abi, 16384)


def test_elf_that_cannot_be_loaded():
    for content, message in [
        (b"", "Expected a little-endian ELF file"),
        (b"\x7fELF" + bytes(100), "Expected a little-endian ELF file"),
        (small_elf(64, 8, [4096]), "Expected a library for one of"),
        (small_elf(64, 40, [4096]), "Expected a library for one of"),
        (small_elf(64, 62, [4096], kind=2), "segments to load"),
        (small_elf(64, 62, [4096] * 3)[:120], "program headers inside"),
    ]:
        with pytest.raises(ValueError, match=message):
            elf.read(content)
