"""Cutting a Keras model at its `EarlyExit` layers into stages that share its layers."""

from typing import Any

import keras

from keras_efficient.layers import EarlyExit

KerasTensor = Any
Operation = Any


def split_at_exits(model: keras.Model) -> tuple[list[keras.Model], list[EarlyExit]]:
    """Cuts a built Functional or Sequential model with one output.

    Returns:
        stages: `K` models. The first takes the model's inputs, every other one the features of the exit before it; the
            last one gives the model's output, the others the features of their exit.
        exits: The `K - 1` exits, in order.

    Raises:
        ValueError: If the model is neither Functional nor a built Sequential, has no exits or several outputs, or
            cannot be cut because a layer behind an exit reads something from before it.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"Invalid value for argument `model`. Expected a Keras model. Received: {model!r}")
    if not model.built:
        raise ValueError(
            f"Invalid value for argument `model`. Expected a built model. Received: `{model.name}`, not built yet"
        )
    outputs = getattr(model, "outputs", None)
    if not outputs:
        raise ValueError(
            "Invalid value for argument `model`. Expected a Functional or Sequential model, whose layers can be taken "
            f"apart. Received: `{model.name}` of {type(model).__name__}"
        )
    if len(outputs) != 1:
        raise ValueError(
            f"Invalid value for argument `model`. Expected one output, the logits of the last exit. "
            f"Received: {len(outputs)}"
        )
    inputs = list(model.inputs)
    nodes = _nodes_before(outputs[0], [])
    marks = [node for node in nodes if isinstance(node.operation, EarlyExit)]
    _check_exits(model, marks)
    starts = [inputs, *([mark.outputs[0]] for mark in marks)]
    ends = [*(mark.input_tensors[0] for mark in marks), outputs[0]]
    names = [mark.operation.name for mark in marks]
    stages = []
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if k > 0:
            _check_cut(model, names[k - 1], start[0], end)
        stages.append(keras.Model(start[0] if len(start) == 1 else start, end, name=f"stage_{k + 1}"))
    _check_sharing(model, stages)
    return stages, [mark.operation for mark in marks]


def _node(tensor: KerasTensor) -> Any:
    """The call of a layer that made a symbolic tensor."""
    operation, node_index, _ = tensor._keras_history
    return operation._inbound_nodes[node_index]


def _nodes_before(tensor: KerasTensor, stop: list[KerasTensor]) -> list[Any]:
    """All calls that `tensor` depends on, inputs first, not going behind the tensors in `stop`."""
    ordered: list[Any] = []
    seen: set[int] = set()
    stack = [(tensor, False)]
    while stack:
        current, expanded = stack.pop()
        node = _node(current)
        if expanded:
            ordered.append(node)
        elif id(node) not in seen and not any(current is other for other in stop):
            seen.add(id(node))
            stack.append((current, True))
            stack.extend((parent, False) for parent in reversed(node.input_tensors))
    return ordered


def _check_exits(model: keras.Model, marks: list[Any]) -> None:
    if not marks:
        nested = [layer.name for layer in model.layers if isinstance(layer, keras.Model)]
        hint = f" (exits inside nested models such as `{nested[0]}` do not count)" if nested else ""
        raise ValueError(
            f"Invalid value for argument `model`. Expected at least one `EarlyExit` layer{hint}. "
            f"Received: `{model.name}` without one"
        )
    operations = [mark.operation for mark in marks]
    for operation in operations:
        if operations.count(operation) > 1:
            raise ValueError(f"Cannot cut model `{model.name}`: exit `{operation.name}` is used more than once")
    classes = model.outputs[0].shape[-1]
    for operation in operations:
        if len(model.outputs[0].shape) != 2 or operation.num_classes != classes:
            raise ValueError(
                f"Invalid value for argument `model`. Expected an output of shape [batch, {operation.num_classes}], "
                f"like exit `{operation.name}`. Received: {tuple(model.outputs[0].shape)}"
            )
    last = _node(model.outputs[0]).operation
    if isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax:
        raise ValueError(
            "Invalid value for argument `model`. Expected logits as output, like those of the exits (and a loss with "
            f"`from_logits=True`). Received: a softmax at layer `{last.name}`"
        )


def _check_cut(model: keras.Model, exit_name: str, start: KerasTensor, end: KerasTensor) -> None:
    before = {id(node) for node in _nodes_before(start, [])}
    inside = _nodes_before(end, [start])
    if not inside:
        raise ValueError(f"Cannot cut model `{model.name}` at exit `{exit_name}`: nothing is computed behind it")
    for node in inside:
        if id(node) in before:
            continue
        for tensor in node.input_tensors:
            if tensor is not start and id(_node(tensor)) in before:
                raise ValueError(
                    f"Cannot cut model `{model.name}` at exit `{exit_name}`: layer `{node.operation.name}` behind it "
                    f"reads `{_node(tensor).operation.name}` from before it"
                )
        if not node.input_tensors:
            raise ValueError(
                f"Cannot cut model `{model.name}` at exit `{exit_name}`: input `{node.operation.name}` is read "
                "behind it"
            )


def _check_sharing(model: keras.Model, stages: list[keras.Model]) -> None:
    seen: dict[int, str] = {}
    for stage in stages:
        for layer in stage.layers:
            if isinstance(layer, keras.layers.InputLayer):
                continue
            if id(layer) in seen:
                raise ValueError(
                    f"Cannot cut model `{model.name}`: layer `{layer.name}` is used in {seen[id(layer)]} and again in "
                    f"{stage.name}"
                )
            seen[id(layer)] = stage.name
