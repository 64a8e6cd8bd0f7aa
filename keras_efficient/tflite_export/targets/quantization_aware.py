"""Quantisation-aware training: inside a context the model computes and learns as its int8 file will compute."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient.cost.observe import wrapped_calls
from keras_efficient.tflite_export import int8
from keras_efficient.tflite_export.signatures import input_specs
from keras_efficient.tflite_export.verify import sample_inputs

Tensor = Any
STEPS = 255
WEIGHT_STEPS = 127


@contextlib.contextmanager
def quantization_aware(model: keras.Model, representative_data: Any) -> Iterator[None]:
    """Inside, `fit`, `evaluate` and `predict` see the rounding of 8 bits; gradients pass it straight through.

        activations:  x + stop(q(x) - x),  q in 255 steps of the range found on the data, clipped at its ends
        kernels:      w + stop(q(w) - w),  q in steps of max |w| / 127 per output channel (dense layers: of the matrix)

    The ranges lie where `export(quantize="int8")` and `export(target="coral")` place theirs. Batch normalisation keeps
    its statistics, which are part of the kernels in the file. Any backend; functions that Keras compiled for the model
    are made anew on entering and leaving.

    >>> with tflite_export.quantization_aware(model, x_train[:512]):
    ...     model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss)
    ...     model.fit(x_train, y_train, epochs=1)
    >>> tflite_export.export(model, "coral", target="coral", representative_data=x_train[:512])

    Args:
        model: Built, trained model; a few hundred steps at a small learning rate are enough.
        representative_data: Real inputs `[N, ...]`, or arrays by input name, to find the ranges on.

    Raises:
        ValueError: If the model is not built, or the data do not fit its inputs.

    Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Invalid value for argument `model`. Expected a keras.Model. Received: {type(model).__name__}"
        )
    if representative_data is None:
        raise ValueError(
            "Invalid value for argument `representative_data`. Expected real inputs to find the ranges on. "
            "Received: None"
        )
    specs = input_specs(model, 1)
    sample_inputs(specs, representative_data)  # checks that the data fit
    placing = int8.calibrated(model, specs, representative_data, rounded_range)
    layers = int8.units(model)
    frozen = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    weighted = [layer for layer in layers if _kernels(layer)]
    _forget_functions(model)
    try:
        with wrapped_calls(frozen, _with_kept_statistics), wrapped_calls(weighted, _with_rounded_kernels), placing():
            yield
    finally:
        _forget_functions(model)


def rounded_range(tensor: Tensor, found: int8.Range) -> Tensor:
    """A tensor in 255 steps of a range, with 0 on a step; the gradient is 1 inside of the range and 0 outside."""
    scale = max(found.high - found.low, 1e-6) / STEPS
    zero = float(np.clip(np.rint(-found.low / scale), 0, STEPS))
    inside = ops.clip(tensor, -zero * scale, (STEPS - zero) * scale)
    return inside + ops.stop_gradient(ops.round(inside / scale) * scale - inside)


def rounded_weights(kernel: Tensor, axes: tuple[int, ...]) -> Tensor:
    """A kernel in 127 steps to either side of 0, one scale for all that lies along `axes`; the gradient is 1."""
    largest = ops.max(ops.abs(kernel), axis=axes, keepdims=True)
    scale = ops.maximum(largest, 1e-9) / WEIGHT_STEPS
    return kernel + ops.stop_gradient(ops.round(kernel / scale) * scale - kernel)


def _kernels(layer: keras.layers.Layer) -> list[tuple[Any, tuple[int, ...]]]:
    """The kernels of a layer, each with the axes that share a scale in the file."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return [(layer.kernel, (0, 1))]
    if isinstance(layer, keras.layers.SeparableConv2D):
        return [(layer.depthwise_kernel, (0, 1)), (layer.pointwise_kernel, (0, 1, 2))]
    if isinstance(layer, keras.layers.Conv2DTranspose):
        return [(layer.kernel, (0, 1, 3))]
    if isinstance(layer, (keras.layers.Conv1D, keras.layers.Conv2D)):
        return [(layer.kernel, tuple(range(len(layer.kernel.shape) - 1)))]
    if isinstance(layer, keras.layers.Dense):
        return [(layer.kernel, tuple(range(len(layer.kernel.shape))))]
    return []


def _with_rounded_kernels(layer: keras.layers.Layer, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The layer's own `call`, which reads rounded kernels in place of its variables."""
    rounded = [(variable, rounded_weights(ops.convert_to_tensor(variable), axes)) for variable, axes in _kernels(layer)]
    known = {id(variable) for variable, _ in rounded}
    # On JAX a scope lies around this one already; what it says of the other variables must hold inside, too.
    others = [(v, ops.convert_to_tensor(v)) for v in layer.variables if id(v) not in known]
    with keras.StatelessScope(state_mapping=[*rounded, *others]):
        return method(*args, **kwargs)


def _with_kept_statistics(layer: keras.layers.Layer, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return method(*args[:1], **{**kwargs, "training": False})


def _forget_functions(model: keras.Model) -> None:
    for name in ("train_function", "test_function", "predict_function"):
        setattr(model, name, None)
