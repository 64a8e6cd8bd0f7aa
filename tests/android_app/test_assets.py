"""The pictures that the app carries with it."""

import io

import numpy as np
import pytest

from keras_efficient import datasets


def test_png(make_assets):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7), "uint8")
    read = image.open(io.BytesIO(make_assets.grey_png(pixels)))
    assert read.mode == "L"
    np.testing.assert_array_equal(np.asarray(read), pixels)


def test_samples_are_unseen_digits(assets, make_assets):
    image = pytest.importorskip("PIL.Image")
    digits = datasets.load("digits")
    files = sorted((assets / "samples").iterdir())
    assert [file.name for file in files] == [f"{label}.png" for label in range(10)]
    for label, file in enumerate(files):
        pixels = np.asarray(image.open(file))
        small = pixels.reshape(8, 8, 8, 8).mean(axis=(1, 3)) / 255
        near = np.abs(digits.x_test[..., 0] - small).max(axis=(1, 2)) < 1 / 400
        assert label in digits.y_test[near]
