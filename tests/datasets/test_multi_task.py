"""Data of several tasks: what scenes show, how batches are dealt."""

import numpy as np
import pytest

from keras_efficient import datasets
from keras_efficient.datasets.multi_task import tilted


@pytest.fixture(scope="module")
def scenes():
    return datasets.two_digit_scenes(datasets.load("digits"), counts=(40, 10, 10), shift=4, seed=3)


def test_scenes_show_both_digits(scenes):
    digits = datasets.load("digits")
    assert scenes.tasks == ("left", "right")
    assert scenes.input_shape == (12, 12, 1)
    assert scenes.x_train.dtype == np.float32
    assert scenes.x_train.max() <= 1
    for scene, left, right in zip(scenes.x_train[:5], scenes.y_train["left"], scenes.y_train["right"], strict=False):
        for label, corners in ((left, range(3)), (right, range(2, 5))):
            windows = [scene[i : i + 8, j : j + 8] for i in corners for j in corners]
            images = digits.x_train[digits.y_train == label]
            assert any((image <= window).all() for image in images for window in windows)


def test_the_same_seed_gives_the_same_scenes(scenes):
    again = datasets.two_digit_scenes(datasets.load("digits"), counts=(40, 10, 10), shift=4, seed=3)
    np.testing.assert_array_equal(scenes.x_test, again.x_test)
    other = datasets.two_digit_scenes(datasets.load("digits"), counts=(40, 10, 10), shift=4, seed=4)
    assert (scenes.x_test != other.x_test).any()


def omniglot(directory):
    rng = np.random.default_rng(0)
    character = np.repeat(np.arange(5), 20)
    np.savez(
        directory / "omniglot.npz",
        images=rng.integers(0, 2, (100, 105, 105)).astype("uint8"),
        alphabet=(character >= 2).astype("uint8"),
        character=character.astype("uint16"),
        alphabet_names=np.array(["Greek", "Japanese_(katakana)"]),
    )


def test_alphabets_are_tasks(tmp_path):
    omniglot(tmp_path)
    found = datasets.omniglot_alphabets(tmp_path, train_images=6)
    assert found.num_classes == {"Greek": 2, "Japanese_katakana": 3}
    assert found.input_shape == (27, 27, 1)
    np.testing.assert_array_equal(np.bincount(found.y_train["Greek"]), [6, 6])
    np.testing.assert_array_equal(np.bincount(found.y_test["Japanese_katakana"]), [4, 4, 4])
    whole = datasets.load("omniglot", tmp_path)
    first = np.pad(whole.x_train[:1, :, :, 0], ((0, 0), (1, 2), (1, 2)))[0, :4, :4].mean()
    assert found.x_train["Greek"][0, 0, 0, 0] == pytest.approx(first)
    with pytest.raises(ValueError, match="`pooled`"):
        datasets.omniglot_alphabets(tmp_path, pooled=0)


def test_batches_of_own_images_hold_one_of_each_task():
    x = {"a": np.arange(10, dtype="float32").reshape(10, 1, 1, 1), "b": 100 + np.arange(4.0).reshape(4, 1, 1, 1)}
    y = {"a": np.arange(10), "b": np.arange(4)}
    batches = datasets.TaskBatches(x, y, batch_size=4)
    assert len(batches) == 3
    seen = []
    for i in range(3):
        images, labels = batches[i]
        assert images.shape == (2, 2, 1, 1, 1)
        np.testing.assert_array_equal(images[:, 0, 0, 0, 0], labels["a"])
        np.testing.assert_array_equal(images[:, 1, 0, 0, 0], 100 + labels["b"])
        seen += labels["a"].tolist()
    assert len(set(seen)) == 6


def test_batches_of_shared_images(scenes):
    batches = datasets.TaskBatches(scenes.x_train, scenes.y_train, batch_size=16, shift=1, seed=1)
    images, labels = batches[0]
    assert images.shape == (16, 12, 12, 1)
    assert set(labels) == {"left", "right"}
    assert len(batches) == 2


