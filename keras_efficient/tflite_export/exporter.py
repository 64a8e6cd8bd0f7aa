"""`export`: from a Keras model to one verified `.tflite` file."""

import collections
import os
import pathlib
from typing import Any

import keras

from keras_efficient import _native
from keras_efficient.tflite_export import flatbuffer, forms, int8, metadata, prune, runtime, verify
from keras_efficient.tflite_export.report import ExportReport
from keras_efficient.tflite_export.runner import Runner
from keras_efficient.tflite_export.trace import InputSpec, input_specs, reference_function, trace

FORMS = ("composite", "custom", "builtin")
FLOAT_TOLERANCE = 1e-3
TARGETS = {None: "composite", "linux": "composite", "android": "custom", "coral": "custom"}


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    ops: str | None = None,
    signature: str = "serving_default",
    representative_data: Any = None,
    quantize: str | None = None,
    target: str | None = None,
    batch_size: int | None = 1,
    labels: list[str] | None = None,
    normalization: dict[str, float] | None = None,
) -> ExportReport:
    """Writes a Keras model as a `.tflite` file and verifies it against Keras.

    Gates and exits become IF branches, ops of the registry one of three forms. The file is written only after the
    whole export went well, and then whole.

    Args:
        model: Built Keras model. With an exit policy (`MultiExit.policy`) the file leaves at the exit that the policy
            takes and has the outputs `output` and `exit_index`; layer gates and exits add the output `macs` (builtin
            ops, ops of ours).
        path: Ends in `.tflite`.
        ops: `"composite"` (default: any LiteRT, TFLite 2.18.1 and newer; our kernels when the delegate is loaded),
            `"custom"` (older runtimes too; needs the delegate) or `"builtin"` (runs everywhere, saves only what
            branches save).
        signature: Key of the signature in the file.
        representative_data: Real inputs `[N, ...]`, or arrays by input name. Verification runs on the first 32; with
            `quantize="int8"` the ranges are calibrated on all of them.
        quantize: None for float32, `"int8"` for int8 weights and activations (our ops keep float32 inside).
        target: `"android"` and `"coral"` choose `ops="custom"`, `"linux"` composites; `ops` overrides it.
        batch_size: 1, another number, or None for a free one. Files with branches need 1.
        labels: Class names for the metadata.
        normalization: For the metadata: what was done to raw inputs, such as `{"mean": 0.0, "std": 255.0}`.

    Returns:
        The `ExportReport`: ops written, parity per output, bytes, what was not converted and why.

    Raises:
        ValueError: For a bad argument, an unbuilt model, dynamic dimensions, or a layer that the converter cannot
            express.
        ImportError: If TensorFlow or LiteRT is missing; names the pip command.
        OSError: If the path cannot be written.
    """
    file = _check_path(path)
    form = _check_form(ops, target)
    if quantize not in (None, "int8"):
        raise ValueError(f"Invalid value for argument `quantize`. Expected None or 'int8'. Received: {quantize!r}")
    if quantize == "int8" and representative_data is None:
        raise ValueError(
            "Invalid value for argument `representative_data`. Expected real inputs for quantize='int8'. Received: None"
        )
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Invalid value for argument `model`. Expected a keras.Model. Received: {type(model).__name__}"
        )
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(
            f"Invalid value for argument `batch_size`. Expected None or a positive integer. Received: {batch_size!r}"
        )
    if batch_size != 1 and getattr(model, "policy", None) is not None:
        raise ValueError(
            "Invalid value for argument `batch_size`. Expected 1 for a model with an exit policy, whose inputs leave "
            f"one by one. Received: {batch_size!r}; set `model.policy = None` to export all exits"
        )
    specs = input_specs(model, batch_size)
    inputs = verify.sample_inputs(specs, representative_data)
    if keras.backend.backend() != "tensorflow":
        from keras_efficient.tflite_export.worker import export_in_worker

        return export_in_worker(
            model,
            file,
            representative_data,
            {
                "ops": form,
                "signature": signature,
                "quantize": quantize,
                "batch_size": batch_size,
                "labels": labels,
                "normalization": normalization,
            },
        )
    model = in_float32(model)
    quantizing = int8.calibrated(model, specs, representative_data) if quantize else None
    traced = trace(model, specs, whole_ops=form != "builtin", signature=signature, quantizing=quantizing)
    parsed = flatbuffer.parse(traced.content)
    nodes = forms.find_nodes(parsed, traced.instances, traced.layers_of)
    written = dict(collections.Counter(node.instance.op.name for node in nodes))
    versions = {node.instance.op.name: node.instance.op.version for node in nodes}
    {"composite": forms.to_composite, "custom": forms.to_custom, "builtin": lambda *_: None}[form](parsed, nodes)
    prune.drop_unused(parsed)
    entries = {
        "form": form if nodes else "builtin",
        "ops": versions,
        "branches": traced.branches,
        "macs": {"builtin": traced.dense_macs[0], "ops": traced.dense_macs[1], "dense": sum(traced.dense_macs)},
        **({"exits": _exit_entries(model)} if "exit_index" in traced.outputs else {}),
        **({"labels": labels} if labels else {}),
        **({"normalization": normalization} if normalization else {}),
    }
    flatbuffer.set_metadata(parsed, metadata.NAME, metadata.encode(entries))
    content = flatbuffer.serialize(parsed)
    parity, notes = _verify(model, specs, content, form if nodes else "builtin", inputs)
    if parity is not None:
        notes += _doubts(parity, quantize)
    share = None
    if quantize:
        share, left = int8.quantized_share(parsed)
        notes += left
    flatbuffer.write_whole(file, content)
    return ExportReport(
        path=str(file),
        ops=form,
        written=written,
        bytes=len(content),
        parity=parity.differences if parity else {},
        verified_inputs=parity.inputs if parity else 0,
        exit_mismatches=parity.exit_mismatches if parity else 0,
        dense_macs=sum(traced.dense_macs),
        quantized=share,
        notes=tuple(notes),
    )


