"""`MultiBitConv2D`: a convolution whose weights are a few bits each."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient import bases
from keras_efficient.layers.multi_bit_layer import MultiBitLayer
from keras_efficient.ops import context, multi_bit_conv_2d
from keras_efficient.ops.gated_conv_2d import PADDINGS
from keras_efficient.ops.macs import conv_macs, conv_output_length

Tensor = Any
Shape = Sequence[int | None]


@keras.saving.register_keras_serializable(package="keras_efficient")
class MultiBitConv2D(MultiBitLayer):
    """2D convolution with weights that are sums of scaled sign vectors, kept in files as packed bits.

        W[o, g] = sum_i scales[o, g, i] * signs[o, g, i]      # for group g of filter o
        y = act(conv(x, W) + bias)

    Scales and bias train; signs stay as they were sketched, as in `MultiBitDense`.

    Args:
        filters: Number of output channels.
        kernel_size: One integer or two.
        bits: Sign vectors per group, 1 to 8: the most bits that a weight has.
        groups: What shares its scales: `"pixelwise"` (the input channels at one position of the kernel),
            `"kernelwise"` (the positions of one input channel) or `"channelwise"` (a whole filter).
        strides: One integer or two.
        padding: `"valid"` or `"same"`.
        dilation_rate: One integer or two; strides must be 1 where it is not 1.
        activation: Name of a Keras activation, or None.
        use_bias: Whether there is a bias.
        adaptive: Whether the layer holds the state that ALQ trains bases with; `quantization.quantize` sets it.
        activation_bits: Bits of the inputs, 1 to 3, or 0 for inputs as they are; see
            `quantization.quantize_activations`.
        seed: Seed of the random kernel; default from Python's generator, which `keras.utils.set_random_seed` seeds.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, H, W, C]`, channels last.
        max_bits: int32 `[1]` or `[B]`: bases of each group to compute with, the first ones; default all.
        training: Whether levels of multi-bit inputs follow the batch.

    Returns:
        `[B, H', W', filters]`.

    Reference: Qu et al., "Adaptive Loss-aware Quantization for Multi-bit Networks", CVPR 2020.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        bits: int = 2,
        groups: str = "pixelwise",
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        dilation_rate: int | Sequence[int] = 1,
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
        if isinstance(filters, bool) or not isinstance(filters, int) or filters < 1:
            raise ValueError(
                f"Invalid value for argument `filters`. Expected a positive integer. Received: {filters!r}"
            )
        if padding not in PADDINGS:
            raise ValueError(f"Invalid value for argument `padding`. Expected 'valid' or 'same'. Received: {padding!r}")
        self.filters = filters
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.strides = _pair("strides", strides)
        self.dilation_rate = _pair("dilation_rate", dilation_rate)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "Invalid value for argument `dilation_rate`. Expected 1 where strides are not 1. "
                f"Received: {dilation_rate!r} with strides {strides!r}"
            )
        bases.conv_grouping((*self.kernel_size, 1, filters), groups)  # refuses a structure that there is not
        self.groups = groups
        self.padding = padding

    @classmethod
    def from_conv(
        cls, conv: keras.layers.Conv2D, bits: int = 2, groups: str = "pixelwise", adaptive: bool = False
    ) -> "MultiBitConv2D":
        """A built layer that approximates a built `keras.layers.Conv2D`, sketched from its kernel.

        Raises:
            ValueError: If `conv` is no built `Conv2D`, has its channels first, or convolves in groups of channels.
        """
        if type(conv) is not keras.layers.Conv2D or not conv.built:
            raise ValueError(
                f"Invalid value for argument `conv`. Expected a built `keras.layers.Conv2D`. Received: {conv!r}"
            )
        if conv.data_format != "channels_last" or conv.groups != 1:
            raise ValueError(
                "Invalid value for argument `conv`. Expected channels last and `groups=1`. Received: "
                f"{conv.data_format!r} and groups={conv.groups}"
            )
        kernel = np.asarray(ops.convert_to_numpy(conv.kernel))
        layer = cls(
            conv.filters,
            conv.kernel_size,
            bits,
            groups,
            conv.strides,
            conv.padding,
            conv.dilation_rate,
            conv.activation,
            use_bias=conv.use_bias,
            adaptive=adaptive,
            name=conv.name,
            dtype=conv.dtype_policy,
            trainable=conv.trainable,
            activity_regularizer=conv.activity_regularizer,
        )
        layer.build((None, None, None, kernel.shape[2]))
        layer.sketch(kernel)
        if conv.use_bias:
            layer.bias.assign(ops.convert_to_numpy(conv.bias))  # on JAX a shared array would be lost in training
        return layer

    def build(self, inputs_shape: Shape, max_bits_shape: Shape | None = None) -> None:
        if len(inputs_shape) != 4 or inputs_shape[-1] is None:
            raise ValueError(
                "Invalid shape for argument `inputs`. Expected [batch, height, width, channels] with known channels. "
                f"Received: {tuple(inputs_shape)}"
            )
        self.build_bases(bases.conv_grouping((*self.kernel_size, int(inputs_shape[-1]), self.filters), self.groups))

    def call(self, inputs: Tensor, max_bits: Tensor = None, training: bool | None = None) -> Tensor:
        if context.op_caller() is not None:
            return self.call_op(
                multi_bit_conv_2d,
                inputs,
                max_bits,
                order="ihw" if self.groups == "kernelwise" else "hwi",
                kernel_h=self.kernel_size[0],
                kernel_w=self.kernel_size[1],
                stride_h=self.strides[0],
                stride_w=self.strides[1],
                dilation_h=self.dilation_rate[0],
                dilation_w=self.dilation_rate[1],
                padding=self.padding,
            )
        self._record(inputs)
        return self.compute(self.quantized_inputs(inputs, training), self.current_kernel(max_bits), self.bias)

    def macs(self, inputs_shape: Shape) -> float:
        height, width = self.compute_output_shape(inputs_shape)[1:3]
        return conv_macs((int(height or 0), int(width or 0)), self.kernel_size, inputs_shape[-1], self.filters)

    def apply_kernel(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return ops.conv(inputs, kernel, self.strides, self.padding, "channels_last", self.dilation_rate)

    def compute_output_shape(self, inputs_shape: Shape, max_bits_shape: Shape | None = None) -> tuple[int | None, ...]:
        spatial = [
            size and conv_output_length(size, kernel, stride, dilation, self.padding)
            for size, kernel, stride, dilation in zip(
                inputs_shape[1:3], self.kernel_size, self.strides, self.dilation_rate, strict=True
            )
        ]
        return (inputs_shape[0], *spatial, self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "groups": self.groups,
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
        }


def _pair(name: str, value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in pair):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a positive integer or two of them. Received: {value!r}"
        )
    return (int(pair[0]), int(pair[1]))
