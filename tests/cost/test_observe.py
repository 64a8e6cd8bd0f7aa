"""Watching calls, and counting while something else runs the model."""

import threading

import keras
import numpy as np
import pytest
from keras import layers

from keras_efficient import cost, ops
from keras_efficient.ops.branch import branch


@pytest.fixture
def model():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.ReLU(name="b")], name="inner")
    return keras.Sequential([keras.Input((4,)), inner, layers.Dense(2, name="c")])


def test_leaves_in_order_with_their_tensors(model):
    calls = []

    def hook(layer, args, kwargs, outputs):
        calls.append((layer.name, tuple(args[0].shape), tuple(outputs.shape)))

    with cost.observed_calls(model, hook):
        model(np.zeros((2, 4), "float32"))
    model(np.zeros((2, 4), "float32"))
    assert calls == [("a", (2, 4), (2, 3)), ("b", (2, 3), (2, 3)), ("c", (2, 3), (2, 2))]


def test_uncovered_again_after_an_error(model):
    def hook(layer, args, kwargs, outputs):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"), cost.observed_calls(model, hook):
        model(np.zeros((2, 4), "float32"))
    assert not any("call" in vars(layer) for layer in (model, *model.layers))


def test_nested_blocks(model):
    outer, inner = [], []
    with cost.observed_calls(model, lambda layer, *_: outer.append(layer.name)):
        with cost.observed_calls(model, lambda layer, *_: inner.append(layer.name)):
            model(np.zeros((2, 4), "float32"))
        model(np.zeros((2, 4), "float32"))
    assert inner == ["a", "b", "c"]
    assert outer == inner * 2


def test_other_threads_pass_unseen(model):
    calls = []
    with cost.observed_calls(model, lambda layer, *_: calls.append(layer.name)):
        thread = threading.Thread(target=model, args=(np.zeros((2, 4), "float32"),))
        thread.start()
        thread.join()
    assert calls == []


def test_counting(model):
    with cost.counting(model) as events:
        model(np.zeros((2, 4), "float32"), training=False)
    assert [(event.name, event.dense) for event in events] == [("a", 12.0), ("c", 6.0)]
    assert not any(event.by_op for event in events)


@pytest.mark.parametrize(("value", "macs"), [(1.0, 12.0), (-1.0, 0.0)])
def test_counting_through_a_branch(value, macs):
    class Optional(layers.Layer):
        def __init__(self):
            super().__init__()
            self.body = layers.Dense(4)

        def build(self, input_shape):
            self.body.build(input_shape)

        def call(self, x):
            return branch(keras.ops.sum(x) > 0, lambda: self.body(x)[:, :3], lambda: x)

    model = keras.Sequential([keras.Input((3,)), Optional()])
    with ops.skipping(), cost.counting(model) as events:
        model(np.full((1, 3), value, "float32"), training=False)
    assert sum(float(event.executed[0]) for event in events) == macs


def test_counting_while_tracing():
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    if keras.backend.backend() != "tensorflow":
        return
    model = keras.Sequential([keras.Input((6, 3)), layers.LSTM(4), layers.Dense(2)])
    dense = []

    @tf.function(input_signature=[tf.TensorSpec((None, 6, 3))])
    def traced(x):
        with cost.counting(model) as events:
            outputs = model(x, training=False)
        dense.extend(event.dense for event in events)
        return outputs, tf.add_n([tf.reduce_sum(event.executed) for event in events])

    _, executed = traced(np.zeros((2, 6, 3), "float32"))
    assert dense == [6 * 4 * (3 * 4 + 4 * 4), 8]
    assert float(executed) == sum(dense)
