"""`quantize`: the dense and convolutional layers of a trained model as multi-bit ones."""

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops

from keras_efficient import bases
from keras_efficient.layers.copying import copy_all_weights
from keras_efficient.layers.multi_bit_conv_2d import MultiBitConv2D
from keras_efficient.layers.multi_bit_dense import MultiBitDense
from keras_efficient.layers.multi_bit_layer import MultiBitLayer
from keras_efficient.quantization.multi_bit_model import MultiBitModel
from keras_efficient.quantization.rebuild import ends

SKIPPED = "left out by name"


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """What became of one layer with a kernel.

    Attributes:
        name: The layer's name.
        structure: Its groups: `channelwise`, `pixelwise`, `kernelwise` or `subchannelwise`; None for one left as it is.
        groups: Number of groups, of all outputs.
        group_size: Weights per group.
        average_bits: Bases per weight.
        error: Root mean square of what the sketch missed, relative to that of the kernel.
        note: Why the layer was left as it is, or an empty string.
    """

    name: str
    structure: str | None = None
    groups: int = 0
    group_size: int = 0
    average_bits: float = 0.0
    error: float = 0.0
    note: str = ""


@dataclasses.dataclass(frozen=True)
class QuantizeReport:
    """What `quantize` made.

    Attributes:
        model: The multi-bit model.
        layers: One `LayerReport` per layer with a kernel, of its own or inside, in order.
    """

    model: MultiBitModel
    layers: tuple[LayerReport, ...]

    def __str__(self) -> str:
        lines = [f"{'layer':<20}{'groups':<16}{'number':>8}{'size':>7}{'bits':>7}{'error':>8}"]
        for row in self.layers:
            if row.structure is None:
                lines.append(f"{row.name:<20}left as it is: {row.note}")
            else:
                numbers = f"{row.groups:>8}{row.group_size:>7}{row.average_bits:>7.2f}{row.error:>8.3f}"
                lines.append(f"{row.name:<20}{row.structure:<16}{numbers}")
        return "\n".join(lines)


def quantize(
    model: keras.Model,
    bits: int = 6,
    groups: Mapping[str, int | str] | None = None,
    skip: Sequence[str] = (),
) -> QuantizeReport:
    """Turns the `Dense` and `Conv2D` layers of a trained model into multi-bit ones, sketched from their kernels.

    Other layers are copied with their weights. Layers that were frozen stay frozen, their bases too. Regularizers and
    constraints of the kernels and biases that become multi-bit are left out. The model itself is left as it is.

    >>> report = quantize(trained, groups={"conv1": "channelwise", "dense1": 512})
    >>> report.model.compile("adam", loss)
    >>> schedule = callbacks.AdaptiveBitwidth(target_bits=0.7)
    >>> report.model.fit(x, y, epochs=schedule.epochs(report.model), callbacks=[schedule])

    Args:
        model: Built functional or sequential model.
        bits: Bases that every group starts with, 1 to 8.
        groups: By layer name, the inputs per group of a `Dense` layer, or the structure of a `Conv2D`:
            `"channelwise"`, `"pixelwise"` or `"kernelwise"`. Default: for `Dense` that of `MultiBitDense`; for
            `Conv2D` pixelwise with 32 input channels and more, channelwise with fewer.
        skip: Names of layers to leave as they are.

    Returns:
        The `QuantizeReport`, whose `model` is a `MultiBitModel`.

    Raises:
        ValueError: If the model is not built or not functional, `bits` is out of range, a name is none of a layer that
            can be quantised, groups do not divide a layer, or there is no layer to quantise.
    """
    graph = isinstance(model, keras.Sequential) or hasattr(model, "operations")
    if not isinstance(model, keras.Model) or not graph or not model.built:
        raise ValueError(
            f"Invalid value for argument `model`. Expected a built functional or sequential model. Received: {model!r}"
        )
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= bases.MAX_BASES:
        raise ValueError(
            f"Invalid value for argument `bits`. Expected an integer from 1 to {bases.MAX_BASES}. Received: {bits!r}"
        )
    groups = dict(groups or {})
    suited = {layer.name: layer for layer in model.layers if not _why_not(layer)}
    for argument, names in (("groups", groups), ("skip", skip)):
        for name in names:
            if name not in suited:
                raise ValueError(
                    f"Invalid value for argument `{argument}`. Expected names of layers that can be quantised, "
                    f"{sorted(suited)}. Received: {name!r}"
                )
    if not set(suited) - set(skip):
        raise ValueError(
            "Invalid value for argument `model`. Expected a model with `Dense` or `Conv2D` layers to quantise. "
            f"Received: {model.name!r} without any"
        )
    made: dict[str, MultiBitLayer] = {}
    copied: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name not in suited or layer.name in skip:
            copied.append((layer, layer.__class__.from_config(layer.get_config())))
            return copied[-1][1]
        made[layer.name] = _multi_bit(layer, bits, groups.get(layer.name))
        return made[layer.name]

    copy = keras.models.clone_model(model, clone_function=clone)
    for layer, same in copied:
        copy_all_weights(layer, same)
    result = MultiBitModel(*ends(copy), name=model.name)
    rows = [_report(layer, made.get(layer.name), skip) for layer in model.layers if _has_kernel(layer)]
    return QuantizeReport(result, tuple(rows))


