"""`LCResNet`: residual networks whose blocks and channels open and close per input."""

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_efficient.cost.observe import sublayers
from keras_efficient.layers import GatedConv2D, LayerGate
from keras_efficient.models.resnet import check_sizes, conv, convolution, thin_blocks

Tensor = Any

IMAGENET_BLOCKS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
VARIANTS = ("thin", "wide", "imagenet")
GATE_WEIGHTS = ("gate_kernel", "gate_bias", "gate_temperature", "budget_coefficient", "executed_macs")
EXPANSION = 4  # channels that leave a bottleneck over those inside it


def LCResNet(  # noqa: N802 - named as networks of `keras.applications` are
    depth: int = 20,
    width: int | None = None,
    num_classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    variant: str = "thin",
    layer_gates: bool = True,
    channel_gates: bool = True,
    name: str | None = None,
    **gate_options: Any,
) -> keras.Model:
    """An LC-Net: a residual network with an L-Net and a C-Net in every block, ending in logits.

    With the block's input `x`, `S_L` one gate and `S_C` a gate per channel inside the block, both from `mean_hw(x)`,

        basic:       y = relu(sc(x) + S_L BN(conv3x3(S_C relu(BN(conv3x3(x))))))
        bottleneck:  y = relu(sc(x) + S_L BN(conv1x1(S_C relu(BN(conv3x3(relu(BN(conv1x1(x)))))))))

    A gate is 0 or a scale in (0, 1], see `LayerGate` and `GatedConv2D`; a block whose `S_L` is 0 computes neither `S_C`
    nor any convolution. All gates begin open, at 0.9. Without layer gates this is C-Net, without channel gates L-Net,
    without both the dense network, with the same names of layers: `LCResNet(...)` takes its weights with
    `copy_weights`. The outputs of the blocks are the layers `block_1`, `block_2`, ...

    Args:
        depth: `6 n + 2` for `"thin"`; 18, 34, 50, 101 or 152 for the others.
        width: Channels of the first stage (of the inner ones, in bottlenecks), default 16 for `"thin"`, else 64. Each
            further stage has twice as many.
        num_classes: Number of logits.
        input_shape: Height, width and channels of the images.
        variant: `"thin"`: three stages for small images, the CIFAR ResNets. `"wide"`: four stages behind a 3 x 3 stem,
            for small images. `"imagenet"`: four stages behind a strided 7 x 7 stem and max pooling.
        layer_gates: Whether blocks have an L-Net.
        channel_gates: Whether blocks have a C-Net.
        name: Of the model.
        **gate_options: `gate_threshold`, `gate_leak`, `gate_kernel_initializer` and `gate_bias_initializer` of all
            gates.

    Raises:
        ValueError: If a size is not as described.

    Reference: Xia et al., "Fully Dynamic Inference with Deep Neural Networks", IEEE TETC 2022; where the paper's text
    was not at hand, in the manner of it.
    """
    kind, blocks = _blocks(depth, variant)
    width = (16 if variant == "thin" else 64) if width is None else width
    check_sizes(width, num_classes)
    gates = Gates(layer_gates, channel_gates, gate_options)
    x = inputs = keras.Input(input_shape, name="image")
    if variant == "imagenet":
        x = convolution(x, width, 7, 2, "stem")
        x = keras.layers.MaxPooling2D(3, 2, "same", name="stem_pool")(keras.layers.ReLU(name="stem")(x))
    else:
        x = keras.layers.ReLU(name="stem")(convolution(x, width, 3, 1, "stem"))
    number = 0
    for stage, count in enumerate(blocks):
        for first in (True, *[False] * (count - 1)):
            number += 1
            stride = 2 if stage > 0 and first else 1
            x = lc_block(x, width * 2**stage, stride, kind, gates, f"block_{number}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=name or f"lc_resnet_{depth}")


@dataclasses.dataclass(frozen=True)
class Gates:
    """Which gates a block has, and their arguments."""

    layer: bool = True
    channel: bool = True
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def lc_block(x: Tensor, filters: int, strides: int, kind: str, gates: Gates, name: str) -> Tensor:
    """One block with its shortcut: `[B, H, W, C]` to `[B, H / strides, W / strides, filters]` (bottleneck: 4 x).

    Args:
        x: Symbolic tensor.
        filters: Channels inside the block.
        strides: Of its 3 x 3 convolution and its shortcut.
        kind: `"basic"` or `"bottleneck"`.
        gates: Which gates it has.
        name: Of the layer that gives the block's output; the others begin with it.
    """
    width = filters * (EXPANSION if kind == "bottleneck" else 1)
    inner = keras.Input(x.shape[1:], name=f"{name}_input")
    f = keras.Model(inner, _residual(inner, filters, width, strides, kind, gates, name), name=f"{name}_residual")
    shortcut: Any = "identity"
    if strides != 1 or x.shape[-1] != width:
        shortcut = keras.Sequential(
            [
                keras.Input(x.shape[1:]),
                conv(width, 1, strides, f"{name}_shortcut_conv"),
                keras.layers.BatchNormalization(name=f"{name}_shortcut_bn"),
            ],
            name=f"{name}_shortcut",
        )
    if gates.layer:
        y = LayerGate(f, shortcut, name=f"{name}_gate", **gates.options)(x)
    else:
        y = keras.layers.Add(name=f"{name}_add")([f(x), x if shortcut == "identity" else shortcut(x)])
    return keras.layers.ReLU(name=name)(y)


def _residual(x: Tensor, filters: int, width: int, strides: int, kind: str, gates: Gates, name: str) -> Tensor:
    options: dict[str, Any] = {
        "padding": "same",
        "use_bias": False,
        "batch_normalization": True,
        "kernel_initializer": "he_normal",
    }
    own: dict[str, Any] = {"gate": "relu1", "return_gate": True, **gates.options} if gates.channel else {"gate": None}
    block_input = x
    if kind == "bottleneck":
        x = keras.layers.ReLU(name=f"{name}_relu_0")(convolution(x, filters, 1, 1, f"{name}_0"))
    first = GatedConv2D(filters, 3, strides, activation="relu", name=f"{name}_1", **options, **own)
    found = first(x, gate_inputs=block_input) if gates.channel else first(x)
    h, gate = found if gates.channel else (found, None)
    size = 1 if kind == "bottleneck" else 3
    return GatedConv2D(width, size, gate=None, name=f"{name}_2", **options)(h, input_gate=gate)


def copy_weights(source: keras.Model, target: keras.Model) -> list[str]:
    """Gives layers of `target` the weights of the layers of `source` with the same name, gates left as they are.

    Args:
        source: A trained network, such as `LCResNet(layer_gates=False, channel_gates=False)`.
        target: One with the same layers and gates.

    Returns:
        Names of the layers that got weights.

    Raises:
        ValueError: If a layer of `source` with weights is missing in `target`, or has weights of other shapes.
    """
    targets = {layer.name: layer for layer in _holders(target)}
    copied = []
    for layer in _holders(source):
        weights = _own_weights(layer)
        if not weights:
            continue
        others = _own_weights(targets[layer.name]) if layer.name in targets else {}
        expected, received = (
            {key: tuple(weight.shape) for key, weight in found.items()} for found in (weights, others)
        )
        if expected != received:
            raise ValueError(
                f"Invalid value for argument `target`. Expected a layer '{layer.name}' with weights {expected}. "
                f"Received: {received or 'none'}"
            )
        for key, weight in weights.items():
            others[key].assign(ops.convert_to_numpy(weight))  # on JAX a shared array would be lost in training
        copied.append(layer.name)
    return copied


def _holders(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that hold the weights of one operation each: a gated convolution with its normalisation is one."""
    found: list[keras.layers.Layer] = []
    inside: set[int] = set()
    for layer in sublayers(model):
        if id(layer) in inside:
            continue
        if getattr(layer, "calls_op", False):
            inside |= {id(part) for part in sublayers(layer)}
        elif sublayers(layer):
            continue
        found.append(layer)
    return found


def _own_weights(layer: keras.layers.Layer) -> dict[str, Any]:
    """The weights by their place in the layer, those of gates and budgets left out."""
    found = {weight.path.rsplit(f"{layer.name}/", 1)[-1]: weight for weight in layer.weights}
    return {key: weight for key, weight in found.items() if key not in GATE_WEIGHTS}


def _blocks(depth: int, variant: str) -> tuple[str, tuple[int, ...]]:
    """Kind of block and blocks per stage."""
    if variant not in VARIANTS:
        raise ValueError(f"Invalid value for argument `variant`. Expected one of {VARIANTS}. Received: {variant!r}")
    if variant == "thin":
        return "basic", (thin_blocks(depth),) * 3
    if depth not in IMAGENET_BLOCKS:
        raise ValueError(
            f"Invalid value for argument `depth`. Expected one of {sorted(IMAGENET_BLOCKS)}. Received: {depth}"
        )
    return IMAGENET_BLOCKS[depth]
