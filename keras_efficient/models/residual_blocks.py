"""Finding the residual blocks of a Functional model, and the channels inside them that gates can shut."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from keras_efficient.models.splitting import node_of, nodes_before

KerasTensor = Any
Node = Any  # one call of a layer or operation in the graph
NAMES = {keras.activations.linear: "linear", keras.activations.relu: "relu", keras.activations.relu6: "relu6"}
KEEP_ZEROS = (
    keras.layers.AveragePooling2D,
    keras.layers.Dropout,
    keras.layers.Identity,
    keras.layers.MaxPooling2D,
    keras.layers.SpatialDropout2D,
    keras.layers.ZeroPadding2D,
)
"""Layers that leave every channel by itself, and one of zeros at zero."""


@dataclasses.dataclass(eq=False)
class Unit:
    """A convolution with the normalisation and the activation behind it: what becomes one gated layer.

    Attributes:
        convolution: A `Conv2D` or `DepthwiseConv2D`.
        norm: The batch normalisation behind it, or None.
        activation: `"linear"`, `"relu"` or `"relu6"`.
        follow: Calls of the normalisation and of the layer with the activation.
        end: The tensor behind them.
        gated: Whether it decides which of its channels are open.
        reads: The unit whose gates say which of its inputs are open, or None.
    """

    convolution: keras.layers.Layer
    norm: Any
    activation: str
    follow: list[Node]
    end: KerasTensor
    gated: bool = False
    reads: "Unit | None" = None

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel reads one input channel."""
        return isinstance(self.convolution, keras.layers.DepthwiseConv2D)


@dataclasses.dataclass(eq=False)
class Block:
    """`add(branch(entry), shortcut(entry))`.

    Attributes:
        add: The call that adds.
        entry: What branch and shortcut read.
        branch: Calls between `entry` and the sum, in order.
        shortcut: The same for the projection, empty for an identity.
        end: The tensor that the branch ends in.
        units: What of the branch becomes gated layers.
    """

    add: Node
    entry: KerasTensor
    branch: list[Node]
    shortcut: list[Node]
    end: KerasTensor
    units: list[Unit] = dataclasses.field(default_factory=list)


def residual_blocks(model: keras.Model) -> list[Block]:
    """The residual blocks of a Functional model, in order; of blocks inside others the inner ones.

    A block is an addition of two tensors, a branch and a shortcut. Both come from one tensor and from nothing else, and
    nothing else reads what is computed on the way. The shortcut is that tensor itself, or something with at most one
    layer that multiplies with a matrix, a projection; the branch has more of those.
    """
    graph = _Graph(model)
    blocks: list[Block] = []
    taken: set[int] = set()
    for node in graph.nodes:
        block = graph.block_at(node)
        inside = {id(part) for part in (*block.branch, *block.shortcut)} if block else set()
        if block and not inside & taken:
            blocks.append(block)
            taken |= {id(node), *inside}
    for block in blocks:
        block.units = list(graph.units_of(block))
    return blocks