def _has_kernel(layer: keras.layers.Layer) -> bool:
    """Whether a layer has, or holds inside, a weight that is more than one number per channel."""
    if isinstance(layer, keras.layers.Normalization):
        return False
    return any(len(weight.shape) > 1 for weight in layer.weights)


def _why_not(layer: keras.layers.Layer) -> str:
    """Why a layer cannot be multi-bit; an empty string where it can."""
    if type(layer) is keras.layers.Dense:
        return "" if len(layer.input.shape) == 2 else "its inputs are not [batch, features]"
    if type(layer) is not keras.layers.Conv2D:
        return f"{type(layer).__name__} is neither `Dense` nor `Conv2D`"
    if layer.data_format != "channels_last" or layer.groups != 1:
        return "it has its channels first, or convolves in groups of channels"
    return ""


def _multi_bit(layer: keras.layers.Layer, bits: int, groups: int | str | None) -> MultiBitLayer:
    dense = isinstance(layer, keras.layers.Dense)
    if groups is not None and (isinstance(groups, bool) or not isinstance(groups, int if dense else str)):
        expected = "the inputs per group, an integer" if dense else f"one of {bases.STRUCTURES[:3]}"
        raise ValueError(
            f"Invalid value for argument `groups`. Expected {expected}, for layer `{layer.name}`. Received: {groups!r}"
        )
    try:
        if dense:
            return MultiBitDense.from_dense(layer, bits, groups, adaptive=True)  # type: ignore[arg-type]
        default = "pixelwise" if layer.kernel.shape[2] >= bases.SMALLEST else "channelwise"
        return MultiBitConv2D.from_conv(layer, bits, str(groups or default), adaptive=True)
    except ValueError as error:
        raise ValueError(f"Layer `{layer.name}` cannot be quantised: {error}") from error


def _report(layer: keras.layers.Layer, made: MultiBitLayer | None, skip: Sequence[str]) -> LayerReport:
    if made is None:
        return LayerReport(layer.name, note=SKIPPED if layer.name in skip else _why_not(layer))
    kernel = np.asarray(ops.convert_to_numpy(layer.kernel))
    missed = kernel - np.asarray(ops.convert_to_numpy(made.float_kernel()))
    error = float(np.sqrt(np.square(missed).sum() / max(np.square(kernel).sum(), 1e-30)))
    grouping = made.grouping
    return LayerReport(layer.name, grouping.structure, grouping.num_groups, grouping.size, made.average_bits, error)
