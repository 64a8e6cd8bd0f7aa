"""The stages of a model as an Edge TPU takes them: full int8, static shapes, builtin operators only."""

from typing import Any

import keras

from keras_efficient.tflite_export import flatbuffer, int8, metadata, plans, prune
from keras_efficient.tflite_export.int8_io import to_int8_io
from keras_efficient.tflite_export.precision import in_float32
from keras_efficient.tflite_export.signatures import input_specs
from keras_efficient.tflite_export.stage_files import stage_files
from keras_efficient.tflite_export.targets.dense_arithmetic import as_dense, gated_layers
from keras_efficient.tflite_export.targets.per_tensor_dense import to_one_scale
from keras_efficient.tflite_export.trace import trace
from keras_efficient.tflite_export.verify import sample_inputs


def coral_stages(model: keras.Model, data: Any) -> dict[str, bytes]:
    """`{"stage_0": bytes, ...}` and, for a `MultiExit`, `"policy"`; a model without exits is one stage.

    Args:
        model: Built model on the TensorFlow backend; a `MultiExit` needs a policy.
        data: Real inputs to calibrate on, `[N, ...]` or arrays by input name.

    Raises:
        ValueError: For a model with gates or without a policy, or inputs that do not fit.
    """
    check(model)
    model = in_float32(model)
    with as_dense(model):
        files = stage_files(model, data) if hasattr(model, "run_stage") else {"stage_0": _only_stage(model, data)}
    return {name: content if name == "policy" else _one_scale(content) for name, content in files.items()}


def check(model: Any) -> None:
    """What an Edge TPU cannot have, said before any work is done.

    Raises:
        ValueError: One sentence that names the layers and the mend.
    """
    gated = gated_layers(model)
    if gated:
        names = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in gated[:5])
        raise ValueError(
            "Invalid value for argument `model`. Expected no gates for target='coral', since an Edge TPU computes no "
            f"comparison and skips nothing. Received: {names}{' ...' if len(gated) > 5 else ''}; make these layers "
            "with `gate=None` (a LayerGate: the layer inside it alone), train on, and save time through exits instead"
        )
    if hasattr(model, "run_stage") and model.policy is None:
        raise ValueError(
            "Invalid value for argument `model`. Expected an exit policy for target='coral', which decides on the "
            "host. Received: a network with exits whose `policy` is None"
        )


def _only_stage(model: keras.Model, data: Any) -> bytes:
    specs = input_specs(model, 1)
    sample_inputs(specs, data)  # checks that the data fit
    signature = plans.whole(model, specs, "serving_default", False).signatures[0]
    traced = trace(model, [signature], whole_ops=False, quantizing=int8.calibrated(model, specs, data))
    parsed = flatbuffer.parse(traced.content)
    to_int8_io(parsed)
    prune.drop_unused(parsed)
    entries = {"form": "builtin", "ops": {}, "branches": False, "macs": metadata.macs_entry(traced.dense_macs)}
    flatbuffer.set_metadata(parsed, metadata.NAME, metadata.encode(entries))
    return flatbuffer.serialize(parsed)


def _one_scale(content: bytes) -> bytes:
    parsed = flatbuffer.parse(content)
    if not to_one_scale(parsed):
        return content
    prune.drop_unused(parsed)
    return flatbuffer.serialize(parsed)
