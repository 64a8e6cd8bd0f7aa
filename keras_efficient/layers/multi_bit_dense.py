"""`MultiBitDense`: a dense layer whose weights are a few bits each."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient import bases
from keras_efficient.layers.multi_bit_layer import MultiBitLayer
from keras_efficient.ops import context, multi_bit_dense
from keras_efficient.ops.macs import dense_macs

Tensor = Any
Shape = Sequence[int | None]


@keras.saving.register_keras_serializable(package="keras_efficient")
class MultiBitDense(MultiBitLayer):
    """Dense layer with weights that are sums of scaled sign vectors, kept in files as packed bits.

        W[o, p] = sum_i scales[o, p, i] * signs[o, p, i]      # for the p-th group of inputs of output o
        y = act(x W^T + bias)

    Scales and bias train; the signs stay as they were sketched, here from a random kernel, or from a trained one:

    >>> head = MultiBitDense.from_dense(trained_dense, bits=2)

    The sketch is greedy: each new sign vector is the sign of what is left, then all scales are fitted anew by least
    squares. To train signs too and to spend bits where the loss wants them, see `quantization.quantize`. A layer stores
    `bits + 32 * bits / group_size` bits per weight, and is fast where the delegate runs its kernel; elsewhere it
    computes with unpacked floats.

    Args:
        units: Number of outputs.
        bits: Sign vectors per group, 1 to 8: the most bits that a weight has.
        group_size: Inputs that share their scales, a divisor of the number of inputs; default the largest in
            [32, 64], else the smallest above.
        activation: Name of a Keras activation, or None.
        use_bias: Whether there is a bias.
        adaptive: Whether the layer holds the state that ALQ trains bases with; `quantization.quantize` sets it.
        activation_bits: Bits of the inputs, 1 to 3, or 0 for inputs as they are; see
            `quantization.quantize_activations`.
        seed: Seed of the random kernel; default from Python's generator, which `keras.utils.set_random_seed` seeds.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, N]`.
        max_bits: int32 `[1]` or `[B]`: bases of each group to compute with, the first ones; default all.
        training: Whether levels of multi-bit inputs follow the batch.

    Returns:
        `[B, units]`.

    Reference: Qu et al., "Adaptive Loss-aware Quantization for Multi-bit Networks", CVPR 2020.
    """

    def __init__(
        self,
        units: int,
        bits: int = 2,
        group_size: int | None = None,
        activation: str | None = None,
        use_bias: bool = True,
        adaptive: bool = False,
        activation_bits: int = 0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            bits=bits,
            activation=activation,
            use_bias=use_bias,
            adaptive=adaptive,
            activation_bits=activation_bits,
            seed=seed,
            **kwargs,
        )
        if isinstance(units, bool) or not isinstance(units, int) or units < 1:
            raise ValueError(f"Invalid value for argument `units`. Expected a positive integer. Received: {units!r}")
        if group_size is not None and (
            isinstance(group_size, bool) or not isinstance(group_size, int) or group_size < 1
        ):
            raise ValueError(
                f"Invalid value for argument `group_size`. Expected a positive integer. Received: {group_size!r}"
            )
        self.units = units
        self.group_size = group_size

    @classmethod
    def from_dense(
        cls, dense: keras.layers.Dense, bits: int = 2, group_size: int | None = None, adaptive: bool = False
    ) -> "MultiBitDense":
        """A built layer that approximates a built `keras.layers.Dense` on inputs `[B, N]`, sketched from its kernel.

        Raises:
            ValueError: If `dense` is no built `Dense`, or `group_size` does not divide its inputs.
        """
        if not isinstance(dense, keras.layers.Dense) or not dense.built:
            raise ValueError(
                f"Invalid value for argument `dense`. Expected a built `keras.layers.Dense`. Received: {dense!r}"
            )
        kernel = np.asarray(ops.convert_to_numpy(dense.kernel))
        layer = cls(
            kernel.shape[1],
            bits,
            group_size,
            dense.activation,
            use_bias=dense.use_bias,
            adaptive=adaptive,
            name=dense.name,
            dtype=dense.dtype_policy,
            trainable=dense.trainable,
            activity_regularizer=dense.activity_regularizer,
        )
        layer.build((None, kernel.shape[0]))
        layer.sketch(kernel)
        if dense.use_bias:
            layer.bias.assign(ops.convert_to_numpy(dense.bias))  # on JAX a shared array would be lost in training
        return layer

    def build(self, inputs_shape: Shape, max_bits_shape: Shape | None = None) -> None:
        if len(inputs_shape) != 2 or inputs_shape[-1] is None:
            raise ValueError(
                f"Invalid shape for argument `inputs`. Expected [batch, features]. Received: {tuple(inputs_shape)}"
            )
        self.build_bases(bases.dense_grouping(int(inputs_shape[-1]), self.units, self.group_size))

    def call(self, inputs: Tensor, max_bits: Tensor = None, training: bool | None = None) -> Tensor:
        if context.op_caller() is not None:
            return self.call_op(multi_bit_dense, inputs, max_bits)
        self._record(inputs)
        return self.compute(self.quantized_inputs(inputs, training), self.current_kernel(max_bits), self.bias)

    def macs(self, inputs_shape: Shape) -> float:
        return float(dense_macs(int(inputs_shape[-1] or 0), self.units))

    def apply_kernel(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return ops.matmul(inputs, kernel)

    def compute_output_shape(self, inputs_shape: Shape, max_bits_shape: Shape | None = None) -> tuple[int | None, ...]:
        return (inputs_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "group_size": self.group_size}
