"""`export`: from a Keras model to one verified `.tflite` file."""

import collections
import contextlib
import os
import pathlib
from typing import Any

import keras
import numpy as np

from keras_efficient import _native
from keras_efficient.ops import context
from keras_efficient.tflite_export import flatbuffer, forms, int8, int8_ops, metadata, plans, prune, runtime, verify
from keras_efficient.tflite_export import task_file as tasks
from keras_efficient.tflite_export.int8_branches import integers_out_of_branches
from keras_efficient.tflite_export.precision import in_float32
from keras_efficient.tflite_export.report import ExportReport
from keras_efficient.tflite_export.session import Session
from keras_efficient.tflite_export.signatures import input_specs
from keras_efficient.tflite_export.staged import check_staged
from keras_efficient.tflite_export.targets.folders import export_folder, is_folder
from keras_efficient.tflite_export.tighten import tighten
from keras_efficient.tflite_export.trace import trace

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
    staged: bool = False,
    budget_inputs: bool | None = None,
    aar: str | os.PathLike[str] | None = None,
    task: str | None = None,
) -> ExportReport:
    """Writes a Keras model as a `.tflite` file, or as a folder for a device, and verifies it against Keras.

    Gates and exits become IF branches, ops of the registry one of three forms. The file is written only after the
    whole export went well, and then whole.

    Args:
        model: Built Keras model. With an exit policy (`MultiExit.policy`) the file leaves at the exit that the policy
            takes and has the outputs `output` and `exit_index`; layer gates and exits add the output `macs` (builtin
            ops, ops of ours).
        path: Ends in `.tflite`; with a target also a folder, or a name that ends in `.zip`.
        ops: `"composite"` (default: any LiteRT, TFLite 2.18.1 and newer; our kernels when the delegate is loaded),
            `"custom"` (older runtimes too; needs the delegate) or `"builtin"` (runs everywhere, saves only what
            branches save).
        signature: Key of the signature in the file.
        representative_data: Real inputs `[N, ...]`, or arrays by input name. Verification runs on the first 32; with
            `quantize="int8"` the ranges are calibrated on all of them.
        quantize: None for float32, `"int8"` for int8 weights and activations (our ops that have an int8 twin become it,
            others keep float32 inside).
        target: For a `.tflite` file, `"android"` and `"coral"` choose `ops="custom"`, `"linux"` composites; `ops`
            overrides it. For a folder, `"android"` puts metadata, labels, the Android library and a Java class beside
            the model, `"coral"` writes one full-int8 file per stage, calibrated on `representative_data`.
        batch_size: 1, another number, or None for a free one. Files with branches need 1.
        labels: Class names for the metadata.
        normalization: For the metadata: what was done to raw inputs, such as `{"mean": 0.0, "std": 255.0}`.
        staged: For a `MultiExit` with a policy: write its stages and policies as signatures of their own (`stage_0`,
            `policy_0`, `stage_1`, ...) that a host runs one by one, instead of one network with branches.
        budget_inputs: Whether a file with a policy takes `max_exit` int32 `[1]`, and `trade_off` float32 `[1]` where
            the policy reads it, as further inputs; None for where `model.policy.takes_trade_off`. Staged files need
            none: the host caps, and their policies take the trade-off.
        aar: For an Android folder, the Android library; the one built in this source tree where None.
        task: For a `MultiTask` network, the only task to write, as a plain network. Without it all tasks go into one
            file in float32, a signature each, named after the task, with filters that they share stored once.

    Returns:
        The `ExportReport`: ops written, parity per output, bytes, what was not converted and why. For a folder a
        `FolderReport`, with every file and, for Coral, what the Edge TPU compiler would make of each stage.

    Raises:
        ValueError: For a bad argument, an unbuilt model, dynamic dimensions, or a layer that the converter cannot
            express.
        ImportError: If TensorFlow or LiteRT is missing; names the pip command.
        OSError: If the path cannot be written.
    """
    form = _check_form(ops, target)
    labels, normalization = _plain_labels(labels), _plain_normalization(normalization)
    if task is not None:
        model = tasks.plain_network(model, task)
    if is_folder(target, path):
        further = {
            "ops": ops,
            "signature": signature,
            "representative_data": representative_data,
            "quantize": quantize,
            "batch_size": batch_size,
            "labels": labels,
            "normalization": normalization,
            "staged": staged,
            "budget_inputs": budget_inputs,
        }
        return export_folder(model, path, str(target), further, aar)
    if aar is not None:
        raise ValueError(
            f"Invalid value for argument `aar`. Expected None for a single file. Received: {os.fspath(aar)!r}"
        )
    if staged and signature != "serving_default":
        raise ValueError(
            "Invalid value for argument `signature`. Expected the default for a staged file, whose signatures are "
            f"named after stages. Received: {signature!r}"
        )
    file = _check_path(path)
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
    if staged:
        check_staged(model, batch_size)
    if tasks.has_tasks(model):
        tasks.check_whole(quantize, ops)
    has_policy = getattr(model, "policy", None) is not None
    if batch_size != 1 and has_policy:
        raise ValueError(
            "Invalid value for argument `batch_size`. Expected 1 for a model with an exit policy, whose inputs leave "
            f"one by one. Received: {batch_size!r}; set `model.policy = None` to export all exits"
        )
    if budget_inputs and (staged or not has_policy):
        raise ValueError(
            "Invalid value for argument `budget_inputs`. Expected None or False for a model without an exit policy "
            f"and for staged files. Received: {budget_inputs!r}"
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
                "ops": None if tasks.has_tasks(model) else form,
                "signature": signature,
                "quantize": quantize,
                "batch_size": batch_size,
                "labels": labels,
                "normalization": normalization,
                "staged": staged,
                "budget_inputs": budget_inputs,
            },
        )
    if tasks.has_tasks(model):
        more = {**({"labels": labels} if labels else {}), **({"normalization": normalization} if normalization else {})}
        return tasks.export_tasks(model, file, specs, inputs, more)
    model = in_float32(model)
    plan = plans.stages(model, specs) if staged else plans.whole(model, specs, signature, budget_inputs)
    with context.inlining() if form == "builtin" else contextlib.nullcontext():
        quantizing = int8.calibrated(model, specs, representative_data) if quantize else None
    traced = trace(model, plan.signatures, whole_ops=form != "builtin", quantizing=quantizing)
    parsed = flatbuffer.parse(traced.content)
    tighten(parsed)
    nodes = forms.find_nodes(parsed, traced.instances, traced.layers_of)
    if quantize:
        integers_out_of_branches(parsed)
        nodes = int8_ops.on_int8(parsed, nodes)
    written = dict(collections.Counter(node.instance.op.name for node in nodes))
    {"composite": forms.to_composite, "custom": forms.to_custom, "builtin": lambda *_: None}[form](parsed, nodes)
    parsed.metadata, parsed.description = [], None  # the converter's, of its own file
    prune.drop_unused(parsed)
    stored_form = form if nodes else "builtin"
    entries = {
        "form": stored_form,
        "ops": {node.instance.op.name: node.instance.op.version for node in nodes},
        **({"quantize": quantize} if quantize else {}),
        **metadata.network_entries(model, traced, staged=plan.staged, budget_inputs=plan.budget_inputs),
        **({"labels": labels} if labels else {}),
        **({"normalization": normalization} if normalization else {}),
    }
    flatbuffer.set_metadata(parsed, metadata.NAME, metadata.encode(entries))
    content = flatbuffer.serialize(parsed)
    parity, notes = _verify(plan, content, stored_form, inputs)
    if parity is not None:
        notes += _doubts(parity, quantize)
    share = None
    if quantize:
        share, left = int8.quantized_share(parsed, int8.float_layers(model))
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
    worst = float(np.max(list(parity.differences.values()), initial=0.0))  # NaN where one is
    if worst <= FLOAT_TOLERANCE or (quantize is not None and worst < float("inf")):
        return []
    return [
        f"The file differs from Keras by up to {worst:.2e}, more than the {FLOAT_TOLERANCE:.0e} expected of float32."
    ]


def _plain_labels(labels: Any) -> list[str] | None:
    return None if labels is None else [str(label) for label in labels]


def _plain_normalization(normalization: Any) -> dict[str, float] | None:
    """Plain numbers, whatever they came as."""
    if normalization is None:
        return None
    try:
        plain = {str(name): float(value) for name, value in normalization.items()}
    except (AttributeError, TypeError, ValueError):
        plain = {"": float("nan")}
    if not all(np.isfinite(value) for value in plain.values()):
        raise ValueError(
            f"Invalid value for argument `normalization`. Expected finite numbers by name. Received: {normalization!r}"
        )
    return plain


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


def _verify(
    plan: plans.Plan, content: bytes, form: str, inputs: dict[str, Any]
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
    return plan.compare(Session(content, found, library, 1), inputs), []
