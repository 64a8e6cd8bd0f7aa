"""What becomes a signature of a file: its key, its inputs and the function that it computes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

Tensor = Any


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input: its name in the signature, shape with the batch in front, and dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Signature:
    """One signature of a file.

    Attributes:
        key: Its name in the file.
        specs: Its inputs.
        function: Takes tensors in the order of `specs`, returns outputs by name. Traced under `ops.skipping()` where
            `skips`, so that gates and exits become IF branches.
        skips: False where everything must be computed, as on accelerators without branches.
        known_macs: Multiply-adds of builtin ops and of ours with everything open, where the exit taken tells what ran,
            so that the file need not count; None where tracing finds out, and branches count what they executed.
    """

    key: str
    specs: tuple[InputSpec, ...]
    function: Callable[..., dict[str, Tensor]]
    skips: bool = True
    known_macs: tuple[float, float] | None = None


def input_specs(model: keras.Model, batch_size: int | None) -> list[InputSpec]:
    """The inputs of a built model, with `batch_size` in front.

    Raises:
        ValueError: If the model is not built, or a dimension other than the batch is dynamic.
    """
    if not model.built:
        raise ValueError(
            f"Invalid value for argument `model`. Expected a built model. Received: {model.name!r}, not built yet"
        )
    inputs = getattr(model, "inputs", None)
    if inputs:
        tensors = [(t.name, tuple(t.shape), keras.backend.standardize_dtype(t.dtype)) for t in inputs]
    else:
        config = model.get_build_config() or {}
        shape = config.get("input_shape")
        if shape is None or any(isinstance(size, (list, tuple, dict)) for size in shape):
            raise ValueError(
                "Invalid value for argument `model`. Expected a model whose input shapes are known (Sequential, "
                f"Functional, or built on one tensor). Received: {model.name!r} with build configuration {config}"
            )
        tensors = [("input", tuple(shape), "float32")]
    specs = []
    for name, shape, dtype in tensors:
        if any(size is None for size in shape[1:]):
            raise ValueError(
                "Invalid value for argument `model`. Expected static dimensions behind the batch (gated ops and "
                f".tflite files need them). Received: input {name!r} of shape {shape}"
            )
        specs.append(InputSpec(name, (batch_size, *shape[1:]), dtype))
    return specs


def named_outputs(model: keras.Model, outputs: Any) -> dict[str, Tensor]:
    """A model's outputs by name: a dictionary's keys, the names of several outputs, or `"output"` for a single one."""
    if isinstance(outputs, dict):
        return dict(outputs)
    if isinstance(outputs, (list, tuple)):
        names = getattr(model, "output_names", None) or []
        if len(names) != len(outputs) or len(set(names)) != len(names):
            names = [f"output_{index}" for index in range(len(outputs))]
        return dict(zip(names, outputs, strict=True))
    return {"output": outputs}


def model_inputs(model: keras.Model, specs: Sequence[InputSpec], tensors: Sequence[Tensor]) -> Any:
    """Tensors in the order of `specs` in the structure that the model takes."""
    if len(tensors) == 1:
        return tensors[0]
    if isinstance(getattr(model, "input", None), dict):
        return {spec.name: tensor for spec, tensor in zip(specs, tensors, strict=True)}
    return list(tensors)


def call_model(
    model: keras.Model, specs: Sequence[InputSpec], tensors: Sequence[Tensor], **arguments: Tensor
) -> dict[str, Tensor]:
    """The model in inference on tensors in the order of `specs`, outputs by name; `arguments` go to its `call`."""
    return named_outputs(model, model(model_inputs(model, specs, tensors), training=False, **arguments))


def whole_model(model: keras.Model, specs: Sequence[InputSpec], key: str) -> Signature:
    """The signature of a model's own inference."""
    return Signature(key, tuple(specs), lambda *tensors: call_model(model, specs, tensors))