class Drawn:
    """Gives angles, logarithms of sizes and shears that a test has chosen."""

    def __init__(self, *values):
        self.values = iter(values)

    def uniform(self, low, high, shape):
        value = next(self.values)
        assert low <= value <= high
        return np.full(shape, value)


def spot(row, column, size=41):
    """An image `[1, size, size, 1]` of a round spot that far from the centre."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 4).astype("float32")[None, :, :, None]


def middle(images):
    """Row and column of the centre of mass, from the centre of the image."""
    image = images[0, :, :, 0]
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return [(image * axis).sum() / image.sum() - (image.shape[0] - 1) / 2 for axis in (y, x)]


def test_tilted_images_show_a_spot_where_geometry_puts_it():
    for row, column in ((0, 9), (-7, 2), (6, 6)):
        image = spot(row, column)
        np.testing.assert_array_equal(tilted(image, Drawn(0, 0, 0), 15), image)
        angle = np.deg2rad(12)
        turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) @ (row, column)
        np.testing.assert_allclose(middle(tilted(image, Drawn(12, 0, 0), 15)), turned, atol=0.02)
        larger = np.multiply(np.exp(0.1), (row, column))
        np.testing.assert_allclose(middle(tilted(image, Drawn(0, 10, 0), 15)), larger, atol=0.02)
        sheared = (row, column - 0.15 * row)
        np.testing.assert_allclose(middle(tilted(image, Drawn(0, 0, 15), 15)), sheared, atol=0.02)


def test_what_turns_out_of_the_image_is_lost_and_zeros_come_in():
    ones = np.ones((3, 9, 9, 2), "float32")
    found = tilted(ones, np.random.default_rng(0), 40)
    assert found.shape == ones.shape
    assert found.dtype == np.float32
    assert found.max() <= 1 + 1e-6
    np.testing.assert_allclose(found[:, 4, 4], 1, atol=1e-6)
    np.testing.assert_allclose(found[..., 0], found[..., 1])
    assert tilted(ones, Drawn(40, 0, 0), 40)[0, 0, 0, 0] == 0


@pytest.mark.parametrize("own", [True, False])
def test_batches_are_turned_anew_in_every_epoch(scenes, own):
    x = dict.fromkeys(scenes.tasks, scenes.x_train) if own else scenes.x_train
    options = {"batch_size": 16, "seed": 1}
    plain = datasets.TaskBatches(x, scenes.y_train, **options)[0][0]
    batches = datasets.TaskBatches(x, scenes.y_train, **options, rotation=10)
    first, labels = batches[0]
    again = datasets.TaskBatches(x, scenes.y_train, **options, rotation=10)[0]
    assert first.shape == plain.shape
    np.testing.assert_array_equal(first, again[0])
    for task in scenes.tasks:
        np.testing.assert_array_equal(labels[task], again[1][task])
    images = first.reshape(-1, *scenes.input_shape)
    apart = np.abs(images[:, None] - scenes.x_train[None]).mean(axis=(2, 3, 4))
    assert (apart.min(axis=1) > 0).all()  # every image has been turned, and is still nearest to the one it was
    nearest = scenes.x_train[apart.argmin(axis=1)].reshape(plain.shape)
    assert (nearest == plain).all(axis=(-3, -2, -1)).mean() > 0.9
    assert (batches[0][0] != first).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: datasets.TaskBatches(np.zeros((2, 1)), {"b": np.zeros(2)}, rotation=90),
        lambda: datasets.TaskBatches(np.zeros((2, 1)), {"b": np.zeros(2)}, rotation=-1),
        lambda: datasets.two_digit_scenes(datasets.load("digits"), shift=3),
        lambda: datasets.two_digit_scenes(datasets.load("digits"), counts=(0, 1, 1)),
        lambda: datasets.TaskBatches({"a": np.zeros((2, 1))}, {"b": np.zeros(2)}),
        lambda: datasets.TaskBatches(np.zeros((2, 1)), {"b": np.zeros(3)}),
    ],
)
def test_bad_input(make):
    with pytest.raises(ValueError, match="Invalid value for argument .* Received"):
        make()
