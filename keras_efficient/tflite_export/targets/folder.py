"""Folders and zip archives that appear whole or not at all, with the hash of every file in them."""

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import zipfile

MARKS = {"format", "version", "form"}
"""What `model.json` says in every folder of ours; only such a folder is ever replaced."""


def sha256(content: bytes) -> str:
    """The hash of a file's content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def check_destination(path: pathlib.Path) -> None:
    """Whether a folder or `.zip` file can be written there, asked before any work is done.

    Raises:
        OSError: If the directory around it is missing or not writable, or something else is there already.
    """
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise OSError(
            "Invalid value for argument `path`. Expected a folder or .zip file in a writable directory. "
            f"Received: {str(path)!r}"
        )
    if path.suffix == ".zip" and path.is_dir():
        raise OSError(f"Invalid value for argument `path`. Expected a .zip file. Received: the folder {str(path)!r}")
    if path.suffix != ".zip" and path.exists() and not _replaceable(path):
        raise OSError(
            "Invalid value for argument `path`. Expected a new folder, an empty one, or one that an export wrote. "
            f"Received: {str(path)!r}"
        )


def write(path: pathlib.Path, files: dict[str, bytes]) -> None:
    """Writes files by name into a folder, or a zip archive where the name ends in `.zip`; replaces an older export."""
    if path.suffix == ".zip":
        _write_zip(path, files)
        return
    partial = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        for name, content in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content)
        partial.chmod(0o755)
        old = None
        if path.exists():
            old = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            os.replace(path, old)
        try:
            os.replace(partial, path)
        except BaseException:
            if old is not None:
                os.replace(old, path)
            raise
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_zip(path: pathlib.Path, files: dict[str, bytes]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    partial = pathlib.Path(name)
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, content in sorted(files.items()):
                # A fixed date: the same export gives the same archive.
                archive.writestr(zipfile.ZipInfo(entry), content, zipfile.ZIP_DEFLATED)
        partial.chmod(0o644)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _replaceable(path: pathlib.Path) -> bool:
    if not path.is_dir():
        return False
    if not any(path.iterdir()):
        return True
    try:
        entries = json.loads((path / "model.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(entries, dict) and set(entries) >= MARKS
