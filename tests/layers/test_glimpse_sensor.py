"""GlimpseSensor: locations and pixels worked out by hand, borders, bad input."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient import ops
from keras_efficient.layers import GlimpseSensor
from keras_efficient.layers.glimpse_sensor import pixels


def numbers(tensor):
    return keras.ops.convert_to_numpy(tensor)


def expected(image, location, size, num_scales, factor=2):
    """The same by loops in NumPy, written from the formulas of the class."""
    location = [min(max(value, -1.0), 1.0) for value in location]
    patches = []
    for k in range(num_scales):
        width = size * factor**k
        missing = [max(width - length, 0) for length in image.shape[:2]]
        padded = np.pad(image, [*[(m // 2, m - m // 2) for m in missing], (0, 0)])
        first = []
        for axis in range(2):
            length = padded.shape[axis]
            start = np.floor((location[axis] + 1) / 2 * length - width / 2 + 0.5)
            first.append(int(min(max(start, 0), length - width)))
        patch = padded[first[0] : first[0] + width, first[1] : first[1] + width]
        patches.append(patch.reshape(size, factor**k, size, factor**k, -1).mean((1, 3)))
    return np.concatenate(patches, axis=-1)


def test_pixels_of_the_corners_and_the_centre():
    image = np.arange(36, dtype="float32").reshape(1, 6, 6, 1)
    sensor = GlimpseSensor(2)
    corners = {(-1, -1): [[0, 1], [6, 7]], (1, 1): [[28, 29], [34, 35]], (-1, 1): [[4, 5], [10, 11]]}
    for location, patch in {**corners, (0, 0): [[14, 15], [20, 21]]}.items():
        np.testing.assert_array_equal(numbers(sensor(image, np.array([location], "float32")))[0, ..., 0], patch)


def test_one_bright_pixel_is_found_where_it_is():
    sensor = GlimpseSensor(3)
    for row, column in [(1, 1), (4, 9), (8, 3)]:
        image = np.zeros((1, 10, 12, 1), "float32")
        image[0, row, column] = 1
        location = np.array([[(2 * row + 1) / 10 - 1, (2 * column + 1) / 12 - 1]], "float32")
        glimpse = numbers(sensor(image, location))[0, ..., 0]
        assert glimpse[1, 1] == 1
        assert glimpse.sum() == 1
        np.testing.assert_allclose(pixels(location, image.shape[1:])[0], [row, column], atol=1e-5)


@settings(deadline=None, max_examples=12)
@given(
    st.integers(3, 20),
    st.integers(3, 20),
    st.integers(1, 5),
    st.integers(1, 3),
    st.floats(-2, 2, width=16),
    st.floats(-2, 2, width=16),
)
def test_equals_loops_wherever_one_looks(height, width, size, num_scales, y, x):
    image = np.random.default_rng(0).uniform(size=(1, height, width, 2)).astype("float32")
    location = np.array([[y, x]], "float32")
    sensor = GlimpseSensor(size, num_scales)
    sensor.build(image.shape, (None, 2))
    wanted = expected(image[0], (y, x), size, num_scales)
    np.testing.assert_allclose(numbers(sensor(image, location))[0], wanted, atol=1e-6)
    rows = image.reshape(1, height, 2 * width)
    np.testing.assert_allclose(numbers(sensor(rows, location))[0], wanted, atol=1e-6)
    with ops.skipping():  # by slices instead of a gather
        np.testing.assert_allclose(numbers(sensor(image, location))[0], wanted, atol=1e-6)
        np.testing.assert_allclose(numbers(sensor(rows, location))[0], wanted, atol=1e-6)


def test_several_glimpses_of_each_image():
    images = np.random.default_rng(0).uniform(size=(2, 9, 9, 3)).astype("float32")
    locations = np.random.default_rng(1).uniform(-1, 1, (6, 2)).astype("float32")
    found = numbers(GlimpseSensor(4, 2)(images, locations))
    assert found.shape == (6, 4, 4, 6)
    for n in range(6):
        np.testing.assert_allclose(found[n], expected(images[n // 3], locations[n], 4, 2), atol=1e-6)


def test_a_patch_wider_than_the_image_sees_zeros_around_it():
    glimpse = numbers(GlimpseSensor(4)(np.ones((1, 2, 3, 1), "float32"), np.array([[0.9, -0.9]], "float32")))
    np.testing.assert_array_equal(glimpse[0, ..., 0], [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]])


def test_whole_numbers_are_scaled():
    image = np.full((1, 4, 4, 1), 51, "uint8")
    np.testing.assert_allclose(numbers(GlimpseSensor(2, 2)(image, np.zeros((1, 2), "float32"))), 0.2, rtol=1e-6)


def test_not_a_number_is_refused_and_the_centre_where_nothing_can_be_refused():
    images = np.random.default_rng(0).uniform(size=(1, 8, 8, 1)).astype("float32")
    nan = np.array([[np.nan, 1.0]], "float32")
    sensor = GlimpseSensor(2)
    with pytest.raises(ValueError, match="Invalid value for argument `locations`. .* Received: NaN"):
        sensor(images, nan)
    inputs = [keras.Input((8, 8, 1)), keras.Input((2,))]
    compiled = keras.Model(inputs, sensor(*inputs))
    wanted = numbers(sensor(images, np.array([[0.0, 1.0]], "float32")))
    np.testing.assert_array_equal(compiled.predict([images, nan], verbose=0), wanted)


def test_saved_and_loaded(tmp_path):
    inputs = [keras.Input((8, 8, 1)), keras.Input((2,))]
    model = keras.Model(inputs, GlimpseSensor(3, 2, name="sensor")(*inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("sensor").get_config() == model.get_layer("sensor").get_config()
    x = [np.random.rand(2, 8, 8, 1).astype("float32"), np.zeros((2, 2), "float32")]
    np.testing.assert_array_equal(numbers(loaded(x)), numbers(model(x)))
    assert model.output.shape == (None, 3, 3, 2)


def test_mixed_precision():
    sensor = GlimpseSensor(2, dtype="mixed_float16")
    found = sensor(np.ones((1, 4, 4, 1), "float32"), np.zeros((1, 2), "float32"))
    assert keras.backend.standardize_dtype(found.dtype) == "float16"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"size": 0}, "`size`. Expected an integer of at least 1. Received: 0"),
        ({"size": 4, "num_scales": True}, "`num_scales`. Expected an integer of at least 1. Received: True"),
        ({"size": 4, "scale_factor": 1}, "`scale_factor`. Expected an integer of at least 2. Received: 1"),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(ValueError) as error:
        GlimpseSensor(**arguments)
    assert sentence in str(error.value)


def test_bad_shapes():
    sensor = GlimpseSensor(2)
    with pytest.raises(ValueError, match=r"`images`. Expected \[batch, height, width, channels\]"):
        sensor.build((None, None, 8, 1), (None, 2))
    with pytest.raises(ValueError, match="`locations`"):
        sensor(np.ones((1, 4, 4, 1), "float32"), np.zeros((1, 3), "float32"))
    sensor(np.ones((1, 4, 4, 1), "float32"), np.zeros((1, 2), "float32"))
    with pytest.raises(ValueError, match=r"Expected \[batch, height, width, 1\], or rows .* Received: \(1, 4, 4, 3\)"):
        sensor(np.ones((1, 4, 4, 3), "float32"), np.zeros((1, 2), "float32"))
    sensor = GlimpseSensor(2)
    sensor.build((None, 4, 4, 3), (None, 2))
    with pytest.raises(ValueError, match=r"or rows \[batch, height, width \* 3\]. Received: \(1, 4, 10\)"):
        sensor(np.ones((1, 4, 10), "float32"), np.zeros((1, 2), "float32"))
