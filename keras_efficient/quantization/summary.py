"""`summary`: where the bits of a network went, its multiply-adds by precision, its bytes."""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_efficient import cost
from keras_efficient.cost.storage import own_weights
from keras_efficient.layers.multi_bit_layer import MultiBitLayer
from keras_efficient.quantization.multi_bit_model import multi_bit_layers


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """Bits of one multi-bit layer.

    Attributes:
        name: The layer's name.
        structure: Its groups.
        weights: Number of weights.
        groups: Number of groups, of all outputs.
        group_size: Weights per group.
        average_bits: Bases per weight.
        widths: How many groups have 0, 1, 2, ... bases.
        activation_bits: Bits of the inputs, 0 for inputs as they are.
        bytes: By the paper's accounting: bits, float32 scales and biases.
        index_bytes: Of the bit-widths of the groups.
        macs: Multiply-adds per sample.
    """

    name: str
    structure: str
    weights: int
    groups: int
    group_size: int
    average_bits: float
    widths: tuple[int, ...]
    activation_bits: int
    bytes: float
    index_bytes: float
    macs: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """Bits of a model.

    Attributes:
        layers: One `LayerSummary` per multi-bit layer.
        other_bytes: Of all other weights in float32, moving statistics of batch normalisations left out.
        macs_by_precision: Multiply-adds per sample, by `"1-bit x float"` (weights x inputs), `"skipped"` for weights
            without bits and `"float x float"` for layers that are not multi-bit.
    """

    layers: tuple[LayerSummary, ...]
    other_bytes: float
    macs_by_precision: dict[str, float]

    @property
    def average_bits(self) -> float:
        """Bases per weight over the weights of all multi-bit layers."""
        return sum(row.average_bits * row.weights for row in self.layers) / sum(row.weights for row in self.layers)

    @property
    def scale_bits(self) -> float:
        """Bases per group, the mean over all groups, which may be far from `average_bits`."""
        live = sum(count * width for row in self.layers for width, count in enumerate(row.widths))
        return live / sum(row.groups for row in self.layers)

    @property
    def accounted_bytes(self) -> float:
        """Bytes by the paper's accounting: n bits and a float32 scale per basis, other weights in float32."""
        return sum(row.bytes for row in self.layers) + self.other_bytes

    @property
    def index_bytes(self) -> float:
        """Bytes of the groups' bit-widths, which the paper leaves out."""
        return sum(row.index_bytes for row in self.layers)

    @property
    def bits_per_weight(self) -> float:
        """Everything that is stored, per weight of a multi-bit layer."""
        return 8 * (self.accounted_bytes + self.index_bytes) / sum(row.weights for row in self.layers)

    def __str__(self) -> str:
        lines = [
            f"{'layer':<16}{'groups':<16}{'weights':>10}{'bits':>7}{'bytes':>10}{'MACs':>13}  groups of 0, 1, ... bits"
        ]
        for row in self.layers:
            cut = f"{row.structure} {row.group_size}"
            numbers = f"{row.weights:>10,}{row.average_bits:>7.3f}{row.bytes:>10,.0f}{row.macs:>13,.0f}"
            lines.append(f"{row.name:<16}{cut:<16}{numbers}  {', '.join(map(str, row.widths))}")
        lines.append(
            f"{self.average_bits:.3f} bits on average, {self.scale_bits:.3f} scales per group, "
            f"{self.bits_per_weight:.3f} bits per weight with everything"
        )
        lines.append(
            f"{self.accounted_bytes:,.0f} bytes by the accounting, {self.index_bytes:,.0f} more for bit-widths"
        )
        total = sum(self.macs_by_precision.values())
        lines += [
            f"{name:<20}{macs:>14,.0f} MACs {macs / total:>7.1%}" for name, macs in self.macs_by_precision.items()
        ]
        return "\n".join(lines)


def summary(model: keras.Model) -> Summary:
    """Counts bits, bytes and multiply-adds of a model with multi-bit layers.

    Raises:
        ValueError: If the model has no multi-bit layers, or its input shape is unknown.
    """
    layers = multi_bit_layers(model)
    if not layers:
        raise ValueError(
            f"Invalid value for argument `model`. Expected a model with multi-bit layers. Received: {model.name!r}"
        )
    report = cost.profile(model)
    macs = {row.name.rsplit("/", 1)[-1]: row.macs for row in report.layers}
    rows = tuple(_summary(layer, macs.get(layer.name, 0.0)) for layer in layers)
    precisions: dict[str, float] = {}
    for row in rows:
        inputs = f"{row.activation_bits}-bit" if row.activation_bits else "float"
        for width, count in enumerate(row.widths):
            if count:
                name = f"{width}-bit x {inputs}" if width else "skipped"
                precisions[name] = precisions.get(name, 0.0) + row.macs * count / row.groups
    rest = report.macs - sum(row.macs for row in rows)
    if rest > 0:
        precisions["float x float"] = rest
    return Summary(rows, _other_bytes(model, layers), dict(sorted(precisions.items())))


def _summary(layer: MultiBitLayer, macs: float) -> LayerSummary:
    widths = layer.widths()
    return LayerSummary(
        layer.name,
        layer.grouping.structure,
        layer.num_weights,
        layer.grouping.num_groups,
        layer.grouping.size,
        layer.average_bits,
        tuple(int(count) for count in np.bincount(widths.ravel())),
        layer.activation_bits,
        layer.stored_bytes(),
        layer.index_bytes,
        macs,
    )


def _is_learnt(weight: Any, layer: keras.layers.Layer) -> bool:
    """Whether training made a weight, frozen now or not; statistics and states of generators are left out."""
    frozen = not layer.trainable and "float" in str(weight.dtype) and not weight.name.startswith("moving_")
    return weight.trainable or frozen


def _other_bytes(model: keras.Model, layers: list[MultiBitLayer]) -> float:
    ours = {id(variable) for layer in layers for variable in layer.variables}
    others: list[Any] = [weight for weight in own_weights(model) if id(weight) not in ours]
    for layer in model._flatten_layers(include_self=False):
        others += [weight for weight in own_weights(layer) if id(weight) not in ours and _is_learnt(weight, layer)]
    return 4.0 * sum(float(np.prod(weight.shape)) for weight in {id(w): w for w in others}.values())
