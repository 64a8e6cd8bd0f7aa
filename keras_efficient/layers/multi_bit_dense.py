"""`MultiBitDense`: a dense layer whose weights are a few bits each."""

import random
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from keras_efficient.ops import multi_bit_dense
from keras_efficient.ops.bits import sketch_dense_kernel
from keras_efficient.ops.gated_conv_2d import ACTIVATIONS
from keras_efficient.ops.multi_bit_dense import float_kernel

Tensor = Any
Shape = Sequence[int | None]
DEFAULT_GROUP_SIZE = 64
MAX_BITS = 8


@keras.saving.register_keras_serializable(package="keras_efficient")
class MultiBitDense(keras.layers.Layer):
    """Dense layer with weights that are sums of scaled sign vectors, kept as packed bits.

        W[o, p] = sum_i scales[o, p, i] * signs[o, p, i]      # for the p-th group of inputs of output o
        y = act(x W^T + bias)

    Scales and bias train; the signs stay as they were sketched, here from a random kernel, or from a trained one:

    >>> head = MultiBitDense.from_dense(trained_dense, bits=2)

    The sketch is greedy: each new sign vector is the sign of what is left, then all scales are fitted anew by least
    squares. A layer stores `bits + 32 * bits / group_size` bits per weight, and is fast where the delegate runs its
    kernel; elsewhere it computes with unpacked floats.

    Args:
        units: Number of outputs.
        bits: Sign vectors per group, 1 to 8: the most bits that a weight has.
        group_size: Inputs that share their scales, a multiple of 8; default 64, or all inputs where there are fewer.
        activation: None, `"linear"`, `"relu"` or `"relu6"`.
        seed: Seed of the random kernel; default from Python's generator, which `keras.utils.set_random_seed` seeds.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, N]`.

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
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(units, bool) or not isinstance(units, int) or units < 1:
            raise ValueError(f"Invalid value for argument `units`. Expected a positive integer. Received: {units!r}")
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
            raise ValueError(
                f"Invalid value for argument `bits`. Expected an integer from 1 to {MAX_BITS}. Received: {bits!r}"
            )
        if group_size is not None and (not isinstance(group_size, int) or group_size < 8 or group_size % 8):
            raise ValueError(
                f"Invalid value for argument `group_size`. Expected a positive multiple of 8. Received: {group_size!r}"
            )
        if (activation or "linear") not in ACTIVATIONS:
            raise ValueError(
                f"Invalid value for argument `activation`. Expected None or one of {ACTIVATIONS}. "
                f"Received: {activation!r}"
            )
        self.units = units
        self.bits_per_weight = bits
        self.group_size = group_size
        self.activation = activation or "linear"
        self.seed = seed

    @classmethod
    def from_dense(cls, dense: keras.layers.Dense, bits: int = 2, group_size: int | None = None) -> "MultiBitDense":
        """A built layer that approximates a built `keras.layers.Dense` on inputs `[B, N]`, sketched from its kernel.

        Raises:
            ValueError: If `dense` is no built `Dense`, or its activation is not linear, ReLU or ReLU6.
        """
        if not isinstance(dense, keras.layers.Dense) or not dense.built:
            raise ValueError(
                f"Invalid value for argument `dense`. Expected a built `keras.layers.Dense`. Received: {dense!r}"
            )
        kernel = ops.convert_to_numpy(dense.kernel)
        activation = keras.activations.serialize(dense.activation)
        layer = cls(kernel.shape[1], bits, group_size, activation, name=dense.name, dtype=dense.dtype_policy)
        layer.build((None, kernel.shape[0]))
        layer.sketch(kernel)
        if dense.use_bias:
            layer.bias.assign(dense.bias)
        return layer

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                f"Invalid shape for argument `inputs`. Expected [batch, features]. Received: {tuple(input_shape)}"
            )
        inputs = int(input_shape[-1])
        self._inputs = inputs
        self._group_size = self.group_size or min(DEFAULT_GROUP_SIZE, -(-inputs // 8) * 8)
        generator = np.random.default_rng(random.randrange(2**31) if self.seed is None else self.seed)
        limit = np.sqrt(6.0 / (inputs + self.units))
        bits, scales = self._sketched(generator.uniform(-limit, limit, (inputs, self.units)))
        self.bits = self.add_weight(
            name="bits",
            shape=bits.shape,
            dtype="uint8",
            initializer=_Given(bits),
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )
        self.scales = self.add_weight(name="scales", shape=scales.shape, initializer=_Given(scales))
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def _sketched(self, kernel: NDArray[np.floating[Any]]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        return sketch_dense_kernel(kernel, self.bits_per_weight, self._group_size)

    def sketch(self, kernel: ArrayLike) -> None:
        """Sets bits and scales to approximate a float kernel `[N, units]`."""
        array = np.asarray(kernel)
        if not self.built or array.shape != (self._inputs, self.units):
            expected = f"shape {(self._inputs, self.units)}" if self.built else "a built layer"
            raise ValueError(f"Invalid value for argument `kernel`. Expected {expected}. Received: shape {array.shape}")
        bits, scales = self._sketched(array)
        self.bits.assign(bits)
        self.scales.assign(scales)

    def float_kernel(self) -> Tensor:
        """The float weights `[N, units]` that bits and scales stand for."""
        return ops.transpose(
            float_kernel(ops.convert_to_tensor(self.bits), self.scales, self._group_size, self._inputs)
        )

    def call(self, inputs: Tensor) -> Tensor:
        return multi_bit_dense(
            inputs,
            ops.convert_to_tensor(self.bits),
            ops.cast(self.scales, inputs.dtype),
            ops.cast(self.bias, inputs.dtype),
            group_size=self._group_size,
            activation=self.activation,
        )

    @property
    def num_weights(self) -> int:
        """Number of weights of the dense layer that this one stands for, `N * units`."""
        return self._inputs * self.units

    def stored_bytes(self) -> int:
        """Bytes of bits, scales and bias in an exported file."""
        return int(np.prod(self.bits.shape)) + 4 * int(np.prod(self.scales.shape)) + 4 * self.units

    @property
    def average_bits(self) -> float:
        """Mean number of sign vectors with a scale that is not 0 over the weights; scales and bias are not counted."""
        live = np.count_nonzero(ops.convert_to_numpy(self.scales), axis=-1)
        sizes = np.full(live.shape[1], self._group_size)
        sizes[-1] = self._inputs - self._group_size * (live.shape[1] - 1)
        return float((live * sizes).sum() / self.num_weights)

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        return (input_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "bits": self.bits_per_weight,
            "group_size": self.group_size,
            "activation": self.activation,
            "seed": self.seed,
        }


class _Given(keras.initializers.Initializer):
    """Starts a weight with a given array."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values

    def __call__(self, shape: Any, dtype: Any = None) -> Tensor:
        return ops.convert_to_tensor(self.values, dtype=dtype)
