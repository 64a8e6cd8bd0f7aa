import numpy as np

from keras_efficient.datasets import Augmented, augment

IMAGES = np.arange(6 * 5 * 4 * 2, dtype="float32").reshape(6, 5, 4, 2) + 1


def test_shifts_and_mirror_images_of_the_image():
    found = augment(np.repeat(IMAGES[:1], 200, axis=0), np.random.default_rng(0), shift=1)
    padded = np.pad(IMAGES[0], ((1, 1), (1, 1), (0, 0)))
    shifted = [padded[r : r + 5, c : c + 4] for r in range(3) for c in range(3)]
    expected = {image.tobytes() for shift in shifted for image in (shift, shift[:, ::-1])}
    assert {image.tobytes() for image in found} == expected


def test_noise_and_nothing():
    np.testing.assert_array_equal(augment(IMAGES, np.random.default_rng(0), shift=0, flip=False), IMAGES)
    noisy = augment(np.repeat(IMAGES, 50, axis=0), np.random.default_rng(0), shift=0, flip=False, noise=0.5)
    assert abs((noisy - np.repeat(IMAGES, 50, axis=0)).std() - 0.5) < 0.02


def test_batches_keep_labels_with_images_and_change_by_epoch():
    batches = Augmented(IMAGES, np.arange(6), 2, shift=0, flip=False, seed=3)
    epochs = []
    for _ in range(2):
        seen = []
        for index in range(len(batches)):
            images, labels = batches[index]
            np.testing.assert_array_equal(images, IMAGES[labels])
            seen += labels.tolist()
        assert sorted(seen) == list(range(6))
        epochs.append(seen)
        batches.on_epoch_end()
    assert epochs[0] != epochs[1]
    again = Augmented(IMAGES, np.arange(6), 2, shift=0, flip=False, seed=3)
    np.testing.assert_array_equal(again[0][1], epochs[0][:2])
