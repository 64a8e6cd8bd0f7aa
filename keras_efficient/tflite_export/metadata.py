"""What a file says of itself: one JSON object in the metadata buffer `keras_efficient`."""

import json
from typing import Any

import keras_efficient
from keras_efficient.tflite_export import flatbuffer

NAME = "keras_efficient"
FORMAT = 1


def encode(entries: dict[str, Any]) -> bytes:
    """The JSON object, with the format and this package's version in front."""
    return json.dumps({"format": FORMAT, "version": keras_efficient.__version__, **entries}).encode()


def read(model: Any) -> dict[str, Any]:
    """The metadata of a parsed file; an empty dictionary for files of somebody else.

    Raises:
        ValueError: If the metadata is no JSON object, or newer than this package understands.
    """
    content = flatbuffer.get_metadata(model, NAME)
    if content is None:
        return {}
    try:
        entries = json.loads(content)
    except ValueError as error:
        raise ValueError(f"Invalid metadata {NAME!r} in the .tflite file. Expected a JSON object: {error}") from error
    if not isinstance(entries, dict) or int(entries.get("format", 0)) > FORMAT:
        raise ValueError(
            f"Invalid metadata {NAME!r}. Expected a JSON object of format {FORMAT} or older. Received: {entries!r:.200}"
        )
    return entries
