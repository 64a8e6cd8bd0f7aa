"""Reads Android's class files back: header, checksums, classes defined and types used.

Source: https://source.android.com/docs/core/runtime/dex-format
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass

LITTLE_ENDIAN = 0x12345678
HEADER_SIZE = 0x70


@dataclass(frozen=True)
class Dex:
    """What a dex file holds.

    Attributes:
        version: Format, such as 37 (Android 7.0 and newer).
        classes: Names of the classes defined, such as `android.app.Activity` or `java.util.Map$Entry`.
        types: Names of all classes that it defines or mentions; arrays count as their elements, primitives not at all.
        methods: `(class, name)` of all methods that it defines or calls.
    """

    version: int
    classes: frozenset[str]
    types: frozenset[str]
    methods: frozenset[tuple[str, str]]


def read(content: bytes) -> Dex:
    """Parses a dex file.

    Raises:
        ValueError: If it is no dex file, is cut off, or a checksum does not fit.
    """
    if len(content) < HEADER_SIZE or content[:4] != b"dex\n" or content[7] != 0 or not content[4:7].isdigit():
        raise ValueError(f"Expected a dex file. Received: {len(content)} bytes that begin with {content[:8]!r}")
    checksum, signature, size, header_size, endian = struct.unpack_from("<I20s3I", content, 8)
    if size != len(content) or header_size != HEADER_SIZE or endian != LITTLE_ENDIAN:
        raise ValueError(f"Expected a dex file of {len(content)} bytes. Received: a header that says {size}")
    if zlib.adler32(content[12:]) != checksum or hashlib.sha1(content[32:]).digest() != signature:
        raise ValueError("Expected a dex file whose checksum and signature fit its content. Received: a damaged one")
    try:
        return _tables(content)
    except (struct.error, IndexError) as error:
        raise ValueError(f"Expected tables inside the dex file. Received: {error}") from error


def _tables(content: bytes) -> Dex:
    # Pairs of (number of items, offset): strings, types, prototypes, fields, methods, classes.
    header = struct.unpack_from("<12I", content, 0x38)
    (strings, strings_at), (types, types_at) = header[0:2], header[2:4]
    (methods, methods_at), (classes, classes_at) = header[8:10], header[10:12]
    texts = [_string(content, at) for at in struct.unpack_from(f"<{strings}I", content, strings_at)]
    descriptors = [texts[index] for index in struct.unpack_from(f"<{types}I", content, types_at)]
    called = [struct.unpack_from("<HHI", content, methods_at + 8 * row) for row in range(methods)]
    defined = [struct.unpack_from("<I", content, classes_at + 32 * row)[0] for row in range(classes)]
    names = [_class_name(descriptor) for descriptor in descriptors]
    return Dex(
        version=int(content[4:7]),
        classes=frozenset(name for index in defined if (name := names[index])),
        types=frozenset(name for name in names if name),
        methods=frozenset((name, texts[text]) for owner, _, text in called if (name := names[owner])),
    )


def _string(content: bytes, at: int) -> str:
    while content[at] & 0x80:  # the length, in seven bits a byte
        at += 1
    end = content.index(0, at + 1)
    return content[at + 1 : end].decode("utf-8", "surrogatepass")


def _class_name(descriptor: str) -> str | None:
    element = descriptor.lstrip("[")
    return element[1:-1].replace("/", ".") if element.startswith("L") else None
