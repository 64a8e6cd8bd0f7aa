"""An op as a layer of its own, for checks and for trying an op out."""

from typing import Any

import keras
import numpy as np

from keras_efficient.ops import get_op

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_efficient")
class OpLayer(keras.layers.Layer):
    """Calls one op: activations and gates are the layer's inputs in order, weights its weights.

    Args:
        op_name: Name of a registered op.
        attributes: The op's attributes.
        weight_shapes: Shape of each weight argument, in order.
    """

    def __init__(self, op_name: str, attributes: dict[str, Any], weight_shapes: list[list[int]], **kwargs: Any):
        super().__init__(**kwargs)
        self.op_name = op_name
        self.attributes = dict(attributes)
        self.weight_shapes = [list(shape) for shape in weight_shapes]
        self.op = get_op(op_name)

    def build(self, input_shape: Any) -> None:
        """Makes a weight for each weight argument."""
        for argument, shape in zip(self.op.weights, self.weight_shapes, strict=True):
            trainable = argument.dtype == "float32" and argument.trained
            self.add_weight(
                shape=tuple(shape),
                dtype=argument.dtype,
                trainable=trainable,
                autocast=argument.dtype == "float32",
                initializer="zeros",
                name=argument.name,
            )

    def set_arrays(self, arrays: list[np.ndarray]) -> None:
        """Assigns the weights in the order of the op's arguments."""
        for name, array in zip([argument.name for argument in self.op.weights], arrays, strict=True):
            next(weight for weight in self.weights if weight.name == name).assign(array)

    def call(self, inputs: Any) -> Tensor:
        """The op on the inputs and the layer's weights."""
        tensors = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        by_name = {weight.name: weight for weight in self.weights}
        return self.op(
            *tensors, *(keras.ops.convert_to_tensor(by_name[a.name]) for a in self.op.weights), **self.attributes
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"op_name": self.op_name, "attributes": self.attributes, "weight_shapes": self.weight_shapes}
        return {**super().get_config(), **own}
