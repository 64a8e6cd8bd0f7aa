"""Scenes: where things are put, that seeds decide, bad input."""

import numpy as np
import pytest

from keras_efficient.datasets import Translated, digit_scenes, regions_of, translated

IMAGES = np.random.default_rng(0).uniform(0.5, 1, (20, 6, 6, 1)).astype("float32")
LABELS = np.arange(20) % 4


def test_each_image_is_somewhere_on_its_canvas():
    canvas = translated(IMAGES, 15, np.random.default_rng(0))
    assert canvas.shape == (20, 15, 15, 1)
    tops = set()
    for image, found in zip(IMAGES, canvas, strict=True):
        rows, columns = np.nonzero(found[..., 0])
        np.testing.assert_array_equal(found[rows.min() : rows.min() + 6, columns.min() : columns.min() + 6], image)
        assert np.count_nonzero(found) == 36
        tops.add(rows.min())
    assert min(tops) == 0
    assert max(tops) == 9


def test_clutter_covers_nothing_and_adds_pixels():
    plain = translated(IMAGES, 15, np.random.default_rng(0))
    cluttered = translated(IMAGES, 15, np.random.default_rng(0), pieces=3, piece_size=2)
    counts = np.count_nonzero(cluttered, axis=(1, 2, 3))
    assert (counts >= 36).all()
    assert counts.max() <= 36 + 12
    assert np.count_nonzero(cluttered) > np.count_nonzero(plain)
    with pytest.raises(ValueError, match="`piece_size`. Expected 1 to 6 pixels. Received: 7"):
        translated(IMAGES, 15, np.random.default_rng(0), pieces=1, piece_size=7)


def test_regions_are_where_the_digits_are():
    scenes = digit_scenes(IMAGES, LABELS, 30, size=20, digits=3, pieces=0, num_digits=4, seed=1)
    assert scenes.num_classes == 10
    np.testing.assert_array_equal(scenes.labels, scenes.digits.sum(1))
    for n in range(30):
        assert np.count_nonzero(scenes.images[n]) == 3 * 36  # no two overlap
        for digit, (y, x, half_height, half_width) in zip(scenes.digits[n], scenes.regions[n], strict=True):
            top, left = round((y - half_height + 1) * 10), round((x - half_width + 1) * 10)
            cut = scenes.images[n, top : top + 6, left : left + 6]
            assert any(np.array_equal(cut, image) for image in IMAGES[digit == LABELS])
            assert (half_height, half_width) == (pytest.approx(0.3), pytest.approx(0.3))


def test_a_seed_decides_everything():
    first, same, other = (
        digit_scenes(IMAGES, LABELS, 5, size=20, digits=2, piece_size=2, num_digits=4, seed=seed) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.images, same.images)
    np.testing.assert_array_equal(first.regions, same.regions)
    assert not np.array_equal(first.images, other.images)


def test_boxes_become_regions():
    boxes = [[[0, 0, 10, 40], [5, 10, 6, 12]], [[np.nan] * 4, [0, 0, 20, 40]]]
    regions = regions_of(boxes, (20, 40, 3))
    wanted = [[[-0.5, 0, 0.5, 1], [-0.45, -0.45, 0.05, 0.05]], [[0, 0, 0, 0], [0, 0, 1, 1]]]
    np.testing.assert_allclose(regions, wanted, atol=1e-6)
    for wrong in ([-1, 0, 5, 5], [0, 0, 5, 41], [5, 5, 5, 8]):
        with pytest.raises(ValueError, match="Expected boxes inside of images of"):
            regions_of([[wrong]], (20, 40))
    with pytest.raises(ValueError, match=r"Expected shape \[images, regions, 4\]"):
        regions_of([[0, 0, 1, 1]], (20, 40))


def test_batches_are_new_in_every_epoch():
    batches = Translated(IMAGES, LABELS, 10, batch_size=8, seed=0)
    assert len(batches) == 2
    x, y = batches[0]
    assert x.shape == (8, 10, 10, 1)
    assert y.shape == (8,)
    again = Translated(IMAGES, LABELS, 10, batch_size=8, seed=0)
    np.testing.assert_array_equal(again[0][0], x)
    batches.on_epoch_end()
    assert not np.array_equal(batches[0][0], x)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: translated(IMAGES, 5, np.random.default_rng(0)), "`size`. Expected at least 6 pixels"),
        (lambda: translated(IMAGES[0], 8, np.random.default_rng(0)), "`images`. Expected shape"),
        (lambda: digit_scenes(IMAGES, LABELS[:3], 5, 20), "`labels`. Expected 20 integers in [0, 10)"),
        (lambda: digit_scenes(IMAGES, LABELS, 5, 20, num_digits=3), "`labels`. Expected 20 integers in [0, 3)"),
        (lambda: digit_scenes(IMAGES, LABELS, 0, 20), "`count`. Expected a positive integer"),
        (lambda: digit_scenes(IMAGES, LABELS, 2, 8, digits=2, piece_size=2), "`digits`. Expected few enough"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(ValueError) as error:
        call()
    assert sentence in str(error.value)
