"""One Functional model per task over layers that tasks share, made from a backbone that knows of one task only."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_efficient.layers.copying import copy_all_weights
from keras_efficient.layers.filter_sharing import FilterSharing
from keras_efficient.layers.filter_sharing_conv_2d import FilterSharingConv2D
from keras_efficient.layers.filter_sharing_dense import FilterSharingDense
from keras_efficient.layers.filter_sharing_normalization import TaskBatchNormalization

Layer = Any
Tensor = Any
_EACH_CHANNEL = (
    keras.layers.InputLayer,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.Activation,
    keras.layers.Identity,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Add,
    keras.layers.Multiply,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.ZeroPadding2D,
    keras.layers.UpSampling2D,
)
_MERGES = (keras.layers.Add, keras.layers.Multiply)
_OF_EACH_NUMBER = (
    keras.activations.linear,
    keras.activations.relu,
    keras.activations.relu6,
    keras.activations.leaky_relu,
    keras.activations.elu,
    keras.activations.selu,
    keras.activations.gelu,
    keras.activations.silu,
    keras.activations.sigmoid,
    keras.activations.tanh,
    keras.activations.softplus,
    keras.activations.hard_sigmoid,
    keras.activations.hard_silu,
    keras.activations.mish,
    keras.activations.exponential,
)
_WEIGHTS = ("initializer", "regularizer", "constraint")
_OF_BOTH = ("name", "activation", "use_bias", *(f"{name}_{kind}" for kind in _WEIGHTS for name in ("kernel", "bias")))
_OF_CONV = ("filters", "kernel_size", "strides", "padding", "dilation_rate", *_OF_BOTH)


def rebuilt(
    model: keras.Model,
    layer_for: Callable[[Layer], Layer],
    arguments: Callable[[Layer], dict[str, Any]],
    inputs: Any = None,
) -> keras.Model:
    """A model of the same graph with other layers in it; models inside the model are gone through as well.

    Args:
        model: Functional or built Sequential.
        layer_for: The layer that takes the place of one; asked again for each call of it.
        arguments: Further keyword arguments of a new layer's call.
        inputs: Symbolic inputs of other shapes, or None for those of the model.
    """
    functional = as_functional(model)
    inside = {layer.name: layer for layer in functional.layers if _is_graph(layer)}

    def call(layer: Layer, *args: Any, **kwargs: Any) -> Any:
        if layer.name in inside:
            return rebuilt(inside[layer.name], layer_for, arguments)(*args)
        if getattr(layer, "by_task", False):
            kwargs.pop("mask", None)  # of the batch normalisation that was there
        return layer(*args, **{**kwargs, **arguments(layer)})

    def clone(layer: Layer) -> Layer:
        return layer if layer.name in inside or isinstance(layer, keras.layers.InputLayer) else layer_for(layer)

    return keras.models.clone_model(functional, inputs, clone_function=clone, call_function=call)


def computes_side_by_side(trunk: keras.Model) -> bool:
    """Whether tasks can be computed at once with their features side by side in the channels.

    That is so where every layer that does not know of tasks treats each channel by itself, and no activation reads
    several.
    """
    return all(
        computes_side_by_side(operation)
        if _is_graph(operation)
        else (getattr(operation, "by_task", False) or isinstance(operation, _EACH_CHANNEL))
        and getattr(operation, "activation", keras.activations.linear) in _OF_EACH_NUMBER
        and not (isinstance(operation, _MERGES) and _spreads(operation))
        for operation in trunk.operations
    )


def _spreads(merge: Layer) -> bool:
    """Whether a sum or product has inputs of several numbers of channels, of which one is repeated."""
    nodes = [node.input_tensors for node in merge._inbound_nodes]
    return any(len({tensor.shape[-1] for tensor in tensors}) > 1 for tensors in nodes)


def as_functional(model: keras.Model) -> keras.Model:
    """A Functional model over the layers of a Functional or Sequential one."""
    return keras.Model(model.inputs, model.outputs[0]) if isinstance(model, keras.Sequential) else model


def _is_graph(layer: Layer) -> bool:
    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))


def check_backbone(backbone: Any) -> None:
    """Raises a `ValueError` of one sentence unless the backbone is a graph of layers with one output."""
    if not isinstance(backbone, keras.Model) or not getattr(backbone, "inputs", None):
        name = getattr(backbone, "name", backbone)
        raise ValueError(
            "Invalid value for argument `backbone`. Expected a Functional or built Sequential model. "
            f"Received: {name!r} of {type(backbone).__name__}"
        )
    if len(backbone.outputs) != 1:
        raise ValueError(
            "Invalid value for argument `backbone`. Expected a model with one output, the features that heads read. "
            f"Received: {backbone.name!r} with {len(backbone.outputs)} outputs"
        )


def shared_layer(layer: Layer, normalization: str, options: dict[str, Any]) -> Layer:
    """What takes the place of a backbone's layer, with the layer's weights in every source.

    Convolutions, dense layers and batch normalisations get weights for all tasks; any other layer is kept as it is,
    one for all tasks.

    Args:
        layer: A layer of the backbone.
        normalization: `"task"` or `"shared"`.
        options: Arguments of `FilterSharing`.
    """
    config = layer.get_config()
    policy = {"dtype": layer.dtype_policy, "trainable": layer.trainable}
    plain_conv = type(layer) is keras.layers.Conv2D and layer.groups == 1 and layer.data_format == "channels_last"
    made: Layer
    if plain_conv or type(layer) is keras.layers.Dense:
        policy["activity_regularizer"] = layer.activity_regularizer
    if plain_conv:
        made = FilterSharingConv2D(**{key: config[key] for key in _OF_CONV}, **policy, **options)
    elif type(layer) is keras.layers.Dense:
        made = FilterSharingDense(**{key: config[key] for key in _OF_BOTH}, units=layer.units, **policy, **options)
    elif type(layer) is keras.layers.BatchNormalization and _normalizes_channels(layer):
        given = [f"{name}_{kind}" for name in ("beta", "gamma") for kind in ("regularizer", "constraint")]
        refused = [name for name in given if config[name] is not None]
        if refused:
            raise ValueError(
                f"Invalid value for argument `backbone`. Expected batch normalisations without {', '.join(refused)}. "
                f"Received: `{layer.name}`"
            )
        kept = ("name", "momentum", "epsilon", "center", "scale")
        counts = {key: options[key] for key in ("num_tasks", "frozen_tasks")}
        made = TaskBatchNormalization(
            **{key: config[key] for key in kept}, **policy, **counts, shared=normalization == "shared"
        )
    else:
        made = type(layer).from_config(config)
        if options["frozen_tasks"]:
            made.trainable = False
    if layer.built and layer.weights:
        _build_like(made, layer)
    return made


def _build_like(made: Layer, layer: Layer) -> None:
    if not made.built:
        made.build_from_config(layer.get_build_config())
    if isinstance(made, FilterSharing) and not isinstance(layer, FilterSharing):
        copies = [np.repeat(weight[None], made.num_sources, axis=0) for weight in layer.get_weights()]
        made.assign_sources(copies[0], copies[1] if made.biases is not None else None)
    elif isinstance(made, TaskBatchNormalization) and not isinstance(layer, TaskBatchNormalization):
        made.set_rows([np.repeat(weight[None], made.num_rows, axis=0) for weight in layer.get_weights()])
    else:
        copy_all_weights(layer, made)


def plain_layer(layer: Layer, made: Layer, task: int) -> Layer:
    """A plain Keras layer with one task's weights.

    Args:
        layer: The backbone's layer, without weights of its own.
        made: The layer in its place.
        task: Index of the task.
    """
    to_numpy = keras.ops.convert_to_numpy
    if isinstance(made, FilterSharing):
        plain = _without_sharing(layer, made)
        plain.build(_input_shape(made))
        kernel, bias = made.task_weights(task, training=False)
        plain.set_weights([to_numpy(kernel)] + ([] if bias is None else [to_numpy(bias)]))
        return plain
    if isinstance(made, TaskBatchNormalization):
        options = {key: getattr(made, key) for key in ("momentum", "epsilon", "center", "scale")}
        plain = keras.layers.BatchNormalization(**options, name=made.name, dtype=made.dtype_policy)
        plain.build(_input_shape(made))
        plain.set_weights([rows[0 if made.shared else task] for rows in made.get_rows()])
        return plain
    plain = type(made).from_config(made.get_config())
    if made.weights:
        plain.build_from_config(made.get_build_config())
        copy_all_weights(made, plain)
    return plain


def _without_sharing(layer: Layer, made: FilterSharing) -> Layer:
    if not isinstance(layer, FilterSharing):
        return type(layer).from_config(layer.get_config())
    config = made.get_config()
    if isinstance(made, FilterSharingConv2D):
        return keras.layers.Conv2D(**{key: config[key] for key in _OF_CONV}, dtype=made.dtype_policy)
    return keras.layers.Dense(**{key: config[key] for key in _OF_BOTH}, units=made.slots, dtype=made.dtype_policy)


def _input_shape(layer: Layer) -> Any:
    return layer.get_build_config()["input_shape"]


def _normalizes_channels(layer: Layer) -> bool:
    """Whether a batch normalisation works on the last axis."""
    return bool(layer.axis == -1 or layer.axis == len(_input_shape(layer)) - 1)
