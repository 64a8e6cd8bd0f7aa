"""`keras-efficient export`: a saved Keras model as a verified `.tflite` file, or as a folder for a device."""

import argparse
import importlib
import os
import re
import sys
from typing import Any

from keras_efficient.cli.files import arrays_by_name, existing


def run(options: argparse.Namespace) -> None:
    """Loads, exports, prints the report."""
    file = existing(options.model, ".keras")
    out = options.out or str(file.with_suffix(".tflite"))
    if options.int8 and options.data is None:
        raise ValueError("--int8 needs --data FILE.npz with real inputs to find the ranges on. Received: no --data")
    data = None if options.data is None else arrays_by_name(options.data)
    from keras_efficient.tflite_export.targets.folders import FOLDER_TARGETS

    if not out.endswith(".tflite") and options.target not in FOLDER_TARGETS:
        raise ValueError(
            "Invalid value for --out. Expected a name that ends in .tflite, or with --target android or coral a folder "
            f"or .zip file. Received: {out!r}"
        )
    for module in options.modules:
        import_module(module)
    model = load_model(str(file))
    from keras_efficient import tflite_export

    report = tflite_export.export(
        model,
        out,
        ops=options.ops,
        target=options.target,
        representative_data=data,
        quantize="int8" if options.int8 else None,
        task=options.task,
        aar=options.aar,
    )
    print(report)


def import_module(name: str) -> None:
    """Imports a module of the user's, also from the current directory, so that its layers are known to Keras."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"Cannot import {name!r} (--import). Expected a module on the path or in this directory: {error}"
        ) from error


def load_model(path: str) -> Any:
    """A saved model, with the layers of this package known.

    Raises:
        ValueError: One sentence, where Keras cannot load it.
    """
    import keras

    import keras_efficient.layers
    import keras_efficient.models
    import keras_efficient.policies  # noqa: F401  (registered for loading)

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        unknown = re.search(r"Could not locate (class|function) '([^']+)'", str(error))
        if unknown:
            raise ValueError(
                f"Keras cannot load {path!r}: it does not know the {unknown[1]} {unknown[2]!r}. Name the module that "
                "defines it: --import MODULE"
            ) from error
        raise ValueError(f"Keras cannot load {path!r}: {str(error).strip().splitlines()[0]}") from error
