"""Results appear whole or not at all: made in a directory beside the real one, moved when everything is there."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def whole(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new directory beside `out`, whose files move to `out` at the end; nothing is left of it after an error.

    Raises:
        OSError: If `out` is a file, or cannot be made or written.
    """
    parent = check(out)
    made = [folder for folder in [parent, *parent.parents] if not folder.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(dir=parent, prefix=f".{out.name}."))
    try:
        yield partial
        os.chmod(partial, 0o755)
        if out.exists():
            for file in sorted(partial.iterdir()):
                os.replace(file, out / file.name)
        else:
            os.rename(partial, out)
    except BaseException:
        for folder in made:
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check(out: pathlib.Path) -> pathlib.Path:
    """The absolute parent of `out`.

    Raises:
        OSError: If `out` is a file, or cannot be made or written.
    """
    out = out.absolute()
    if out.exists() and not out.is_dir():
        raise OSError(
            f"Invalid value for argument `out`. Expected a directory. Received: {str(out)!r}, which is a file"
        )
    there = next(folder for folder in [out, *out.parents] if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK) or (out.exists() and not os.access(out.parent, os.W_OK)):
        raise OSError(
            f"Invalid value for argument `out`. Expected a directory that can be written. Received: {str(out)!r}"
        )
    return out.parent
