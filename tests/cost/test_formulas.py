"""MACs of builtin layers against numbers worked out by hand."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_efficient import cost
from keras_efficient.cost.formulas import einsum_macs

# (layer, input shape, MACs per sample)
BY_HAND = [
    (lambda: layers.Dense(4), (5,), 5 * 4),
    (lambda: layers.Dense(4), (7, 5), 7 * 5 * 4),
    (lambda: layers.EinsumDense("abc,cd->abd", output_shape=(None, 4)), (7, 5), 7 * 5 * 4),
    (lambda: layers.EinsumDense("...x,xyz->...yz", output_shape=(3, 4)), (7, 5), 7 * 5 * 3 * 4),
    (lambda: layers.Conv1D(4, 3), (10, 2), 8 * 3 * 2 * 4),
    (lambda: layers.Conv2D(4, 3, padding="same"), (6, 5, 2), 6 * 5 * 9 * 2 * 4),
    (lambda: layers.Conv2D(4, (3, 1), strides=2), (7, 5, 2), 3 * 3 * 3 * 2 * 4),
    (lambda: layers.Conv2D(4, 3, dilation_rate=2), (7, 7, 2), 3 * 3 * 9 * 2 * 4),
    (lambda: layers.Conv2D(6, 3, groups=2), (6, 6, 4), 4 * 4 * 9 * 2 * 6),
    (lambda: layers.Conv3D(4, 2), (4, 4, 4, 2), 27 * 8 * 2 * 4),
    (lambda: layers.Conv1DTranspose(4, 3, strides=2), (5, 2), 5 * 3 * 2 * 4),
    (lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same"), (5, 6, 2), 30 * 9 * 2 * 4),
    (lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), (6, 3), 4 * 3 * 6),
    (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 3), 16 * 9 * 6),
    (lambda: layers.SeparableConv2D(5, 3, depth_multiplier=2), (6, 6, 3), 16 * (9 * 6 + 6 * 5)),
    (lambda: layers.SeparableConv1D(5, 3), (6, 3), 4 * (3 * 3 + 3 * 5)),
    (lambda: layers.Embedding(50, 8), (6,), 0),
    (lambda: layers.SimpleRNN(4), (6, 3), 6 * (3 * 4 + 4 * 4)),
    (lambda: layers.GRU(4), (6, 3), 6 * 3 * (3 * 4 + 4 * 4)),
    (lambda: layers.LSTM(4, return_sequences=True), (6, 3), 6 * 4 * (3 * 4 + 4 * 4)),
    (lambda: layers.Bidirectional(layers.LSTM(4)), (6, 3), 2 * 6 * 4 * (3 * 4 + 4 * 4)),
    (
        lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(2)]),
        (6, 3),
        6 * (4 * (3 * 4 + 4 * 4) + 3 * (4 * 2 + 2 * 2)),
    ),
    (lambda: layers.ConvLSTM2D(4, 3), (6, 5, 5, 2), 6 * 9 * 9 * (2 + 4) * 16),
    (lambda: layers.TimeDistributed(layers.Dense(4)), (6, 5), 6 * 5 * 4),
    (lambda: layers.TimeDistributed(layers.Conv2D(4, 3)), (3, 5, 5, 2), 3 * 9 * 9 * 2 * 4),
    (lambda: layers.SpectralNormalization(layers.Dense(4)), (5,), 5 * 4),
    (lambda: layers.BatchNormalization(), (6, 6, 3), 0),
    (lambda: layers.LayerNormalization(axis=(1, 2)), (6, 3), 0),
    (lambda: layers.PReLU(), (6, 6, 3), 0),
    (lambda: layers.AveragePooling2D(2), (6, 6, 3), 0),
]


slow_to_build = pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="JAX compiles every initialiser; the formulas are the same on every backend",
)


def in_model(layer, *shapes, dtype=None):
    inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
    return keras.Model(inputs, layer(*inputs))


@pytest.mark.parametrize(("make", "shape", "macs"), BY_HAND)
def test_by_hand(make, shape, macs):
    report = cost.profile(in_model(make(), shape))
    assert report.macs == macs
    assert report.expected_macs == macs
    assert report.uncounted == ()


def test_channels_first_counts_the_same():
    if keras.backend.backend() == "tensorflow":
        from keras_efficient.cost.calls import Call

        layer = layers.Conv2D(4, 3, data_format="channels_first")  # TensorFlow has no such kernel on the CPU
        call = Call(layer, {}, [(2, 6, 5)], [(4, 4, 3)])
        assert cost.formulas.own_macs(call) == 4 * 3 * 9 * 2 * 4
    else:
        report = cost.profile(in_model(layers.Conv2D(4, 3, data_format="channels_first"), (2, 6, 5)))
        assert report.macs == 4 * 3 * 9 * 2 * 4


def test_attention():
    query, value = keras.Input((6, 8)), keras.Input((5, 8))
    model = keras.Model([query, value], layers.Attention()([query, value]))
    assert cost.profile(model).macs == 6 * 5 * 8 * 2


@pytest.mark.parametrize("by_name", [False, True])
def test_multi_head_attention(by_name):
    query, value = keras.Input((6, 8)), keras.Input((5, 8))
    value_dim = 3 if keras.backend.backend() == "jax" else 4  # Keras on JAX needs equal ones
    layer = layers.MultiHeadAttention(num_heads=2, key_dim=3, value_dim=value_dim)
    outputs = layer(query=query, value=value) if by_name else layer(query, value)
    projections = 6 * 8 * 2 * 3 + 5 * 8 * 2 * 3 + 5 * 8 * 2 * value_dim + 6 * 2 * value_dim * 8
    products = 6 * 5 * 2 * (3 + value_dim)
    assert cost.profile(keras.Model([query, value], outputs)).macs == projections + products


def test_attention_over_two_axes():
    x = keras.Input((3, 4, 8))
    layer = layers.MultiHeadAttention(num_heads=2, key_dim=3, attention_axes=(1, 2))
    projections = 4 * 12 * 8 * 2 * 3
    assert cost.profile(keras.Model(x, layer(x, x))).macs == projections + 12 * 12 * 2 * (3 + 3)


def test_grouped_query_attention():
    x = keras.Input((6, 8))
    layer = layers.GroupQueryAttention(head_dim=3, num_query_heads=4, num_key_value_heads=2)
    projections = 6 * 8 * 12 + 2 * 6 * 8 * 6 + 6 * 12 * 8
    assert cost.profile(keras.Model(x, layer(x, x))).macs == projections + 6 * 6 * 4 * 2 * 3


def test_dot():
    x, y = keras.Input((6, 8)), keras.Input((5, 8))
    assert cost.profile(keras.Model([x, y], layers.Dot(axes=2)([x, y]))).macs == 6 * 5 * 8


def test_tied_embedding():
    tokens = keras.Input((6,), dtype="int32")
    layer = layers.ReversibleEmbedding(50, 8)
    report = cost.profile(keras.Model(tokens, layer(layer(tokens), reverse=True)))
    assert report.macs == 6 * 8 * 50
    assert report.parameters == 50 * 8


def test_int8_dense_costs_as_many_macs_and_fewer_bytes():
    model = in_model(layers.Dense(4), (5,))
    before = cost.profile(model)
    model.quantize("int8")
    after = cost.profile(model)
    assert after.macs == before.macs == 20
    assert after.bytes < before.bytes


def thin_resnet(depth):
    """ResNet for CIFAR with 16, 32 and 64 channels and shortcuts without weights."""

    def shortcut(x, channels):
        x = layers.AveragePooling2D(1, 2)(x)
        return layers.Concatenate()([x, layers.Rescaling(0.0)(x)]) if x.shape[-1] < channels else x

    return resnet([(depth - 2) // 6] * 3, (16, 32, 64), shortcut)


def wide_resnet_18():
    """ResNet-18 for CIFAR with 64 to 512 channels and projections as shortcuts."""

    def shortcut(x, channels):
        return layers.BatchNormalization()(layers.Conv2D(channels, 1, 2, use_bias=False)(x))

    return resnet([2, 2, 2, 2], (64, 128, 256, 512), shortcut)


def resnet(blocks, widths, shortcut):
    def normalised_conv(x, channels, stride=1):
        x = layers.Conv2D(channels, 3, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(normalised_conv(inputs, widths[0]))
    for stage, (number, channels) in enumerate(zip(blocks, widths, strict=True)):
        for block in range(number):
            stride = 2 if stage and not block else 1
            y = layers.ReLU()(normalised_conv(x, channels, stride))
            y = normalised_conv(y, channels)
            x = layers.ReLU()(layers.Add()([shortcut(x, channels) if stride == 2 else x, y]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


@slow_to_build
@pytest.mark.parametrize(("depth", "millions"), [(20, 40.6), (32, 68.9), (56, 125.5), (110, 252.9)])
def test_thin_resnets(depth, millions):
    assert round(cost.profile(thin_resnet(depth)).macs / 1e6, 1) == millions


@slow_to_build
def test_wide_resnet_18():
    model = wide_resnet_18()
    report = cost.profile(model)
    assert round(report.macs / 1e6, 1) == 555.4
    assert report.parameters == model.count_params()
    assert round(sum(np.prod(weight.shape) for weight in model.trainable_weights) / 1e6, 2) == 11.17


@slow_to_build
def test_mobilenet_v2():
    report = cost.profile(keras.applications.MobileNetV2(weights=None))
    assert round(report.macs / 1e6) == 301
    assert round(report.parameters / 1e6, 1) == 3.5


def test_einsum_macs():
    assert einsum_macs("ab,bc->ac", (2, 3), (2, 5)) == 2 * 3 * 5
    assert einsum_macs("...b, bc -> ...c", (2, 7, 3), (2, 7, 5)) == 2 * 7 * 3 * 5
