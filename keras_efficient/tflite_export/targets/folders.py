"""Exports that are more than one file: which arguments each device takes, and who makes it."""

import os
import pathlib
from typing import Any

import keras

from keras_efficient.tflite_export.report import ExportReport
from keras_efficient.tflite_export.targets.folder_report import FolderReport

FOLDER_TARGETS = ("android", "coral")


def is_folder(target: str | None, path: str | os.PathLike[str]) -> bool:
    """Whether an export for that target to that path is a folder or archive, not one `.tflite` file."""
    return target in FOLDER_TARGETS and pathlib.Path(path).suffix != ".tflite"


def export_folder(
    model: keras.Model,
    path: str | os.PathLike[str],
    target: str,
    arguments: dict[str, Any],
    aar: str | os.PathLike[str] | None,
) -> FolderReport:
    """Exports for a device.

    Args:
        model: Built model.
        path: A folder, or a name that ends in `.zip`.
        target: One of `FOLDER_TARGETS`.
        arguments: The further arguments of `export`, by name.
        aar: The Android library.

    Raises:
        ValueError: For an argument that the target does not take.
    """
    destination = pathlib.Path(path)
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Invalid value for argument `model`. Expected a keras.Model. Received: {type(model).__name__}"
        )
    if target == "coral":
        return _coral(model, destination, arguments, aar)
    from keras_efficient.tflite_export.exporter import export
    from keras_efficient.tflite_export.targets.android_export import export_android

    def write_model(file: pathlib.Path) -> ExportReport:
        return export(model, file, target="android", **arguments)

    return export_android(write_model, destination, arguments["labels"], aar)


def _coral(
    model: keras.Model, path: pathlib.Path, arguments: dict[str, Any], aar: str | os.PathLike[str] | None
) -> FolderReport:
    taken: dict[str, tuple[Any, ...]] = {
        "ops": (None, "builtin"),
        "quantize": (None, "int8"),
        "batch_size": (1,),
        "budget_inputs": (None, False),
        "staged": (False, True),
        "signature": ("serving_default",),
    }
    for name, values in taken.items():
        if arguments[name] not in values:
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected one of {list(values)} for a folder with "
                f"target='coral'. Received: {arguments[name]!r}"
            )
    if aar is not None:
        raise ValueError(f"Invalid value for argument `aar`. Expected None for target='coral'. Received: {str(aar)!r}")
    if arguments["representative_data"] is None:
        raise ValueError(
            "Invalid value for argument `representative_data`. Expected real inputs for target='coral', to find the "
            "ranges of int8 on. Received: None"
        )
    kept = {name: arguments[name] for name in ("labels", "normalization")}
    if keras.backend.backend() != "tensorflow":
        from keras_efficient.tflite_export.targets import coral_stages, folder
        from keras_efficient.tflite_export.worker import export_in_worker

        folder.check_destination(path)
        coral_stages.check(model)
        report = export_in_worker(model, path, arguments["representative_data"], {"target": "coral", **kept})
        assert isinstance(report, FolderReport)
        return report
    from keras_efficient.tflite_export.targets.coral_export import export_coral

    return export_coral(model, path, arguments["representative_data"], **kept)
