import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient.layers.exit_features import EXIT_FEATURES, exit_features


def as_array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_hand_computed():
    logits = np.log(np.array([[0.2, 0.5, 0.3], [1 / 3, 1 / 3, 1 / 3]], dtype="float32"))
    entropy = -(0.2 * np.log(0.2) + 0.5 * np.log(0.5) + 0.3 * np.log(0.3)) / np.log(3)
    expected = [[0.5, entropy, 0.2, 0.5], [1 / 3, 1.0, 0.0, 0.5]]
    np.testing.assert_allclose(as_array(exit_features(logits, 1, 4)), expected, atol=1e-6)
    assert EXIT_FEATURES == ("confidence", "entropy", "margin", "depth")


def test_certainty_is_finite():
    features = as_array(exit_features(np.array([[1e4, 0.0, -1e4]], "float32"), 0, 2))
    np.testing.assert_allclose(features, [[1.0, 0.0, 1.0, 0.5]], atol=1e-6)


def test_float16_logits_are_computed_in_float32():
    logits = np.array([[3.0, 1.0]], "float16")
    features = exit_features(keras.ops.convert_to_tensor(logits), 0, 2)
    assert keras.backend.standardize_dtype(features.dtype) == "float32"
    np.testing.assert_allclose(as_array(features), as_array(exit_features(logits.astype("float32"), 0, 2)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=12))
def test_ranges(logits):
    confidence, entropy, margin, depth = as_array(exit_features(np.array([logits], "float32"), 2, 3))[0]
    assert 1 / len(logits) - 1e-6 <= confidence <= 1 + 1e-6
    assert -1e-6 <= entropy <= 1 + 1e-5
    assert 0 <= margin <= confidence
    assert depth == 1


def test_symbolic_and_dynamic_batch():
    logits = keras.Input((10,))
    features = exit_features(logits, 0, 3)
    assert features.shape == (None, 4)


@pytest.mark.parametrize(
    ("shape", "index", "exits", "argument"),
    [((3,), 0, 2, "logits"), ((2, 1), 0, 2, "logits"), ((2, 3), 2, 2, "exit_index"), ((2, 3), -1, 2, "exit_index")],
)
def test_bad_arguments(shape, index, exits, argument):
    with pytest.raises(ValueError, match=f"`{argument}`.*Expected.*Received"):
        exit_features(np.zeros(shape, "float32"), index, exits)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the converter needs the TensorFlow backend")
@pytest.mark.parametrize("batch", [1, None])
def test_converts_to_builtin_operators(batch):
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    module = tf.Module()
    module.features = tf.function(
        lambda logits: exit_features(logits, 1, 4), input_signature=[tf.TensorSpec([batch, 10], tf.float32)]
    )
    concrete = module.features.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    interpreter = Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    logits = np.random.default_rng(0).normal(scale=3, size=(1, 10)).astype("float32")
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], logits)
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(output, as_array(exit_features(logits, 1, 4)), atol=1e-6)
