"""The checks pass for what keeps the contract, and fail for each way of breaking it that is planted here."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_efficient import layers, ops
from keras_efficient.testing import CheckFailed, check_layer, check_op
from keras_efficient.testing.op_checks import _Subject

pytest.importorskip("ai_edge_litert", reason="the checks export, which needs the extra tflite")
if keras.backend.backend() != "tensorflow":
    pytest.skip("once is enough, on the TensorFlow backend", allow_module_level=True)


@pytest.mark.parametrize("op", ops.BUILTIN, ids=lambda op: op.name)
def test_built_in_ops_pass_all_ten(op):
    assert len(check_op(op)) == 10


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (layers.GatedConv2D, {"filters": 6, "kernel_size": 3, "padding": "same", "activation": "relu"}),
        (layers.GatedConv2D, {"filters": 6, "kernel_size": 3, "strides": 2, "batch_normalization": True}),
        (layers.LayerGate, {"layer": keras.layers.Conv2D(4, 3, padding="same")}),
        (layers.EarlyExit, {"num_classes": 3}),
        (layers.MultiBitDense, {"units": 5, "bits": 2, "input_shape": (24,)}),
        (layers.MultiBitConv2D, {"filters": 6, "kernel_size": 3, "bits": 2, "groups": "kernelwise", "strides": 2}),
    ],
    ids=[
        "GatedConv2D",
        "GatedConv2D with batch normalisation",
        "LayerGate",
        "EarlyExit",
        "MultiBitDense",
        "MultiBitConv2D",
    ],
)
def test_built_in_layers_pass_all_ten(cls, arguments):
    assert len(check_layer(cls, **arguments)) == 10


def broken(name, check, **changes):
    op = dataclasses.replace(ops.gated_conv_2d, name=name, **changes)
    subject = _Subject(op, [op.example(np.random.default_rng(seed)) for seed in range(3)])
    with pytest.raises(CheckFailed) as caught:
        getattr(subject, check)()
    return str(caught.value)


def test_broken_ops_are_found():
    base = ops.gated_conv_2d
    assert "declared" in broken("test.shape", "shapes", output_shape=lambda shapes, attributes: shapes[0])
    assert "not finite" in broken("test.nan", "deterministic", reference=lambda x, *_, **__: x * np.float32(np.nan))
    assert "differed" in broken(
        "test.random", "deterministic", reference=lambda x, *_, **__: x + np.random.default_rng().normal()
    )
    greedy = lambda shapes, attributes, counts=None: dataclasses.replace(base.cost(shapes, attributes))  # noqa: E731
    assert "with gate `g_in` shut" in broken("test.greedy", "gates", cost=greedy)
    twice = lambda shapes, attributes, counts=None: ops.Cost(  # noqa: E731
        base.cost(shapes, attributes, counts).macs * (2 if counts else 1), 1.0
    )
    assert "all gates open" in broken("test.twice", "cost", cost=twice)


def test_op_under_anothers_name_fails():
    with pytest.raises(CheckFailed, match="registered under a namespaced name"):
        check_op(dataclasses.replace(ops.gated_conv_2d, version=2), kernel=False)


@keras.saving.register_keras_serializable(package="tests")
class Forgetful(keras.layers.Layer):
    """Keeps state that is not saved."""

    count = 0.0

    def call(self, x):
        Forgetful.count += 1.0
        return x + Forgetful.count


class Unregistered(keras.layers.Layer):
    def call(self, x):
        return x


def test_broken_layers_are_found():
    with pytest.raises(CheckFailed, match="Layer `Forgetful` failed the check"):
        check_layer(Forgetful)
    with pytest.raises(CheckFailed, match="configuration round trip.*registered"):
        check_layer(Unregistered)