class _Graph:
    """The calls of a model, and who reads what."""

    def __init__(self, model: keras.Model) -> None:
        self.nodes: list[Node] = []
        for output in model.outputs:
            known = {id(node) for node in self.nodes}
            self.nodes += [node for node in nodes_before(output, []) if id(node) not in known]
        self.readers: dict[int, list[Node]] = {}
        self._calls: dict[int, int] = {}
        for node in self.nodes:
            self._calls[id(node.operation)] = self._calls.get(id(node.operation), 0) + 1
            for tensor in node.input_tensors:
                self.readers.setdefault(id(tensor), []).append(node)
        self._outputs = {id(tensor) for tensor in model.outputs}
        self._dominator = self._dominators()

    def block_at(self, add: Node) -> Block | None:
        """The block that ends in this call, if it is an addition that ends one."""
        if type(add.operation).__name__ != "Add" or len(add.input_tensors) != 2:
            return None
        if self._calls[id(add.operation)] != 1:
            return None
        first, second = add.input_tensors
        if tuple(first.shape) != tuple(second.shape) or first is second:
            return None
        last = self._dominator[id(add)]
        if last is None or len(last.outputs) != 1:
            return None
        entry = last.outputs[0]
        regions = [self._region(entry, end, add) for end in (first, second)]
        if None in regions:
            return None
        found = [region or [] for region in regions]
        work = [sum(_multiplies(node.operation) for node in region) for region in found]
        branch, shortcut = (0, 1) if work[0] > work[1] else (1, 0)
        if work[branch] == work[shortcut] or work[shortcut] > 1:
            return None
        return Block(add, entry, found[branch], found[shortcut], add.input_tensors[branch])

    def _dominators(self) -> dict[int, Node | None]:
        """For every call the last one before it that everything it reads has passed; None where there is none."""
        found: dict[int, Node | None] = {}
        depth: dict[int, int] = {}
        for node in self.nodes:
            before = [node_of(tensor) for tensor in node.input_tensors]
            common = before[0] if before else None
            for other in before[1:]:
                while common is not other and common is not None and other is not None:
                    if depth[id(common)] >= depth[id(other)]:
                        common = found[id(common)]
                    else:
                        other = found[id(other)]
                common = common if common is other else None
            found[id(node)] = common
            depth[id(node)] = 0 if common is None else depth[id(common)] + 1
        return found

    def _region(self, entry: KerasTensor, end: KerasTensor, add: Node) -> list[Node] | None:
        """The calls between two tensors, None unless that is all there is to them."""
        if end is entry:
            return []
        region = nodes_before(end, [entry])
        inside = {id(node) for node in region}
        for node in region:
            if not node.input_tensors or len(node.outputs) != 1 or self._calls[id(node.operation)] != 1:
                return None
            readers = self.readers[id(node.outputs[0])]
            if id(node.outputs[0]) in self._outputs or any(r is not add and id(r) not in inside for r in readers):
                return None
        return region

    def units_of(self, block: Block) -> Iterator[Unit]:
        """The units of a branch whose channels can be gated, and those that read them."""
        inside = {id(node) for node in block.branch}
        units: dict[int, Unit] = {}
        for node in block.branch:
            known = units.get(id(node))
            if known is not None and known.is_depthwise:
                continue  # its channels are those of the unit before it
            producer = known or _unit(self, node)
            chain = self._chain(producer, inside, units) if producer else None
            if producer is None or chain is None:
                continue
            producer.gated = True
            units[id(node)] = producer
            for reader_node, reader in chain:
                reader.reads = producer
                units[id(reader_node)] = reader
        yield from units.values()

    def _chain(self, producer: Unit, inside: set[int], units: dict[int, Unit]) -> list[tuple[Node, Unit]] | None:
        """Depthwise units behind a unit, and the convolution that ends them; None where something else reads."""
        chain: list[tuple[Node, Unit]] = []
        tensor = producer.end
        while True:
            node = self.reader(tensor)
            if node is None or id(node) not in inside:
                return None
            unit = units.get(id(node)) or _unit(self, node)
            if unit is not None:
                chain.append((node, unit))
                if not unit.is_depthwise:
                    return chain
                tensor = unit.end
            elif _keeps_zeros(node.operation):
                tensor = node.outputs[0]
            else:
                return None

    def reader(self, tensor: KerasTensor) -> Node | None:
        """The only call that reads a tensor, or None."""
        readers = self.readers.get(id(tensor), [])
        return readers[0] if len(readers) == 1 else None


def _unit(graph: _Graph, node: Node) -> Unit | None:
    """The unit that a call begins, or None where it is no convolution that has a gated twin."""
    layer = node.operation
    if type(layer) not in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D) or not _has_twin(layer):
        return None
    activation = _activation(layer)
    if activation is None:
        return None
    unit = Unit(layer, None, activation, [], node.outputs[0])
    for step in ("norm", "activation"):
        follower = graph.reader(unit.end)
        if follower is None or unit.activation != "linear":
            break
        if step == "norm" and _folds(follower.operation):
            unit.norm = follower.operation
        elif step == "activation" and _activation(follower.operation) is not None:
            unit.activation = _activation(follower.operation) or "linear"
        else:
            continue
        unit.follow.append(follower)
        unit.end = follower.outputs[0]
    return unit


def _has_twin(layer: keras.layers.Layer) -> bool:
    """Whether `GatedConv2D` or `GatedDepthwiseConv2D` can do what a convolution does."""
    plain = layer.data_format == "channels_last" and getattr(layer, "groups", 1) == 1
    plain = plain and layer.activity_regularizer is None
    changed = getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False)
    return plain and not changed and (max(layer.strides) == 1 or max(layer.dilation_rate) == 1)


def _folds(layer: Any) -> bool:
    """Whether a layer is a batch normalisation of channels with all that `GatedConv2D`'s has, and nothing more."""
    if type(layer) is not keras.layers.BatchNormalization or layer.axis not in (-1, 3):
        return False
    more = [getattr(layer, f"{part}_{kind}") for part in ("gamma", "beta") for kind in ("regularizer", "constraint")]
    more += [layer.synchronized, layer.activity_regularizer]
    return bool(layer.center and layer.scale) and not any(more)


def _activation(layer: Any) -> str | None:
    """The name of the activation of a convolution or of a layer that is nothing else; None for others."""
    if getattr(layer, "activity_regularizer", None) is not None:
        return None
    if type(layer) is keras.layers.ReLU:
        config = layer.get_config()
        plain = not config["negative_slope"] and not config["threshold"]
        return {None: "relu", 6.0: "relu6"}.get(config["max_value"]) if plain else None
    if type(layer) not in (keras.layers.Activation, keras.layers.Conv2D, keras.layers.DepthwiseConv2D):
        return None
    return NAMES.get(layer.activation)


def _keeps_zeros(layer: Any) -> bool:
    return type(layer) in KEEP_ZEROS and getattr(layer, "data_format", "channels_last") == "channels_last"


def _multiplies(layer: Any) -> bool:
    """Whether a layer holds a matrix or kernel, in itself or in layers inside."""
    if not isinstance(layer, keras.layers.Layer):
        return False
    return any(len(weight.shape) > 1 for weight in layer.weights)
