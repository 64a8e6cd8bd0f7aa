"""Zip files in which stored entries begin where a phone can map them."""

import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PAGE = 16384  # the largest page of an Android device
ALIGNMENT_FIELD = 0xD935  # extra field of Android's zipalign and apksigner: the alignment, then padding
HEADER = 30  # bytes of a local file header before the name
TIME = (1980, 1, 1, 0, 0, 0)  # the same for every entry, so that equal contents give equal files


@dataclass(frozen=True)
class Entry:
    """A file in an archive.

    Attributes:
        name: Path inside the archive.
        content: Its bytes.
        alignment: None to compress it; otherwise it is stored, and its first byte lies at a multiple of this.
    """

    name: str
    content: bytes
    alignment: int | None = None


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Writes the archive; names must be unique."""
    with zipfile.ZipFile(path, "w") as archive:
        for entry in entries:
            if entry.name in archive.NameToInfo:
                raise ValueError(f"Invalid value for argument `entries`. Expected unique names. Received: {entry.name}")
            info = zipfile.ZipInfo(entry.name, TIME)
            info.external_attr = 0o644 << 16
            if entry.alignment is None:
                info.compress_type = zipfile.ZIP_DEFLATED
            else:
                assert archive.fp is not None
                info.extra = _padding(archive.fp.tell() + HEADER + len(entry.name.encode()), entry.alignment)
            archive.writestr(info, entry.content)


def _padding(end_of_name: int, alignment: int) -> bytes:
    """An extra field after which the next byte is aligned; apksigner reads the alignment from it and keeps it."""
    fixed = struct.calcsize("<HHH")
    fill = -(end_of_name + fixed) % alignment
    return struct.pack("<HHH", ALIGNMENT_FIELD, 2 + fill, alignment) + bytes(fill)


def offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the data of an entry begins in the archive."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(HEADER)
    name, extra = struct.unpack_from("<HH", header, 26)
    return info.header_offset + HEADER + int(name) + int(extra)


def misaligned(path: Path) -> list[str]:
    """What a phone could not map, one sentence each.

    Libraries must be stored at multiples of 16 KB, models at multiples of 16 bytes, whatever else is stored of 4.
    """
    found = []
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            wanted = PAGE if info.filename.endswith(".so") else 16 if info.filename.endswith(".tflite") else 4
            stored = info.compress_type == zipfile.ZIP_STORED
            if not stored and wanted > 4:
                found.append(f"{info.filename} is compressed")
            elif stored and offset(path, info) % wanted:
                found.append(f"{info.filename} begins at byte {offset(path, info)}, no multiple of {wanted}")
    return found


def checked_entries(path: Path) -> dict[str, bytes]:
    """All entries by name, their checksums compared.

    Raises:
        ValueError: If an entry is damaged, or two have the same name.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise ValueError(f"{path} has two entries of the same name. Received: {names}")
        try:
            return {name: archive.read(name) for name in names if not name.endswith("/")}
        except (zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
