"""Cutting a Keras model at its exits into stages that share its layers."""

import difflib
from collections.abc import Sequence
from typing import Any

import keras

from keras_efficient.layers import EarlyExit

KerasTensor = Any
Operation = Any


def split_at_exits(model: keras.Model) -> tuple[list[keras.Model], list[EarlyExit]]:
    """Cuts a built Functional or Sequential model with one output at its `EarlyExit` layers.

    Returns:
        stages: `K` models. The first takes the model's inputs, every other one the features of the exit before it; the
            last one gives the model's output, the others the features of their exit.
        exits: The `K - 1` exits, in order.

    Raises:
        ValueError: If the model is neither Functional nor a built Sequential, has no exits or several outputs, or
            cannot be cut because a layer behind an exit reads something from before it.
    """
    _check_model(model)
    marks = [node for node in nodes_before(model.outputs[0], []) if isinstance(node.operation, EarlyExit)]
    _check_exits(model, marks)
    cuts = [(mark.operation.name, mark.input_tensors[0], mark.outputs[0]) for mark in marks]
    return _stages(model, cuts), [mark.operation for mark in marks]


def split_at(model: keras.Model, names: Sequence[str]) -> list[keras.Model]:
    """Cuts a built Functional or Sequential model with one output behind the layers of those names.

    Returns:
        One model more than names, as `split_at_exits` gives them.

    Raises:
        ValueError: As for `split_at_exits`; if there are no names, or one is no layer's or used more than once; or if
            they are not in the order of the network.
    """
    _check_model(model)
    _check_ends_in_logits(model)
    nodes = nodes_before(model.outputs[0], [])
    cuts = []
    for name in names:
        found = [node for node in nodes if node.operation.name == name]
        if len(found) != 1 or len(found[0].outputs) != 1 or not found[0].input_tensors:
            known = [node.operation.name for node in nodes if node.input_tensors]
            near = difflib.get_close_matches(name, known, 3) or known[:5]
            raise ValueError(
                f"Invalid value for argument `exits`. Expected names of layers of `{model.name}` that are used once, "
                f"such as {near}. Received: {name!r}"
            )
        cuts.append((name, found[0].outputs[0], found[0].outputs[0]))
    if not cuts:
        raise ValueError("Invalid value for argument `exits`. Expected at least one name of a layer. Received: none")
    order = [[node.operation.name for node in nodes].index(name) for name in names]
    if order != sorted(set(order)):
        raise ValueError(
            "Invalid value for argument `exits`. Expected different layers from the first to the last. "
            f"Received: {list(names)}"
        )
    return _stages(model, cuts)


def _stages(model: keras.Model, cuts: list[tuple[str, KerasTensor, KerasTensor]]) -> list[keras.Model]:
    """The models between cuts: `(name, last tensor before, first tensor behind)`."""
    inputs = list(model.inputs)
    starts = [inputs, *([start] for _, _, start in cuts)]
    ends = [*(end for _, end, _ in cuts), model.outputs[0]]
    stages = []
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if k > 0:
            _check_cut(model, cuts[k - 1][0], start[0], end)
        stages.append(keras.Model(start[0] if len(start) == 1 else start, end, name=f"stage_{k + 1}"))
    _check_sharing(model, stages)
    return stages


def _check_model(model: keras.Model) -> None:
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


def node_of(tensor: KerasTensor) -> Any:
    """The call of a layer that made a symbolic tensor."""
    operation, node_index, _ = tensor._keras_history
    return operation._inbound_nodes[node_index]


def nodes_before(tensor: KerasTensor, stop: list[KerasTensor]) -> list[Any]:
    """All calls that `tensor` depends on, inputs first, not going behind the tensors in `stop`."""
    ordered: list[Any] = []
    seen: set[int] = set()
    stack = [(tensor, False)]
    while stack:
        current, expanded = stack.pop()
        node = node_of(current)
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
    _check_ends_in_logits(model)


def _check_ends_in_logits(model: keras.Model) -> None:
    last = node_of(model.outputs[0]).operation
    if len(model.outputs[0].shape) != 2:
        raise ValueError(
            "Invalid value for argument `model`. Expected logits [batch, classes] as output. "
            f"Received: shape {tuple(model.outputs[0].shape)}"
        )
    if isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax:
        raise ValueError(
            "Invalid value for argument `model`. Expected logits as output, like those of the exits (and a loss with "
            f"`from_logits=True`). Received: a softmax at layer `{last.name}`"
        )


def _check_cut(model: keras.Model, exit_name: str, start: KerasTensor, end: KerasTensor) -> None:
    before = {id(node) for node in nodes_before(start, [])}
    inside = nodes_before(end, [start])
    if not inside:
        raise ValueError(f"Cannot cut model `{model.name}` at exit `{exit_name}`: nothing is computed behind it")
    for node in inside:
        if id(node) in before:
            continue
        for tensor in node.input_tensors:
            if tensor is not start and id(node_of(tensor)) in before:
                raise ValueError(
                    f"Cannot cut model `{model.name}` at exit `{exit_name}`: layer `{node.operation.name}` behind it "
                    f"reads `{node_of(tensor).operation.name}` from before it"
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
