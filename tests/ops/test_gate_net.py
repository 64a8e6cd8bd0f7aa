"""Gate nets against NumPy, by hand, and the contract that every op keeps."""

import keras
import numpy as np
import pytest

from keras_efficient import ops, testing
from keras_efficient.ops.gate_net import GateNetAttributes


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("op", [ops.gate_net, ops.gate_net_int8], ids=lambda op: op.name)
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exports")
def test_keeps_the_contract(op):
    assert len(testing.check_op(op)) == 10


def test_by_hand():
    x = np.asarray([[[[1.0, 4.0]], [[3.0, -2.0]]], [[[0.0, 0.0]], [[0.0, 0.0]]]], "float32")  # means (2, 1) and (0, 0)
    kernel = np.asarray([[0.1, 1.0, -1.0, 0.0], [0.2, 0.0, 0.0, 0.0]], "float32")
    bias = np.asarray([0.1, 0.1, 0.1, 0.3], "float32")
    found = array(ops.gate_net(x, kernel, bias, gate="relu1", threshold=0.3))
    np.testing.assert_allclose(found, [[0.5, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], atol=1e-6)
    found = array(ops.gate_net(x, kernel, bias, gate="binary_concrete"))
    np.testing.assert_array_equal(found, [[1, 1, 0, 1], [1, 1, 1, 1]])


@pytest.mark.parametrize("gate", ["relu1", "binary_concrete"])
def test_int8_is_the_float_op_on_what_the_integers_stand_for(gate):
    rng = np.random.default_rng(3)
    integers = rng.integers(-128, 128, (3, 5, 4, 7)).astype("int8")
    kernel, bias = rng.normal(size=(7, 9)).astype("float32"), rng.normal(0.5, 0.3, 9).astype("float32")
    attributes = {"gate": gate, "threshold": 0.05}
    real = ((integers.astype("float32") + 11) * np.float32(0.03)).astype("float32")
    expected = array(ops.gate_net(real, kernel, bias, **attributes))
    found = array(ops.gate_net_int8(integers, kernel, bias, input_scale=0.03, input_zero_point=-11, **attributes))
    assert 0 < np.count_nonzero(expected) < expected.size
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_cost_is_that_of_the_product():
    shapes = [(None, 8, 8, 12), (12, 5), (5,)]
    assert ops.gate_net.cost(shapes, GateNetAttributes()).macs == 60


@pytest.mark.parametrize(
    ("shapes", "attributes", "match"),
    [
        (((1, 2, 2, 3), (4, 5), (5,)), {}, "inputs of `kernel`"),
        (((1, 2, 2, 3), (3, 5), (4,)), {}, "length of `bias`"),
        (((1, 2, 2, 3), (3, 5), (5,)), {"gate": "soft"}, "gate"),
        (((1, 2, 2, 3), (3, 5), (5,)), {"threshold": 1.5}, "threshold"),
    ],
)
def test_bad_calls(shapes, attributes, match):
    with pytest.raises(ValueError, match=match):
        ops.gate_net(*(np.zeros(shape, "float32") for shape in shapes), **attributes)
