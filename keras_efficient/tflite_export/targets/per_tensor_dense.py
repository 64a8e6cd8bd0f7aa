"""Dense layers of an int8 file with one scale for all weights, as converters wrote them until 2024."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient.tflite_export import flatbuffer

INT8_MAX = 127


def to_one_scale(model: Any) -> int:
    """Gives every `FULLY_CONNECTED` of int8 weights with a scale per output a single scale, in place.

    With `q_c s_c` the weights of output `c` and `s = max_c s_c`, the new weights are `round(q_c s_c / s)`, and the
    bias, in steps of input scale times weight scale, is `round(b_c s_c / s)`.

    Returns:
        The number of operators changed.
    """
    number = flatbuffer.schema().BuiltinOperator.FULLY_CONNECTED
    changed = 0
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or []:
            if flatbuffer.operator_code(model, operator)[0] != number:
                continue
            weights = subgraph.tensors[operator.inputs[1]]
            scales = _scales(weights)
            if weights.type != flatbuffer.schema().TensorType.INT8 or scales.size <= 1:
                continue
            ratio = scales / scales.max()
            values = flatbuffer.constant(model, weights)
            if values is None:
                continue
            narrowed = np.clip(np.rint(values * ratio[:, None]), -INT8_MAX, INT8_MAX).astype("int8")
            operator.inputs[1] = _replacement(model, subgraph, weights, narrowed, scales.max())
            if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
                bias = subgraph.tensors[operator.inputs[2]]
                steps = flatbuffer.constant(model, bias)
                assert steps is not None  # the converter writes biases as constants
                rescaled = np.rint(steps * ratio).astype(steps.dtype)
                operator.inputs[2] = _replacement(model, subgraph, bias, rescaled, _scales(bias).max())
            changed += 1
    return changed


def _scales(tensor: Any) -> NDArray[np.float64]:
    found = None if tensor.quantization is None else tensor.quantization.scale
    return np.zeros(0) if found is None else np.asarray(found, "float64")


def _replacement(model: Any, subgraph: Any, old: Any, value: NDArray[Any], scale: float) -> int:
    """A new constant tensor in place of `old`, which other operators may still read."""
    index = flatbuffer.add_constant(model, subgraph, flatbuffer.text(old.name), value)
    quantization = flatbuffer.schema().QuantizationParametersT()
    quantization.scale, quantization.zeroPoint = [float(scale)], [0]
    subgraph.tensors[index].quantization = quantization
    return index