def _doubts(parity: verify.Parity, quantize: str | None) -> list[str]:
    """Sentences on a parity that a careful reader would not let pass."""
    if parity.exit_mismatches == parity.inputs:
        return ["Not compared: every input left at another exit than in Keras."]
    worst = max(parity.differences.values(), default=0.0)
    if worst <= FLOAT_TOLERANCE or (quantize is not None and worst < float("inf")):
        return []
    return [
        f"The file differs from Keras by up to {worst:.2e}, more than the {FLOAT_TOLERANCE:.0e} expected of float32."
    ]


def in_float32(model: keras.Model) -> keras.Model:
    """The model itself, or a float32 copy with the same weights where some layer computes in another precision."""
    policies = {layer.dtype_policy.name for layer in model._flatten_layers() if layer.dtype_policy is not None}
    if all(name == "float32" for name in policies):
        return model
    config = keras.saving.serialize_keras_object(model)
    copy = keras.saving.deserialize_keras_object(_replace_policies(config))
    copy.set_weights(model.get_weights())
    return copy


def _replace_policies(config: Any) -> Any:
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {"name": "float32"}}
        return {key: _replace_policies(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_replace_policies(value) for value in config)
    return config


def _check_path(path: str | os.PathLike[str]) -> pathlib.Path:
    file = pathlib.Path(path)
    if file.suffix != ".tflite":
        raise ValueError(
            f"Invalid value for argument `path`. Expected a name that ends in .tflite. Received: {str(path)!r}"
        )
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK) or file.is_dir():
        raise OSError(
            f"Invalid value for argument `path`. Expected a file in a writable directory. Received: {str(path)!r}"
        )
    return file


def _check_form(ops: str | None, target: str | None) -> str:
    if target not in TARGETS:
        raise ValueError(f"Invalid value for argument `target`. Expected one of {list(TARGETS)}. Received: {target!r}")
    if ops is not None and ops not in FORMS:
        raise ValueError(f"Invalid value for argument `ops`. Expected one of {FORMS}. Received: {ops!r}")
    return ops or TARGETS[target]


def _exit_entries(model: keras.Model) -> list[dict[str, float]]:
    return [{"macs": float(macs)} for macs in model.exit_costs()]


def _verify(
    model: keras.Model, specs: list[InputSpec], content: bytes, form: str, inputs: dict[str, Any]
) -> tuple[verify.Parity | None, list[str]]:
    library = None
    if form == "custom":
        try:
            library = _native.library_path()
        except FileNotFoundError:
            return None, [
                "Not verified: a file with custom ops runs only with the native library, which is not installed."
            ]
    try:
        found = runtime.find_runtime()
    except ImportError as error:
        return None, [f"Not verified: {error}"]
    return verify.compare(reference_function(model, specs), Runner(content, found, library, 1), inputs), []
