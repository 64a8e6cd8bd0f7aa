"""`lc_net`: an LC-Net made of a network that somebody has trained."""

from typing import Any

import keras
from keras import ops

from keras_efficient.layers import GatedConv2D, GatedDepthwiseConv2D, LayerGate
from keras_efficient.layers.copying import copy_all_weights
from keras_efficient.models.residual_blocks import Block, Unit, residual_blocks

Layer = Any
KerasTensor = Any


def lc_net(
    model: keras.Model,
    layer_gates: bool = True,
    channel_gates: bool = True,
    name: str | None = None,
    **gate_options: Any,
) -> keras.Model:
    """An LC-Net made of a trained residual network, such as those of `keras.applications`.

    Every residual block `add(branch(x), shortcut(x))` gets an L-Net that skips the branch, `LayerGate`, and every
    convolution in a branch whose channels only the next convolution of that branch reads gets a C-Net that shuts
    channels, `GatedConv2D`. All of them read `x`. A depthwise convolution in between, with its normalisation, shuts
    the same channels (`GatedDepthwiseConv2D`). The shortcut stays: an identity, or a projection.

    >>> network = models.lc_net(keras.applications.MobileNetV2(classifier_activation=None))
    >>> network.compile("adam", loss)
    >>> network.fit(x, y, epochs=10, callbacks=[callbacks.ComputeBudget(0.6)])

    Weights and moving statistics are copied, and gates begin at exactly 1 (kernels zero, biases one), so the new
    network computes at first what the old one does. The old one is not changed. A convolution that a gate concerns
    keeps its name and takes in the batch normalisation and the activation behind it; all other layers keep their
    names. What was frozen (`layer.trainable = False`) stays frozen, gates train.

    Channels are gated where a convolution without groups, `channels_last`, is followed by a batch normalisation with
    offset and scale or by none, and by no activation, ReLU or ReLU6; paddings, poolings and dropout may lie before the
    next convolution. Anything else in a branch (squeeze and excitation, swish) is left as it is, and so are layers
    outside of residual blocks. Models inside the model are converted, too.

    Args:
        model: Built Functional or Sequential model.
        layer_gates: Whether blocks get L-Nets.
        channel_gates: Whether blocks get C-Nets.
        name: Of the new model; default `<name of the model>_lc`.
        **gate_options: `gate`, `gate_threshold`, `gate_leak`, `gate_kernel_initializer`, `gate_bias_initializer` and
            `gate_regularizer` of all gates, see `layers.DynamicLayer`.

    Returns:
        A Functional model with the inputs and outputs of `model`, not compiled.

    Raises:
        ValueError: If the model is not built or cannot be taken apart, no kind of gate is asked for, or no block (with
            channel gates alone: no channel in a block) can be gated.

    Reference: Xia et al., "Fully Dynamic Inference with Deep Neural Networks", IEEE TETC 2022; on networks other than
    ResNets in the manner of it.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"Invalid value for argument `model`. Expected a Keras model. Received: {model!r}")
    if not layer_gates and not channel_gates:
        raise ValueError(
            "Invalid value for argument `layer_gates` or `channel_gates`. Expected at least one True. Received: neither"
        )
    if not _is_graph(model):
        raise ValueError(
            "Invalid value for argument `model`. Expected a built Functional or Sequential model, whose layers can be "
            f"taken apart. Received: `{model.name}` of {type(model).__name__}"
        )
    conversion = _Conversion(layer_gates, channel_gates, gate_options)
    network = conversion.convert(model, name or f"{model.name}_lc")
    if not conversion.gates:
        wanted = "residual blocks, additions of a branch of layers and its input or a projection of it"
        if not layer_gates:
            wanted += ", in which one convolution reads the channels of another"
        raise ValueError(
            f"Invalid value for argument `model`. Expected a network with {wanted}. "
            f"Received: `{model.name}` without one"
        )
    conversion.copy_weights()
    return network


def _is_graph(model: Any) -> bool:
    return isinstance(model, keras.Model) and bool(model.built and getattr(model, "outputs", None))


class _Conversion:
    """Copies of models with gates, and what is needed to fill them with weights."""

    def __init__(self, layer_gates: bool, channel_gates: bool, options: dict[str, Any]) -> None:
        self.layer_gates = layer_gates
        self.channel_gates = channel_gates
        concrete = options.get("gate") == "binary_concrete"
        self.options = {
            "gate_kernel_initializer": "zeros",
            **({} if concrete else {"gate_bias_initializer": "ones"}),
            **options,
        }
        self.gates = 0
        self._copies: dict[int, Layer] = {}
        self._copied: list[tuple[Layer, Layer]] = []
        self._units: list[tuple[Unit, GatedConv2D]] = []

    def convert(self, model: keras.Model, name: str) -> keras.Model:
        """The copy of a graph, its weights not yet set."""
        sequential = isinstance(model, keras.Sequential)
        inputs, outputs = (model.inputs[0], model.outputs[0]) if sequential else (model.input, model.output)
        whole = keras.Model(inputs, outputs, name=name)
        graph = _Rebuilding(self, residual_blocks(whole))
        return keras.models.clone_model(whole, clone_function=lambda layer: layer, call_function=graph.call)

    def copy_of(self, layer: Layer) -> Layer:
        """The twin of a layer that stays as it is, one for all its calls."""
        if id(layer) not in self._copies:
            if _is_graph(layer):
                self._copies[id(layer)] = self.convert(layer, layer.name)
            else:
                self._copies[id(layer)] = layer.__class__.from_config(layer.get_config())
                if isinstance(layer, keras.layers.Layer):
                    self._copied.append((layer, self._copies[id(layer)]))
        return self._copies[id(layer)]

    def layer_gate(self, block: Block, branch: keras.Model, shortcut: Any) -> LayerGate:
        """The gate around the branch of a block."""
        self.gates += 1
        policy = getattr(block.add.operation, "dtype_policy", None)
        return LayerGate(branch, shortcut, name=f"{block.add.operation.name}_gate", dtype=policy, **self.options)

    def gated(self, unit: Unit) -> GatedConv2D:
        """The gated twin of a convolution."""
        old, norm = unit.convolution, unit.norm
        arguments: dict[str, Any] = {
            key: getattr(old, key) for key in ("kernel_size", "strides", "padding", "dilation_rate", "use_bias", "name")
        }
        prefix = "depthwise" if unit.is_depthwise else "kernel"
        for part in ("initializer", "regularizer", "constraint"):
            arguments[f"kernel_{part}"] = getattr(old, f"{prefix}_{part}")
            arguments[f"bias_{part}"] = getattr(old, f"bias_{part}")
        arguments |= {"activation": unit.activation, "dtype": old.dtype_policy}
        if norm is not None:
            arguments |= {"batch_normalization": True, "momentum": norm.momentum, "epsilon": norm.epsilon}
        if unit.gated:
            arguments |= {"return_gate": True, **self.options}
        else:
            arguments |= {"return_gate": unit.is_depthwise, "gate": None}
        if unit.is_depthwise:
            layer: GatedConv2D = GatedDepthwiseConv2D(depth_multiplier=old.depth_multiplier, **arguments)
        else:
            layer = GatedConv2D(filters=old.filters, **arguments)
        self._units.append((unit, layer))
        self.gates += unit.gated
        return layer

    def copy_weights(self) -> None:
        """Gives all copies the weights of what they are copies of."""
        for old, new in self._copied:
            copy_all_weights(old, new)
        for unit, layer in self._units:
            old = unit.convolution
            pairs = [(layer.kernel, old.kernel)]
            if old.use_bias:
                pairs.append((layer.bias, old.bias))
            for new, source in pairs:
                new.assign(ops.convert_to_numpy(source))
            if not old.trainable:
                layer.freeze("weights")
            if unit.norm is not None:
                layer.norm.set_weights(unit.norm.get_weights())
                if not unit.norm.trainable:
                    layer.freeze("norm")


class _Rebuilding:
    """What stands in for each call of one graph while Keras walks it anew."""

    def __init__(self, conversion: _Conversion, blocks: list[Block]) -> None:
        self._conversion = conversion
        self._blocks = {id(block.add.operation): block for block in blocks}
        parts = [(part, block) for block in blocks for part in (*block.branch, *block.shortcut)]
        self._inside = {id(part.operation): (part, block) for part, block in parts}
        units = [unit for block in blocks for unit in block.units] if conversion.channel_gates else []
        self._units = {id(unit.convolution): unit for unit in units}
        self._taken_in = {id(part.operation) for unit in units for part in unit.follow}
        self._entries: dict[int, KerasTensor] = {}  # what the copy of a block reads, by block
        self._inputs: dict[tuple[int, bool], KerasTensor] = {}  # the same inside of a branch and of a shortcut
        self._gates: dict[int, KerasTensor] = {}  # of the channels that leave a unit, by unit

    def call(self, layer: Layer, *args: Any, **kwargs: Any) -> Any:
        """Calls the copy of a layer, or what has taken its place."""
        if id(layer) in self._blocks:
            return self._add(self._blocks[id(layer)], layer, args, kwargs)
        if id(layer) in self._inside:
            node, block = self._inside[id(layer)]
            args, kwargs = self._entered(node, block, args, kwargs)
            if id(layer) in self._taken_in:
                return args[0]
            if id(layer) in self._units:
                return self._gated(self._units[id(layer)], block, args[0])
        return self._conversion.copy_of(layer)(*args, **kwargs)

    def _entered(self, node: Any, block: Block, args: Any, kwargs: Any) -> Any:
        """The arguments of a call inside a block; with a layer gate around it the block's input is an inner one."""
        flat = keras.tree.flatten((args, kwargs))
        tensors = [value for value in flat if isinstance(value, keras.KerasTensor)]
        entering = {id(new) for old, new in zip(node.input_tensors, tensors, strict=True) if old is block.entry}
        if not entering:
            return args, kwargs
        (entry,) = {id(new): new for new in tensors if id(new) in entering}.values()
        self._entries[id(block)] = entry
        if not self._conversion.layer_gates:
            return args, kwargs
        inner = self._inner_input(block, any(part is node for part in block.branch))
        flat = [inner if id(value) in entering else value for value in flat]
        return keras.tree.pack_sequence_as((args, kwargs), flat)

    def _inner_input(self, block: Block, of_branch: bool) -> KerasTensor:
        key = (id(block), of_branch)
        if key not in self._inputs:
            entry, name = self._entries[id(block)], block.add.operation.name
            role = "input" if of_branch else "shortcut_input"
            self._inputs[key] = keras.Input(batch_shape=entry.shape, dtype=entry.dtype, name=f"{name}_{role}")
        return self._inputs[key]

    def _gated(self, unit: Unit, block: Block, x: KerasTensor) -> KerasTensor:
        layer = self._conversion.gated(unit)
        more = {}
        if unit.reads is not None:
            more["input_gate"] = self._gates[id(unit.reads)]
        if unit.gated:
            seen = self._inner_input(block, True) if self._conversion.layer_gates else self._entries[id(block)]
            more["gate_inputs"] = seen
        if not layer.return_gate:
            return layer(x, **more)
        y, gate = layer(x, **more)
        self._gates[id(unit if unit.gated else unit.reads)] = gate
        return y

    def _add(self, block: Block, layer: Layer, args: Any, kwargs: Any) -> KerasTensor:
        if not self._conversion.layer_gates:
            return self._conversion.copy_of(layer)(*args, **kwargs)
        name = layer.name
        tensors = [v for v in keras.tree.flatten((args, kwargs)) if isinstance(v, keras.KerasTensor)]
        ends = [block.add.input_tensors[0] is block.end, block.add.input_tensors[1] is block.end]
        branch_end, shortcut_end = tensors[ends.index(True)], tensors[ends.index(False)]
        branch = keras.Model(self._inner_input(block, True), branch_end, name=f"{name}_residual")
        shortcut: Any = "identity"
        if block.shortcut:
            shortcut = keras.Model(self._inner_input(block, False), shortcut_end, name=f"{name}_shortcut")
        return self._conversion.layer_gate(block, branch, shortcut)(self._entries[id(block)])
