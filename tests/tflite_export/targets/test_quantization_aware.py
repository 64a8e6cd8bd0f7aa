import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import tflite_export
from keras_efficient.tflite_export import int8
from keras_efficient.tflite_export.targets.quantization_aware import rounded_range, rounded_weights


def small_network():
    keras.utils.set_random_seed(3)
    image = keras.Input((6, 6, 1), name="image")
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="convolution")(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm")(x))
    model = keras.Model(image, keras.layers.Dense(3, name="dense")(keras.layers.Flatten()(x)))
    model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 6, 6, 1)).astype("float32"), rng.integers(0, 3, 64)


def test_a_range_in_255_steps_by_hand():
    """[-1, 1.55]: steps of 0.01, 0 is step 100. 0.014 -> 0.01, 1.6 is cut to 1.55, -3 to -1."""
    values = ops.convert_to_tensor(np.array([0.014, 0.0, 1.6, -3.0, 1.0], "float32"))
    rounded = ops.convert_to_numpy(rounded_range(values, int8.Range(-1.0, 1.55)))
    np.testing.assert_allclose(rounded, [0.01, 0.0, 1.55, -1.0, 1.0], atol=1e-6)


def test_weights_in_127_steps_by_hand():
    """Columns of largest weight 1.27 and 12.7: steps of 0.01 and 0.1."""
    kernel = ops.convert_to_tensor(np.array([[1.27, 12.7], [0.014, 0.26]], "float32"))
    each = ops.convert_to_numpy(rounded_weights(kernel, (0,)))
    np.testing.assert_allclose(each, [[1.27, 12.7], [0.01, 0.3]], atol=1e-6)
    together = ops.convert_to_numpy(rounded_weights(kernel, (0, 1)))
    np.testing.assert_allclose(together, [[1.3, 12.7], [0.0, 0.3]], atol=1e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(rounded_weights(kernel * 0, (0,))), np.zeros((2, 2)))


def test_gradients_pass_inside_of_the_range_only():
    tf = pytest.importorskip("tensorflow")
    values = tf.Variable([0.3, 2.0, -0.4])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(rounded_range(values, int8.Range(-1.0, 1.0)) * [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(tape.gradient(total, values), [1.0, 0.0, 3.0])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(rounded_weights(values, (0,)) * [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(tape.gradient(total, values), [1.0, 2.0, 3.0])


def test_inside_the_model_rounds_and_outside_it_does_not(data):
    model = small_network()
    x, _ = data
    exact = model.predict(x, verbose=0)
    with tflite_export.quantization_aware(model, x):
        rounded = model.predict(x, verbose=0)
    difference = np.abs(rounded - exact).max()
    assert 0 < difference < 0.05 * np.ptp(exact)
    np.testing.assert_array_equal(model.predict(x, verbose=0), exact)
    # The dense layer's own output lies on 255 steps of its range.
    steps = rounded * 255 / (max(exact.max(), 0) - min(exact.min(), 0))
    np.testing.assert_allclose(steps, np.rint(steps), atol=2e-2)


def test_training_moves_weights_and_keeps_statistics(data):
    model = small_network()
    x, y = data
    statistics = [np.copy(ops.convert_to_numpy(w)) for w in model.get_layer("norm").non_trainable_weights]
    kernels = [np.copy(ops.convert_to_numpy(w)) for w in model.trainable_weights]
    with tflite_export.quantization_aware(model, x):
        before = model.evaluate(x, y, verbose=0)
        model.fit(x, y, epochs=10, batch_size=16, verbose=0)
        assert model.evaluate(x, y, verbose=0) < before
    for old, weight in zip(kernels, model.trainable_weights, strict=True):
        assert np.abs(ops.convert_to_numpy(weight) - old).max() > 1e-4, weight.path
    for old, weight in zip(statistics, model.get_layer("norm").non_trainable_weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), old)


def test_the_file_computes_what_training_saw(exits, images, coral):
    """Stage by stage within a few steps of 8 bits: closer than the float network is."""
    folder, _ = coral
    runner = tflite_export.load_coral(folder)
    with tflite_export.quantization_aware(exits, images):
        seen = exits.predict_all(images, verbose=0)
    exact = exits.predict_all(images, verbose=0)
    result = runner(images, max_exit=0)
    step = runner.metadata["stages"][0]["outputs"]["output"]["scale"]
    error = np.abs(result.output - seen["exit_1"]) / step
    assert np.mean(error) < 2.0
    assert np.mean(error) < np.mean(np.abs(result.output - exact["exit_1"]) / step)


def test_bad_arguments(data):
    model = small_network()
    with (
        pytest.raises(ValueError, match="`representative_data`. Expected real inputs"),
        tflite_export.quantization_aware(model, None),
    ):
        pass
    with pytest.raises(ValueError, match="Expected shape"), tflite_export.quantization_aware(model, data[0][:, :3]):
        pass
    with pytest.raises(ValueError, match="Expected a keras.Model"), tflite_export.quantization_aware("m", data[0]):
        pass
