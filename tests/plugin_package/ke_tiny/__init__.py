"""`tiny.gated_scale`: y = g * min(x * scale + shift, ceiling), with a kernel that skips shut features."""

import dataclasses
import pathlib

import keras
import numpy as np
from keras import ops

import keras_efficient
from keras_efficient.ops import Argument, Attributes, Cost, Op, attribute


@dataclasses.dataclass(frozen=True)
class GatedScaleAttributes(Attributes):
    """`ceiling` bounds the output from above."""

    ceiling: float = attribute(1.0, minimum=0.0, maximum=1e6)


def reference(x, gate, scale, shift, *, ceiling):
    """`x [B, N]`, `gate [B, N]`, `scale [N]`, `shift [N]`."""
    return gate * ops.minimum(x * scale + shift, ceiling)


def cost(shapes, attributes, open_counts=None):
    """One multiply-add per open feature."""
    features = shapes[0][1]
    return Cost(1.0 * (open_counts[0] if open_counts else features), 8.0 * features)


def example(rng):
    """A random valid call."""
    batch, features = int(rng.integers(1, 4)), int(rng.integers(1, 30))
    arrays = [rng.normal(size=(batch, features)), rng.integers(0, 2, (batch, features))]
    arrays += [rng.normal(size=features), rng.normal(size=features)]
    return [np.asarray(array, "float32") for array in arrays], {"ceiling": float(rng.uniform(0.1, 2))}


gated_scale = Op(
    name="tiny.gated_scale",
    version=1,
    arguments=(
        Argument("x", "activation", 2),
        Argument("gate", "gate", 2),
        Argument("scale", "weight", 1),
        Argument("shift", "weight", 1),
    ),
    attributes=GatedScaleAttributes,
    reference=reference,
    output_shape=lambda shapes, attributes: shapes[0],
    cost=cost,
    example=example,
    library=str(pathlib.Path(__file__).parent / "libke_tiny.so"),
)


def register():
    """Called through the entry point `keras_efficient.plugins`."""
    keras_efficient.register_op(gated_scale)


@keras.saving.register_keras_serializable(package="ke_tiny")
class GatedScale(keras.layers.Layer):
    """Scales and shifts positive features, skips the others."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")
        self.shift = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="shift")

    def call(self, x):
        gate = ops.cast(x > 0, x.dtype)
        return gated_scale(x, gate, ops.convert_to_tensor(self.scale), ops.convert_to_tensor(self.shift), ceiling=5.0)
