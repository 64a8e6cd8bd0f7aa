"""One flatbuffer per stage, for accelerators: static shapes, builtin ops only, no branches, int8 inputs and outputs."""

from typing import Any

import keras

from keras_efficient.tflite_export import flatbuffer, int8, metadata, prune
from keras_efficient.tflite_export.int8_io import to_int8_io
from keras_efficient.tflite_export.precision import in_float32
from keras_efficient.tflite_export.signatures import Signature, input_specs
from keras_efficient.tflite_export.staged import check_staged, policy_signatures, stage_signatures
from keras_efficient.tflite_export.tighten import tighten
from keras_efficient.tflite_export.trace import Trace, trace
from keras_efficient.tflite_export.verify import sample_inputs

INFERENCE_TYPES = ("int8", "float32")


def stage_files(model: keras.Model, representative_data: Any, inference_type: str = "int8") -> dict[str, bytes]:
    """The stages of a `MultiExit` as files of their own, and its policy as one float file.

    Each stage file has one signature `serving_default` of static shapes with the batch 1 and nothing but builtin ops:
    layer gates are multiplied, not branched over. `stage_0` takes the model's inputs, later ones `features` (and
    `summary` where the exits have one; not the last). All give `output`, the logits of their exit, and all but the last
    the `features` (and `summary`) of the next. What one stage gives has the scale and zero point that the next one
    takes, so the bytes are handed on as they are. Ranges are calibrated on `representative_data`, all stages computed.

    Args:
        model: `MultiExit` with a policy, on the TensorFlow backend.
        representative_data: Real inputs `[N, ...]`, or arrays by input name.
        inference_type: `"int8"` (int8 inputs and outputs, scales in the files) or `"float32"`.

    Returns:
        `{"stage_0": bytes, ..., "stage_{K-1}": bytes, "policy": bytes}`. The policy file has the signatures `policy_0`
        to `policy_{K-2}` in float32: `output` `[1, n]` (and `summary`, `trade_off` where read) in, `score` `[1]` out.
        The metadata of each stage file says its multiply-adds, those of the policy file what a staged file says.

    Raises:
        ValueError: For a model without stages or policy, missing data, or a stage with float ops at its ends.
    """
    if inference_type not in INFERENCE_TYPES:
        raise ValueError(
            f"Invalid value for argument `inference_type`. Expected one of {INFERENCE_TYPES}. "
            f"Received: {inference_type!r}"
        )
    if representative_data is None:
        raise ValueError(
            "Invalid value for argument `representative_data`. Expected real inputs to calibrate on. Received: None"
        )
    check_staged(model, 1)
    specs = input_specs(model, 1)
    sample_inputs(specs, representative_data)  # checks that the data fit
    model = in_float32(model)
    quantizing = int8.calibrated(model, specs, representative_data) if inference_type == "int8" else None
    stages = stage_signatures(model, specs, skips=False)
    files = {}
    parts = {}
    for stage in stages:
        one = Signature("serving_default", stage.specs, stage.function, skips=False)
        traced = trace(model, [one], whole_ops=False, quantizing=quantizing)
        parts[stage.key] = traced.parts["serving_default"]
        parsed = flatbuffer.parse(traced.content)
        if inference_type == "int8":
            to_int8_io(parsed)
        entries = {"form": "builtin", "ops": {}, "branches": False, "macs": metadata.macs_entry(traced.dense_macs)}
        files[stage.key] = _finished(parsed, entries)
    policy = trace(model, policy_signatures(model), whole_ops=False)
    policy_file = flatbuffer.parse(policy.content)
    tighten(policy_file)
    whole = Trace(b"", [], {**parts, **policy.parts}, [])
    entries = metadata.network_entries(model, whole, staged=True, budget_inputs=False)
    files["policy"] = _finished(policy_file, {"form": "builtin", "ops": {}, **entries})
    return files


def _finished(parsed: Any, entries: dict[str, Any]) -> bytes:
    prune.drop_unused(parsed)
    flatbuffer.set_metadata(parsed, metadata.NAME, metadata.encode(entries))
    return flatbuffer.serialize(parsed)
