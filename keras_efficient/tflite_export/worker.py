"""Export of a model of another backend: saved as `.keras`, converted in a process with the TensorFlow backend."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import keras
import numpy as np

from keras_efficient.tflite_export.extras import require_installed
from keras_efficient.tflite_export.report import ExportReport
from keras_efficient.tflite_export.targets.folder_report import FolderReport


def export_in_worker(model: keras.Model, path: pathlib.Path, data: Any, arguments: dict[str, Any]) -> ExportReport:
    """Runs `export` in a fresh process.

    Raises:
        ValueError: With the worker's sentence, or if a layer's class lives in a script that no other process can
            import.
    """
    for needed in ("tensorflow", "ai_edge_litert.schema_py_generated", "flatbuffers"):
        require_installed(needed, "tflite")
    modules = custom_modules(model)
    if "__main__" in modules:
        raise ValueError(
            "Invalid value for argument `model`. Expected layers whose classes another process can import, since the "
            "export converts in one with the TensorFlow backend. Received: a layer class of the script itself; "
            "move it into a module"
        )
    with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory)
        model.save(folder / "model.keras")
        arrays: dict[str, Any] = data if isinstance(data, dict) else {} if data is None else {"": np.asarray(data)}
        np.savez(folder / "data.npz", **{f"x_{name}": array for name, array in arrays.items()})
        request = {"modules": sorted(modules), "path": str(path.resolve()), "arguments": arguments}
        (folder / "request.json").write_text(json.dumps(request))
        environment = {
            **os.environ,
            "KERAS_BACKEND": "tensorflow",
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        }
        done = subprocess.run(
            [sys.executable, "-m", "keras_efficient.tflite_export.worker", directory],
            env=environment,
            capture_output=True,
            text=True,
        )
        answer = folder / "answer.json"
        if not answer.exists():
            tail = " ".join(done.stderr.strip().splitlines()[-3:])
            raise RuntimeError(f"The export process ended with status {done.returncode} and no answer: {tail}")
        result = json.loads(answer.read_text())
    if "error" in result:
        raise {"ImportError": ImportError, "OSError": OSError}.get(result["kind"], ValueError)(result["error"])
    result = {**result, "path": str(path), "notes": tuple(result["notes"])}
    return FolderReport.from_dict(result) if "target" in result else ExportReport(**result)


def custom_modules(model: keras.Model) -> set[str]:
    """Modules of layer classes that are not Keras' own."""
    names = {type(layer).__module__ for layer in [model, *model._flatten_layers()]}
    return {name for name in names if name.partition(".")[0] != "keras"}


def main(directory: str) -> None:
    """The worker's side: reads the request, exports, writes the answer."""
    from keras_efficient.tflite_export.exporter import export

    folder = pathlib.Path(directory)
    request = json.loads((folder / "request.json").read_text())
    try:
        for module in request["modules"]:
            importlib.import_module(module)
        with np.load(folder / "data.npz") as stored:
            data: Any = {name[2:]: stored[name] for name in stored.files} or None
        data = data[""] if data is not None and set(data) == {""} else data
        model = keras.saving.load_model(folder / "model.keras", compile=False)
        answer = export(model, request["path"], representative_data=data, **request["arguments"]).to_dict()
    except Exception as error:
        kind = next(
            (base.__name__ for base in type(error).__mro__ if base.__name__ in ("ImportError", "OSError")), "ValueError"
        )
        answer = {"error": str(error), "kind": kind}
    (folder / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
