"""The layers of this package in a profile: what they say of themselves, a budget's numbers and a profile's are one."""

import keras
import numpy as np
import pytest
from keras import layers as builtin

from keras_efficient import cost, layers, models, policies

GATE_NET = 4 * 4  # channels of the input x gates


def model_of(*stack):
    return keras.Sequential([keras.Input((6, 6, 4)), *stack])


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(8, 6, 6, 4)).astype("float32")


def test_gated_convolution(images):
    layer = layers.GatedConv2D(4, 3, padding="same", gate_threshold=0.5, batch_normalization=True)
    model = model_of(layer)
    bias = np.array([0.9, 0.9, 0.9, 0.1], "float32")  # the last channel is shut
    layer.gate_kernel.assign(np.zeros((4, 4)))
    layer.gate_bias.assign(bias)
    report = cost.profile(model, images)
    conv = 36 * 9 * 4 * 4
    assert report.macs == conv + GATE_NET == layer.dense_macs
    assert report.expected_macs == pytest.approx(0.75 * conv + GATE_NET)


@pytest.mark.parametrize(("bias", "share"), [(0.9, 1.0), (-1.0, 0.0)])
def test_layer_gate(images, bias, share):
    gate = layers.LayerGate(builtin.Conv2D(4, 3, padding="same", name="body"), name="gate")
    model = model_of(gate)
    gate.gate_kernel.assign(np.zeros((4, 1)))
    gate.gate_bias.assign([bias])
    report = cost.profile(model, images)
    body = 36 * 9 * 4 * 4
    assert report.macs == body + 4 == gate.dense_macs
    assert report.expected_macs == pytest.approx(share * body + 4)
    assert {row.name for row in report.layers if row.macs} == {"gate", "gate/body"}


def test_multi_exit(images):
    model = models.MultiExit.from_model(
        model_of(
            builtin.Conv2D(8, 3, name="first"),
            layers.EarlyExit(10),
            builtin.Conv2D(8, 3, name="second"),
            builtin.GlobalAveragePooling2D(),
            builtin.Dense(10),
        )
    )
    first, exit_unit, rest = 16 * 9 * 4 * 8, 8 * 10, 4 * 9 * 8 * 8 + 8 * 10
    assert cost.profile(model, images).expected_macs == pytest.approx(first + exit_unit + rest)
    model.policy = policies.ThresholdPolicy(0.0)  # everything leaves at the first exit
    report = cost.profile(model, images)
    assert report.macs == first + exit_unit + rest
    assert report.expected_macs == pytest.approx(first + exit_unit)


def test_multi_bit_dense():
    layer = layers.MultiBitDense(16, bits=2, group_size=32)
    report = cost.profile(keras.Sequential([keras.Input((64,)), layer]))
    assert report.macs == 64 * 16
    assert report.bytes == layer.stored_bytes()
