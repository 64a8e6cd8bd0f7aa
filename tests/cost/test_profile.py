"""Profiles of whole models: structure, expected cost, bytes, and what they say when they cannot know."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_efficient import cost, ops


class SelfGated(layers.Layer):
    """A 1 x 1 gated convolution whose output channels are open where the mean input is positive."""

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(1, 1, input_shape[-1], 4))

    def call(self, x):
        is_open = keras.ops.cast(keras.ops.mean(x, axis=(1, 2, 3)) > 0, "float32")[:, None]
        ones = keras.ops.ones_like(x[:, 0, 0, :])
        return ops.gated_conv_2d(x, ones, is_open * keras.ops.ones((1, 4)), self.kernel, keras.ops.zeros((4,)))


class RunsWhenPositive(layers.Layer):
    """A dense layer that counts only for inputs with a positive first feature."""

    def __init__(self):
        super().__init__()
        self.body = layers.Dense(3)

    def call(self, x):
        with ops.executed_when(keras.ops.cast(x[:, 0] > 0, "float32")):
            return self.body(x)


class OwnMatrix(layers.Layer):
    def build(self, input_shape):
        self.matrix = self.add_weight(name="matrix", shape=(input_shape[-1], 4))

    def call(self, x):
        return keras.ops.matmul(x, self.matrix)


def test_per_layer_rows():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    outputs = layers.Dense(10, name="head")(layers.Flatten(name="flat")(x))
    report = cost.profile(keras.Model(inputs, outputs))
    rows = {row.name: row for row in report.layers}
    assert rows["conv"].class_name == "Conv2D"
    assert rows["conv"].macs == 36 * 9 * 4
    assert rows["conv"].parameters == 9 * 4 + 4
    assert rows["conv"].bytes == 4 * (9 * 4 + 4)
    assert rows["conv"].activation_bytes == 4 * 36 * 4
    assert rows["norm"].macs == 0
    assert rows["norm"].parameters == 16
    assert rows["head"].macs == 144 * 10
    assert report.macs == 36 * 9 * 4 + 1440
    assert report.bytes == 4 * report.parameters


def test_shared_layer_costs_twice_and_is_stored_once():
    inputs = keras.Input((5,))
    shared = layers.Dense(5, name="shared")
    report = cost.profile(keras.Model(inputs, shared(shared(inputs))))
    (row,) = (row for row in report.layers if row.name == "shared")
    assert (row.calls, row.macs, row.parameters) == (2, 50, 30)


def test_models_inside_models():
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4, name="a"), layers.Dense(3, name="b")], name="inner")
    inputs = keras.Input((5,))
    outputs = layers.Dense(2, name="head")(inner(inputs))
    report = cost.profile(keras.Model(inputs, outputs))
    assert {row.name: row.macs for row in report.layers if row.macs} == {"inner/a": 20, "inner/b": 12, "head": 6}
    assert report.parameters == 24 + 15 + 8


def test_subclassed_model():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.Dense(4)
            self.unused = layers.Dense(7)
            self.unused.build((None, 3))

        def call(self, x):
            return self.first(self.first(x))

    model = Subclassed()
    model(np.zeros((1, 4), "float32"))
    report = cost.profile(model)
    assert report.macs == 32
    assert report.parameters == 4 * 4 + 4 + 3 * 7 + 7


def test_several_inputs_by_name():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((4,), dtype="int32", name="b")}
    joined = layers.Concatenate()([layers.Dense(2)(inputs["a"]), layers.Flatten()(layers.Embedding(9, 2)(inputs["b"]))])
    model = keras.Model(inputs, joined)
    data = {"a": np.ones((5, 3), "float32"), "b": np.ones((5, 4), "int32")}
    assert cost.profile(model).macs == cost.profile(model, data).macs == 6


def test_expected_macs_of_gates():
    model = keras.Sequential([keras.Input((3, 3, 2)), SelfGated(name="gated"), layers.Flatten(), layers.Dense(5)])
    data = np.ones((10, 3, 3, 2), "float32")
    data[:3] = -1
    report = cost.profile(model, data, batch_size=4)
    conv, head = 9 * 2 * 4, 9 * 4 * 5
    assert report.macs == conv + head
    assert report.expected_macs == pytest.approx(0.7 * conv + head)
    assert report.samples == 10
    assert cost.profile(model).macs == conv + head
    assert cost.profile(model).expected_macs is None


def test_masks_reach_builtin_layers():
    model = keras.Sequential([keras.Input((4,)), RunsWhenPositive()])
    data = np.array([[1, 0, 0, 0]] * 3 + [[-1, 0, 0, 0]], "float32")
    report = cost.profile(model, data)
    assert report.macs == 12
    assert report.expected_macs == pytest.approx(9)


def test_gates_inside_a_custom_cell_count_every_step():
    class Cell(layers.Layer):
        state_size = 4

        def __init__(self):
            super().__init__()
            self.inner = SelfGated()

        def build(self, input_shape):
            self.inner.build((None, 1, 1, input_shape[-1]))

        def call(self, x, states):
            y = self.inner(keras.ops.reshape(x, (-1, 1, 1, 3)))
            return keras.ops.reshape(y, (-1, 4)), states

    rnn = layers.RNN(Cell(), return_sequences=True)
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, rnn(inputs))
    data = np.ones((2, 5, 3), "float32")
    data[0, :2] = -1
    report = cost.profile(model, data)
    assert report.macs == 5 * 12
    assert report.expected_macs == pytest.approx((3 + 5) / 2 * 12)
    assert rnn.unroll is False


def test_time_steps_folded_into_the_batch():
    inputs = keras.Input((6, 5))
    folded = layers.Dense(4)(keras.ops.reshape(inputs, (-1, 5)))
    model = keras.Model(inputs, keras.ops.reshape(folded, (-1, 6, 4)))
    assert cost.profile(model).macs == 6 * 5 * 4


def test_what_is_not_known_is_said():
    inputs = keras.Input((5,))
    x = OwnMatrix(name="mine")(inputs)
    model = keras.Model(inputs, keras.ops.matmul(x, keras.ops.transpose(x)))
    report = cost.profile(model)
    assert report.macs == 0
    assert report.uncounted[0] == "mine"
    assert len(report.uncounted) == 2
    assert "mine" in report.table().split("Not counted")[1]


def test_bytes_follow_the_dtype():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, dtype="mixed_float16")])
    assert cost.profile(model).bytes == 4 * 24
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, dtype="bfloat16")])
    assert cost.profile(model).bytes == 2 * 24


def test_layers_may_say_what_they_store():
    class Packed(layers.Dense):
        def stored_bytes(self):
            return 7

    model = keras.Sequential([keras.Input((5,)), Packed(4), layers.Dense(2)])
    assert cost.profile(model).bytes == 7 + 4 * 10


def test_dynamic_dimensions_need_data():
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3, padding="same")])
    with pytest.raises(ValueError, match="Expected static dimensions behind the batch, or argument `data`"):
        cost.profile(model)
    assert cost.profile(model, np.zeros((2, 5, 4, 3), "float32")).macs == 20 * 27 * 4


def test_table():
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(1000, name="wide"), layers.ReLU(name="act")], name="small"
    )
    table = cost.profile(model).table()
    assert "Cost of small" in table
    assert "wide" in table
    assert "8.0 k" in table
    assert "9,000" in table
    assert "act" not in table


def test_the_model_is_left_as_it_was():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4)])
    before = [dict(vars(layer)) for layer in (model, *model.layers)]
    cost.profile(model)
    for layer, attributes in zip((model, *model.layers), before, strict=True):
        assert set(vars(layer)) - {"_called"} == set(attributes) - {"_called"}
    model.compile("sgd", "mse")
    model.fit(np.zeros((8, 5)), np.zeros((8, 4)), verbose=0)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (layers.Dense(3), {}, "argument `model`. Expected a keras.Model. Received: <Dense"),
        (keras.Sequential([layers.Dense(3)]), {}, "Expected a built model. Received: 'sequential"),
        (None, {"data": np.zeros((2, 6))}, r"argument `data`. Expected \[\(batch, 5\)\] .* Received: \[\(2, 6\)\]"),
        (None, {"data": np.zeros((2, 5, 1))}, r"argument `data`. Expected \[\(batch, 5\)\]"),
        (None, {"data": [np.zeros((2, 5))] * 2}, r"argument `data`. Expected \[\(batch, 5\)\]"),
        (None, {"data": np.zeros((0, 5))}, "Expected at least one sample"),
        (None, {"batch_size": 0}, "argument `batch_size`. Expected a positive integer. Received: 0"),
    ],
)
def test_bad_arguments(model, arguments, message):
    if model is None:
        model = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=message):
        cost.profile(model, **arguments)
