"""Data sets: sizes, ranges and fixed splits, and one sentence for every file that does not fit."""

import keras
import numpy as np
import pytest

from keras_efficient import datasets
from keras_efficient.datasets.dataset import positions_in_class, stratified_parts

OMNIGLOT_NAMES = np.array(["Balinese", "Early_Aramaic"])


@pytest.fixture(autouse=True)
def _no_data_variable(monkeypatch):
    monkeypatch.delenv(datasets.DATA_VARIABLE, raising=False)


def small_arrays(name, rng):
    """What a file of that name holds, ten or so images of it."""
    if name == "omniglot":
        return {
            "images": rng.integers(0, 2, (10, 105, 105), "uint8"),
            "alphabet": np.repeat([0, 1], 5).astype("uint8"),
            "character": np.repeat([3, 7], 5).astype("uint16"),
            "alphabet_names": OMNIGLOT_NAMES,
        }
    shape = (28, 28) if name == "mnist" else (32, 32, 3)
    return {
        "x_train": rng.integers(0, 256, (40, *shape), "uint8"),
        "y_train": np.arange(40, dtype="uint8") % 4,
        "x_test": rng.integers(0, 256, (6, *shape), "uint8"),
        "y_test": np.arange(6, dtype="uint8"),
    }


def test_digits_are_embedded():
    data = datasets.load("digits")
    assert data.input_shape == (8, 8, 1)
    assert (len(data.y_train), len(data.y_validation), len(data.y_test)) == (1085, 357, 355)
    assert data.x_train.dtype == np.float32
    assert (data.x_train.min(), data.x_train.max()) == (0.0, 1.0)
    assert data.num_classes == 10 == len(data.class_names)
    for labels in (data.y_train, data.y_validation, data.y_test):
        assert labels.dtype == np.int64
        assert np.ptp(np.bincount(labels, minlength=10)) <= 6  # the classes themselves differ by nine
    mean, std = data.normalization
    raw = data.x_test * std + mean
    np.testing.assert_array_equal(raw, np.round(raw))


def test_digits_agree_with_scikit_learn():
    original = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed").load_digits()
    data = datasets.load("digits")
    images = np.concatenate([data.x_train, data.x_validation, data.x_test])[..., 0] * 16
    labels = np.concatenate([data.y_train, data.y_validation, data.y_test])
    ours = sorted(zip(labels.tolist(), (image.tobytes() for image in images), strict=True))
    pixels = (image.astype("float32").tobytes() for image in original.images)
    theirs = zip(original.target.tolist(), pixels, strict=True)
    assert ours == sorted(theirs)


@pytest.mark.parametrize(("name", "shape"), [("mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))])
def test_training_and_test_file(tmp_path, name, shape):
    arrays = small_arrays(name, np.random.default_rng(0))
    np.savez(tmp_path / f"{name}.npz", **arrays)
    data = datasets.load(name, tmp_path)
    assert data.input_shape == shape
    assert (len(data.y_train), len(data.y_validation), len(data.y_test)) == (36, 4, 6)
    np.testing.assert_array_equal(data.y_validation, [0, 1, 2, 3])
    np.testing.assert_allclose(data.x_test.reshape(arrays["x_test"].shape) * 255, arrays["x_test"], atol=1e-4)


def test_omniglot_file(tmp_path):
    np.savez(tmp_path / "omniglot.npz", **small_arrays("omniglot", np.random.default_rng(0)))
    data = datasets.load("omniglot", tmp_path)
    assert data.class_names == ("Balinese/3", "Early_Aramaic/7")
    assert (len(data.y_train), len(data.y_validation), len(data.y_test)) == (6, 2, 2)
    assert set(np.unique(data.x_train)) == {0.0, 1.0}


def test_directory_from_the_environment(tmp_path, monkeypatch):
    np.savez(tmp_path / "mnist.npz", **small_arrays("mnist", np.random.default_rng(0)))
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(tmp_path))
    assert len(datasets.load("mnist").y_test) == 6


def test_through_keras_where_no_directory_is_given(monkeypatch):
    arrays = small_arrays("cifar10", np.random.default_rng(0))
    loaded = ((arrays["x_train"], arrays["y_train"][:, None]), (arrays["x_test"], arrays["y_test"][:, None]))
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: loaded)
    data = datasets.load("cifar10")
    assert data.y_train.shape == (36,)
    assert data.class_names[3] == "cat"


def test_unknown_name():
    with pytest.raises(ValueError, match="Expected one of digits, mnist, cifar10, omniglot. Received: 'svhn'"):
        datasets.load("svhn")


def test_omniglot_needs_a_directory():
    with pytest.raises(FileNotFoundError, match="`data_dir` or the variable KERAS_EFFICIENT_DATA"):
        datasets.load("omniglot")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected a directory with the file mnist\.npz\. Received"):
        datasets.load("mnist", tmp_path)


def test_file_that_is_no_npz(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"PK\x03\x04 but nothing after it")
    with pytest.raises(ValueError, match="Expected an .npz file of plain arrays"):
        datasets.load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_test": None}, r"Missing: \['y_test'\]"),
        ({"x_test": np.zeros((6, 27, 28), "uint8")}, r"Array `x_test` .* Expected \(any, 28, 28\). Received"),
        ({"y_test": np.zeros(5, "uint8")}, "Expected one label per image. Received: 6 images and 5 labels"),
        ({"y_test": np.full(6, 10, "uint8")}, "invalid labels. Expected whole numbers from 0 to 9. Received"),
        ({"x_test": np.zeros((6, 28, 28), "float32")}, "whole numbers from 0 to 255. Received: float32"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, change, message):
    arrays = {**small_arrays("mnist", np.random.default_rng(0)), **change}
    np.savez(tmp_path / "mnist.npz", **{key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=message):
        datasets.load("mnist", tmp_path)


def test_parts_are_disjoint_and_whole():
    labels = np.random.default_rng(0).integers(0, 3, 101)
    parts = stratified_parts(labels, (3, 1, 1))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(101))


def test_positions_in_class():
    np.testing.assert_array_equal(positions_in_class(np.array([5, 2, 5, 5, 2])), [0, 0, 1, 2, 1])
