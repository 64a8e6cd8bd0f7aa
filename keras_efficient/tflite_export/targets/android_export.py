"""`export(model, folder, target="android")`: the model, what Java reads of it, the AAR, and a class that runs it."""

import dataclasses
import io
import json
import os
import pathlib
import re
import tempfile
import zipfile
from collections.abc import Callable
from typing import Any

import keras_efficient
from keras_efficient import ops
from keras_efficient.tflite_export import flatbuffer, metadata
from keras_efficient.tflite_export.report import ExportReport
from keras_efficient.tflite_export.targets import folder
from keras_efficient.tflite_export.targets.folder_report import FolderReport
from keras_efficient.tflite_export.targets.java_snippet import FILE as SNIPPET
from keras_efficient.tflite_export.targets.java_snippet import java_snippet

MODEL = "model.tflite"
LIBRARY = "libkeras_efficient.so"
RUNTIMES = {
    "composite": "com.google.ai.edge.litert:litert:1.4.0",
    "custom": "org.tensorflow:tensorflow-lite:2.14.0",
    "builtin": "org.tensorflow:tensorflow-lite:2.14.0",
}
"""Maven coordinates of the runtime for each form of the ops."""


def export_android(
    write_model: Callable[[pathlib.Path], ExportReport],
    path: pathlib.Path,
    labels: list[str] | None = None,
    aar: str | os.PathLike[str] | None = None,
) -> FolderReport:
    """Writes the folder (or `.zip`): model, metadata, labels, AAR, a Java class, `manifest.json`.

    Args:
        write_model: Writes the model to a path that ends in `.tflite`.
        path: A new folder, one that an earlier export wrote, or a name that ends in `.zip`.
        labels: Class names.
        aar: The Android library; one that was built in this source tree where None.

    Raises:
        ValueError: For labels with line breaks, a file that is no AAR of this library, or a model with ops of a plugin.
        OSError: If the folder cannot be written.
    """
    folder.check_destination(path)
    for label in labels or []:
        if not isinstance(label, str) or "\n" in label or "\r" in label:
            raise ValueError(
                f"Invalid value for argument `labels`. Expected texts without line breaks. Received: {label!r}"
            )
    library, notes = _library(aar)
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / MODEL
        report = write_model(file)
        content = file.read_bytes()
    _check_ops(report)
    parsed = flatbuffer.parse(content)
    entries = metadata.read(parsed)
    stored_form = str(entries["form"])
    dependency = _gradle(library[0] if library else None, RUNTIMES[stored_form])
    contents = {
        MODEL: content,
        "model.json": json.dumps(entries, indent=1).encode(),
        SNIPPET: java_snippet(MODEL, entries, _inputs(parsed, entries), dependency).encode(),
        **({"labels.txt": "".join(f"{label}\n" for label in labels).encode()} if labels else {}),
        **({library[0]: library[1]} if library else {}),
    }
    manifest = {
        "format": metadata.FORMAT,
        "version": keras_efficient.__version__,
        "target": "android",
        "form": stored_form,
        "ops": entries["ops"],
        "abis": _abis(library[1]) if library else [],
        "gradle": dependency.splitlines(),
        "notes": notes,
        "files": {name: {"bytes": len(data), "sha256": folder.sha256(data)} for name, data in sorted(contents.items())},
    }
    contents["manifest.json"] = json.dumps(manifest, indent=1).encode()
    folder.write(path, contents)
    known = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
    return FolderReport(
        **{
            **known,
            "path": str(path),
            "bytes": sum(len(data) for data in contents.values()),
            "notes": (*report.notes, *notes),
        },
        target="android",
        files={name: len(data) for name, data in contents.items()},
    )


def _check_ops(report: ExportReport) -> None:
    registered = ops.registered_ops()
    if report.ops != "custom":
        return
    foreign = sorted(name for name in report.written if registered[name].library is not None)
    if foreign:
        raise ValueError(
            f"Invalid value for argument `model`. Expected ops whose kernels are in the Android library. Received: "
            f"{', '.join(foreign)} of a plugin; export with ops='builtin', or with ops='composite', which LiteRT runs "
            "without kernels"
        )


def _library(aar: str | os.PathLike[str] | None) -> tuple[tuple[str, bytes] | None, list[str]]:
    """Name and content of the AAR, and a note on what is wrong or missing."""
    version = keras_efficient.__version__
    file = _built() if aar is None else pathlib.Path(aar)
    if file is None:
        return None, [
            "The Android library is not in here, since it was not built: `python android/library/aar.py` in the source "
            "tree, or the argument `aar`."
        ]
    if not file.is_file():
        raise FileNotFoundError(
            f"Invalid value for argument `aar`. Expected the Android library. Received: {str(file)!r} (not there)"
        )
    content = file.read_bytes()
    if not _abis(content):
        raise ValueError(
            f"Invalid value for argument `aar`. Expected an AAR with classes.jar and jni/*/{LIBRARY}. "
            f"Received: {str(file)!r}"
        )
    found = re.search(r"-(\d+(?:\.\d+)+\S*)$", file.stem)
    notes = []
    if found and found[1] != version:
        notes.append(f"The Android library is of version {found[1]}, the model was exported with {version}.")
    return (file.name, content), notes


def _built() -> pathlib.Path | None:
    """The AAR of this version in the source tree that the package is imported from."""
    name = f"keras-efficient-{keras_efficient.__version__}.aar"
    file = pathlib.Path(keras_efficient.__file__).parents[1] / "build" / "android" / name
    return file if file.is_file() else None


def _abis(aar: bytes) -> list[str]:
    """The processor architectures of an AAR; none where it is no AAR of ours."""
    try:
        with zipfile.ZipFile(io.BytesIO(aar)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return []
    found = [match[1] for name in names if (match := re.fullmatch(rf"jni/([^/]+)/{re.escape(LIBRARY)}", name))]
    return sorted(found) if "classes.jar" in names else []


def _gradle(aar: str | None, runtime: str) -> str:
    library = f"libs/{aar}" if aar else f"libs/keras-efficient-{keras_efficient.__version__}.aar"
    return f'implementation files("{library}")\nimplementation "{runtime}"'


def _inputs(parsed: Any, entries: dict[str, Any]) -> dict[str, list[int]]:
    """Shapes by input name of what an app brings, budgets left out."""
    entry = flatbuffer.signature(parsed, "stage_0" if entries.get("staged") else None)
    tensors = parsed.subgraphs[entry.subgraphIndex].tensors
    budgets = {"trade_off", "max_exit"} if entries.get("budget_inputs") else set()
    shapes = {flatbuffer.text(part.name): [int(n) for n in tensors[part.tensorIndex].shape] for part in entry.inputs}
    return {name: shape for name, shape in shapes.items() if name not in budgets}
