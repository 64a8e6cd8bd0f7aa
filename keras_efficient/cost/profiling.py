"""`profile`: what a model costs, per layer and in all."""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_efficient.cost.counting import Seen, watching
from keras_efficient.cost.inputs import batches, zero_inputs
from keras_efficient.cost.observe import paths, sublayers
from keras_efficient.cost.storage import own_weights, stored_bytes
from keras_efficient.cost.table import render
from keras_efficient.ops import context

MATRIX_OPERATIONS = {"Conv", "ConvTranspose", "DepthwiseConv", "Dot", "Einsum", "Inner", "Matmul", "SeparableConv"}
MATRIX_OPERATIONS |= {"DotProductAttention", "Outer", "Tensordot", "Vdot"}


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """What one layer costs, layers inside it left out.

    Attributes:
        name: Names from the model down to the layer, joined by `/`.
        class_name: The layer's class.
        calls: How often one pass of the model calls it.
        macs: Multiply-adds per sample with every gate open and no exit taken.
        expected_macs: Mean multiply-adds per sample that the data really needed, None where that is not known.
        parameters: Number of weights.
        bytes: Bytes of the weights as stored.
        activation_bytes: Bytes per sample that the layer returns.
        counted: False for a layer with a weight matrix whose use is not known; its `macs` are 0.
    """

    name: str
    class_name: str
    calls: int
    macs: float
    expected_macs: float | None
    parameters: int
    bytes: float
    activation_bytes: float
    counted: bool = True


@dataclasses.dataclass(frozen=True)
class Profile:
    """What a model costs.

    Attributes:
        model: The model's name.
        layers: One `LayerCost` per layer, in the order in which they run.
        samples: Number of samples that `expected_macs` is a mean over, 0 for a profile without data.
        uncounted: Names of layers and operations that multiply matrices in a way that is not known here.
    """

    model: str
    layers: tuple[LayerCost, ...]
    samples: int
    uncounted: tuple[str, ...]

    @property
    def macs(self) -> float:
        """Multiply-adds per sample with every gate open and no exit taken."""
        return sum(layer.macs for layer in self.layers)

    @property
    def expected_macs(self) -> float | None:
        """Mean multiply-adds per sample of the data.

        Without data: `macs`, or None for a network that decides per input what it computes.
        """
        values = [layer.expected_macs for layer in self.layers]
        return None if None in values else float(sum(value for value in values if value is not None))

    @property
    def parameters(self) -> int:
        """Number of weights, moving statistics included."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def bytes(self) -> float:
        """Bytes of all weights as stored."""
        return sum(layer.bytes for layer in self.layers)

    def table(self) -> str:
        """A table for people, one row per layer that computes or stores something."""
        return render(self)


def profile(model: keras.Model, data: Any = None, *, batch_size: int = 32) -> Profile:
    """Counts multiply-adds (MACs), parameters and bytes of a built model, builtin Keras layers included.

    The model runs in inference with hard decisions, everything computed ("masked"): once on zeros, or over `data`.
    One MAC is one multiplication with its addition; elementwise work counts nothing, nor do batch normalisations, which
    fold into the convolution before them.

    ```python
    report = keras_efficient.cost.profile(model, x_validation)
    print(report.table())
    print(report.expected_macs / report.macs)
    ```

    Args:
        model: Built Keras model: Sequential, Functional or subclassed; models inside models and shared layers too.
        data: Inputs `[N, ...]` in the structure that the model takes, for `expected_macs`.
        batch_size: Samples at a time.

    Returns:
        A `Profile`. A layer that is used twice counts its MACs twice and its parameters once.

    Raises:
        ValueError: If the model is not built, its input shapes are unknown or dynamic and there is no `data`, or the
            data do not fit.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"Invalid value for argument `model`. Expected a keras.Model. Received: {model!r}")
    if not model.built:
        raise ValueError(
            f"Invalid value for argument `model`. Expected a built model. Received: {model.name!r}, not built yet"
        )
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(
            f"Invalid value for argument `batch_size`. Expected a positive integer. Received: {batch_size!r}"
        )
    if data is None:
        # Two samples: what differs between inputs shows itself by one number per sample.
        seen = _trace(model, zero_inputs(model, 2))
        expected = {layer: _static_macs(layer_seen) for layer, layer_seen in seen.items()}
        return _assemble(model, seen, expected, samples=0)
    samples = 0
    sums: dict[Any, float] = {}
    for inputs, size in batches(model, data, batch_size):
        seen = _run(model, inputs)
        samples += size
        for layer, layer_seen in seen.items():
            sums[layer] = sums.get(layer, 0.0) + size * _mean_macs(layer_seen)
    return _assemble(model, seen, {layer: total / samples for layer, total in sums.items()}, samples)


def _run(model: keras.Model, inputs: Any) -> dict[Any, Seen]:
    with context.recording(), watching(model) as seen:
        model(inputs, training=False)
    return seen


def _trace(model: keras.Model, zeros: Any) -> dict[Any, Seen]:
    """As `_run` where only shapes matter: JAX would compile every single operation to run it on zeros."""
    if keras.backend.backend() != "jax":
        return _run(model, zeros)
    import jax

    seen: dict[Any, Seen] = {}
    with keras.StatelessScope():  # what the model assigns stays in there
        jax.eval_shape(lambda inputs: seen.update(_run(model, inputs)), zeros)
    return seen


def _mean_macs(seen: Seen) -> float:
    return sum(float(np.mean(keras.ops.convert_to_numpy(event.executed), dtype="float64")) for event in seen.events)


def _static_macs(seen: Seen) -> float | None:
    if any(event.executed.shape[0] > 1 for event in seen.events):
        return None
    return sum(event.dense for event in seen.events)


def _assemble(model: keras.Model, seen: dict[Any, Seen], expected: dict[Any, float | None], samples: int) -> Profile:
    rows = []
    counted_weights: set[int] = set()
    not_called = {layer: Seen(path) for layer, path in paths(model).items() if layer not in seen}
    for layer, did in {**seen, **not_called}.items():
        weights = [weight for weight in own_weights(layer) if id(weight) not in counted_weights]
        counted_weights.update(id(weight) for weight in weights)
        rows.append(
            LayerCost(
                name=did.path,
                class_name=type(layer).__name__,
                calls=did.calls,
                macs=sum(event.dense for event in did.events),
                expected_macs=expected.get(layer, 0.0),
                parameters=sum(int(np.prod(weight.shape)) for weight in weights),
                bytes=stored_bytes(layer, weights),
                activation_bytes=did.output_bytes,
                counted=not did.uncounted,
            )
        )
    uncounted = [row.name for row in rows if not row.counted] + _uncounted_operations(model)
    return Profile(model.name, tuple(rows), samples, tuple(uncounted))


def _uncounted_operations(model: keras.Model) -> list[str]:
    """Products that a functional graph writes with `keras.ops` instead of a layer."""
    names = []
    for part in [model, *sublayers(model)]:
        for operation in getattr(part, "operations", None) or []:
            if not isinstance(operation, keras.layers.Layer) and type(operation).__name__ in MATRIX_OPERATIONS:
                names.append(operation.name)
    return names
