"""What dense and convolutional multi-bit layers share: bases, their storage, and the state that training them needs."""

import random
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from keras_efficient import bases
from keras_efficient.layers.arrays import Given, array
from keras_efficient.ops import context
from keras_efficient.ops.bits import pack_codes, width_bits
from keras_efficient.ops.gated_conv_2d import ACTIVATIONS
from keras_efficient.ops.multi_bit_weights import quantized_inputs

Tensor = Any
MAX_ACTIVATION_BITS = 3
MOMENTS = ("mean", "square", "largest")


class MultiBitLayer(keras.layers.Layer):
    """Base of layers whose weights are sums of scaled sign vectors, kept in files as packed bits.

    A subclass calls `build_bases` in its `build` and computes with `current_kernel()` in its `call`.

    Args:
        bits: Sign vectors per group, 1 to 8: the most bits that a weight has.
        activation: Name of a Keras activation, or None.
        use_bias: Whether there is a bias.
        adaptive: Whether the layer holds the state that ALQ trains bases with (`quantization.quantize` sets it):
            bases then change in a `MultiBitModel` alone, and only the bias is trainable.
        activation_bits: Bits of the inputs, 1 to 3, or 0 for inputs as they are. Each input is rounded to the nearest
            of `2^activation_bits` levels, whose offset and scales follow the batches of training.
        seed: Seed of the random kernel; default from Python's generator, which `keras.utils.set_random_seed` seeds.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        codes: Weight `[R, n]` uint8, the signs of R = outputs x groups groups of n: bit i of an element is 1 where
            basis i has sign -1.
        scales: Weight `[R, bits]`; a basis with scale 0 does not count, is not stored and stays out for good.
        bias: Weight `[outputs]`, or None.
        levels: Weight `[1 + activation_bits]`, offset and scales of the inputs' levels; None without them.
    """

    levels_momentum = 0.9

    def __init__(
        self,
        *,
        bits: int,
        activation: str | None = None,
        use_bias: bool = True,
        adaptive: bool = False,
        activation_bits: int = 0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= bases.MAX_BASES:
            raise ValueError(
                f"Invalid value for argument `bits`. Expected an integer from 1 to {bases.MAX_BASES}. "
                f"Received: {bits!r}"
            )
        if isinstance(activation_bits, bool) or activation_bits not in range(MAX_ACTIVATION_BITS + 1):
            raise ValueError(
                "Invalid value for argument `activation_bits`. Expected 0 (inputs as they are) or an integer up to "
                f"{MAX_ACTIVATION_BITS}. Received: {activation_bits!r}"
            )
        self.max_bits = bits
        self.activation_bits = activation_bits
        self.activation = keras.activations.serialize(keras.activations.get(activation))
        self.use_bias = use_bias
        self.adaptive = adaptive
        self.seed = seed
        self.bias: Any = None
        self.levels: Any = None

    @property
    def fused_activation(self) -> str:
        """What the op does itself; other activations follow it."""
        return self.activation if self.activation in ACTIVATIONS else "linear"

    def build_bases(self, grouping: bases.Grouping) -> None:
        """Makes the weights, sketched from a random kernel."""
        self.grouping = grouping
        rows, size = grouping.num_groups, grouping.size
        generator = np.random.default_rng(random.randrange(2**31) if self.seed is None else self.seed)
        fans = grouping.num_weights * (1 / grouping.outputs + 1 / grouping.kernel_shape[-2])
        limit = np.sqrt(6.0 / fans)
        codes, scales = bases.sketched(generator.uniform(-limit, limit, (rows, size)), self.max_bits)
        self.codes = self._state("codes", (rows, size), "uint8", Given(codes))
        self.scales = self.add_weight(
            name="scales",
            shape=(rows, self.max_bits),
            initializer=Given(scales),
            trainable=not self.adaptive,
            autocast=False,
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(grouping.outputs,), initializer="zeros")
        if self.activation_bits:
            start = np.concatenate([[0.0], 0.5 ** np.arange(self.activation_bits)]).astype("float32")
            self.levels = self._state("levels", start.shape, initializer=Given(start))
            self.batches_seen = self._state("batches_seen", ())
        if self.adaptive:
            kernel = grouping.kernel(bases.reconstructed(ops.convert_to_tensor(codes), ops.convert_to_tensor(scales)))
            self.kernel = self._state("kernel", grouping.kernel_shape, initializer=Given(array(kernel)))
            self.latent = self._state("latent", (rows, size))
            self.weight_moments = [self._state(f"weight_{name}", (rows, size)) for name in MOMENTS]
            self.scale_moments = [self._state(f"scale_{name}", (rows, self.max_bits)) for name in MOMENTS]
            self.gradients_seen = self._state("gradients_seen", ())
            self.scale_gradients_seen = self._state("scale_gradients_seen", ())
        self.count_bases()

    def _state(self, name: str, shape: tuple[int, ...], dtype: str = "float32", initializer: Any = "zeros") -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer=initializer,
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def _after_change(self) -> None:
        """Brings what follows from codes and scales up to date."""
        self.count_bases()
        if self.adaptive:
            self.kernel.assign(self.float_kernel())

    def count_bases(self) -> None:
        """Notes up to which basis any group has live ones; steps compute no more."""
        self.live_bases = int(np.max(np.flatnonzero(array(self.scales).any(axis=0)), initial=-1)) + 1

    def sketch(self, kernel: ArrayLike) -> None:
        """Sets codes and scales to approximate a float kernel, in the layout that Keras has for this layer."""
        array = np.asarray(kernel)
        if not self.built or array.shape != self.grouping.kernel_shape:
            expected = f"shape {self.grouping.kernel_shape}" if self.built else "a built layer"
            raise ValueError(f"Invalid value for argument `kernel`. Expected {expected}. Received: shape {array.shape}")
        self.set_bases(*bases.sketched(ops.convert_to_numpy(self.grouping.rows(array)), self.max_bits))

    def set_bases(self, codes: NDArray[np.uint8], scales: NDArray[np.float32]) -> None:
        """Sets codes `[R, n]` and scales `[R, bits]`, sorted: live bases first, the largest scale first."""
        codes, scales, _ = bases.sorted_bases(codes, scales)
        self.codes.assign(codes)
        self.scales.assign(scales)
        self._after_change()

    def take_weights(self, other: "MultiBitLayer") -> None:
        """Takes bases, bias and levels over from a layer of the same groups, and nothing of its training."""
        for name, variable in self._plain_weights().items():
            if name == "bias" or self.activation_bits == other.activation_bits:
                variable.assign(array(getattr(other, name)))
        self.set_bases(array(other.codes), array(other.scales))

    def compact(self) -> None:
        """Sorts the bases of every group, live ones first and among them the largest scale first, moments with them."""
        codes, scales = array(self.codes), array(self.scales)
        if self.adaptive:
            order = bases.sorted_bases(codes, scales)[2]
            turned = np.take_along_axis(np.where(scales < 0, -1.0, 1.0), order, axis=1)
            for variable, sign in zip(self.scale_moments, (turned, 1.0, 1.0), strict=True):
                variable.assign(np.take_along_axis(array(variable), order, axis=1) * sign)
        self.set_bases(codes, scales)

    def float_kernel(self, max_bits: Tensor = None) -> Tensor:
        """The float weights that codes and scales stand for, in the layout that Keras has for this layer."""
        scales = self.scales.value
        live = ops.cast(ops.not_equal(scales, 0), scales.dtype)  # no gradient revives a basis
        if max_bits is not None:
            live = live * ops.cast(ops.arange(self.max_bits) < ops.min(ops.cast(max_bits, "int32")), scales.dtype)
        return self.grouping.kernel(bases.reconstructed(self.codes.value, scales * live))

    def current_kernel(self, max_bits: Tensor = None) -> Tensor:
        """The kernel that `call` computes with, in the dtype of its computations.

        `max_bits` (int32 `[1]` or `[B]`, the smallest holds) leaves out the bases behind it.
        """
        if max_bits is not None:
            return ops.cast(self.float_kernel(max_bits), self.compute_dtype)
        return ops.cast(self.kernel.value if self.adaptive else self.float_kernel(), self.compute_dtype)

    def quantized_inputs(self, inputs: Tensor, training: bool | None) -> Tensor:
        """The inputs at their levels. In training levels follow the batch, and gradients pass inside their range."""
        if not self.activation_bits:
            return inputs
        x = ops.cast(inputs, "float32")
        levels = self.levels.value
        if training:
            seen = ops.stop_gradient(x)
            first = ops.equal(self.batches_seen.value, 0.0)
            levels = ops.where(first, bases.first_levels(seen, self.activation_bits), levels)
            now = bases.fitted_levels(seen, levels)
            levels = ops.where(first, now, self.levels_momentum * levels + (1.0 - self.levels_momentum) * now)
            self.levels.assign(levels)
            self.batches_seen.assign(self.batches_seen.value + 1.0)
        reach = ops.sum(levels[1:])
        inside = ops.clip(x, levels[0] - reach, levels[0] + reach)
        nearest = quantized_inputs(x, levels, self.activation_bits)
        return ops.cast(inside + ops.stop_gradient(nearest - inside), inputs.dtype)

    def call_op(self, op: Any, inputs: Tensor, max_bits: Tensor, **attributes: Any) -> Tensor:
        """What an exported file holds: the op, with the bits of live bases packed."""
        grouping = self.grouping
        codes = array(self.codes).reshape(grouping.outputs, grouping.groups, grouping.size)
        packed, widest = pack_codes(codes, array(self.scales).reshape(*codes.shape[:2], self.max_bits))
        y = op(
            inputs,
            ops.full((1,), bases.MAX_BASES, "int32") if max_bits is None else ops.cast(max_bits, "int32"),
            *(ops.convert_to_tensor(stream) for stream in packed),
            ops.convert_to_tensor(self.levels) if self.activation_bits else ops.zeros((1,)),
            ops.convert_to_tensor(self.bias) if self.use_bias else ops.zeros((grouping.outputs,)),
            group_size=grouping.size,
            bases=widest,
            activation_bits=self.activation_bits,
            activation=self.fused_activation,
            **attributes,
        )
        return y if self.fused_activation == self.activation else keras.activations.get(self.activation)(y)

    def apply_kernel(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """The layer's product of inputs and a float kernel, without bias and activation. For subclasses to define."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `apply_kernel()`.")

    def macs(self, inputs_shape: Any) -> float:
        """Multiply-adds per sample of the layer that this one stands for. For subclasses to define."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `macs()`.")

    def _record(self, inputs: Tensor) -> None:
        if context.is_recording():
            macs = self.macs(tuple(inputs.shape))
            context.record(self.name, macs, ops.ones((1,)) * macs, by_op=True)

    def compute(self, inputs: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """What the layer stands for, in plain arithmetic with a float kernel."""
        sums = self.apply_kernel(inputs, kernel)
        if bias is not None:
            sums = sums + ops.cast(bias, sums.dtype)
        return keras.activations.get(self.activation)(sums)

    def widths(self) -> NDArray[np.uint8]:
        """Bases of each group, `[outputs, groups]`."""
        live = np.count_nonzero(array(self.scales), axis=1)
        return live.reshape(self.grouping.outputs, self.grouping.groups).astype("uint8")

    @property
    def num_weights(self) -> int:
        """Number of weights of the kernel that bases stand for."""
        return self.grouping.num_weights

    @property
    def average_bits(self) -> float:
        """Mean number of bases over the weights; scales and bias are not counted."""
        return float(self.widths().mean())

    def stored_bytes(self) -> float:
        """Bytes by ALQ's accounting: `n` bits and a float32 scale per basis, and a float32 bias."""
        live = float(self.widths().sum(dtype="int64"))
        return live * (self.grouping.size / 8 + 4) + (4 * self.grouping.outputs if self.use_bias else 0)

    @property
    def index_bytes(self) -> float:
        """Bytes that a file spends on the bit-width of every group, which the paper's accounting leaves out."""
        return self.grouping.num_groups * width_bits(int(self.widths().max(initial=0))) / 8

    def save_own_variables(self, store: Any) -> None:
        """Live bases alone, packed; bias and levels."""
        for name, values in bases.packed(array(self.codes), array(self.scales))._asdict().items():
            store[name] = values
        for name, variable in self._plain_weights().items():
            store[name] = array(variable)

    def load_own_variables(self, store: Any) -> None:
        """The inverse of `save_own_variables`; what training held beside is not in a file.

        Raises:
            ValueError: If the sizes in the file do not fit each other or this layer.
        """
        stored = bases.LiveBases(*(np.asarray(store[name]) for name in bases.LiveBases._fields))
        if stored.widths.shape != (self.grouping.num_groups,):
            raise ValueError(
                f"Invalid weights for layer `{self.name}`. Expected {self.grouping.num_groups} groups. "
                f"Received: {stored.widths.size}"
            )
        codes, scales = bases.unpacked(stored, self.grouping.size, self.max_bits)
        self.codes.assign(codes)
        self.scales.assign(scales)
        for name, variable in self._plain_weights().items():
            variable.assign(store[name])
        self._after_change()
        if self.adaptive:  # a step straight through starts from here
            self.latent.assign(self.grouping.rows(self.kernel))

    def _plain_weights(self) -> dict[str, Any]:
        names = ["bias"] * self.use_bias + ["levels", "batches_seen"] * bool(self.activation_bits)
        return {name: getattr(self, name) for name in names}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "bits": self.max_bits,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "adaptive": self.adaptive,
            "activation_bits": self.activation_bits,
            "seed": self.seed,
        }
