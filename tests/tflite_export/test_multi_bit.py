"""Multi-bit layers in files: packed bytes, labels of stock runtimes, int8, nested bases."""

import keras
import numpy as np
import pytest

from keras_efficient import layers, tflite_export


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(12, 8, 8, 16)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8, 8, 16), name="image"),
            layers.MultiBitConv2D(40, 3, bits=2, padding="same", activation="relu", name="convolution"),
            keras.layers.GlobalAveragePooling2D(),
            layers.MultiBitDense(10, bits=2, group_size=20, name="head"),
        ]
    )


@pytest.mark.parametrize("form", ["composite", "custom"])
def test_files_hold_packed_weights_and_kernels_agree(model, x, form, tmp_path):
    path = tmp_path / "multi_bit.tflite"
    report = tflite_export.export(model, path, ops=form, representative_data=x)
    assert report.written == {"ke.multi_bit_conv_2d": 1, "ke.multi_bit_dense": 1}
    weights = 40 * 9 * 2 * (16 / 8 + 4) + 10 * 2 * 2 * (20 / 8 + 4)
    assert weights < path.stat().st_size < weights + (6_000 if form == "composite" else 4_000)
    expected = model.predict(x, verbose=0)
    delegated = tflite_export.load(path)
    assert delegated.delegated_ops == 2
    assert np.abs(delegated(x).output - expected).max() < 0.05 * np.abs(expected).max()
    if form == "composite":
        stock = tflite_export.load(path, delegate="none")(x).output
        np.testing.assert_allclose(stock, expected, atol=1e-4)
        np.testing.assert_array_equal(stock.argmax(-1), expected.argmax(-1))


def test_int8_files_compute_with_integers(model, x, tmp_path):
    path = tmp_path / "int8.tflite"
    report = tflite_export.export(model, path, quantize="int8", representative_data=x)
    assert report.written == {"ke.multi_bit_conv_2d_int8": 1, "ke.multi_bit_dense_int8": 1}
    expected = model.predict(x, verbose=0)
    for delegate in ("none", "auto"):
        y = tflite_export.load(path, delegate=delegate)(x).output
        assert np.abs(y - expected).max() < 0.08 * np.abs(expected).max()
