"""What a network learns from: labels, or labels and what another network makes of the same images."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient import datasets

Tensor = Any
TEMPERATURE = 4.0
SHARE = 0.7
"""Of the teacher in the loss, beside labels."""


@dataclasses.dataclass(frozen=True)
class Lesson:
    """Arguments of `compile` and `fit`.

    Attributes:
        batches: Training images with their targets.
        loss: For these targets.
        accuracy: A metric for them.
        validation: Images and targets.
    """

    batches: keras.utils.PyDataset
    loss: Any
    accuracy: Any
    validation: tuple[Any, Any]


def lesson(batches: keras.utils.PyDataset, dataset: datasets.Dataset, teacher: keras.Model | None = None) -> Lesson:
    """Labels as targets; with a teacher beside its softened probabilities for each image of `batches`.

    Distillation as in Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
    """
    x, y = dataset.x_validation, dataset.y_validation
    if teacher is None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return Lesson(batches, loss, "accuracy", (x, y))
    unseen = np.full((len(y), dataset.num_classes), 1 / dataset.num_classes)  # no teacher for validation images
    targets = np.concatenate([keras.utils.to_categorical(y, dataset.num_classes), unseen], axis=1)
    return Lesson(Taught(batches, teacher, labels=True), distilled_loss, label_accuracy, (x, targets))


class Taught(keras.utils.PyDataset):
    """Batches of images with the teacher's probabilities for them, behind one-hot labels where these are wanted."""

    def __init__(self, data: keras.utils.PyDataset, teacher: keras.Model, labels: bool = False) -> None:
        super().__init__()
        self._data, self._probabilities, self._labels = data, _probabilities(teacher), labels

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        images, labels = self._data[index]
        probabilities = self._probabilities(images)
        if not self._labels:
            return images, probabilities
        one_hot = ops.one_hot(labels, probabilities.shape[-1], dtype="float32")
        return images, ops.concatenate([one_hot, probabilities], axis=-1)

    def on_epoch_end(self) -> None:
        self._data.on_epoch_end()


@keras.saving.register_keras_serializable(package="benchmarks")
def softened_loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Cross-entropy of probabilities and logits, both softened."""
    return TEMPERATURE**2 * keras.losses.categorical_crossentropy(y_true, y_pred / TEMPERATURE, from_logits=True)


@keras.saving.register_keras_serializable(package="benchmarks")
def distilled_loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """`SHARE` of the softened loss, the rest that of labels; targets hold both."""
    one_hot, probabilities = ops.split(y_true, 2, axis=-1)
    labels = keras.losses.categorical_crossentropy(one_hot, y_pred, from_logits=True)
    return (1 - SHARE) * labels + SHARE * softened_loss(probabilities, y_pred)


@keras.saving.register_keras_serializable(package="benchmarks")
def label_accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Whether the largest logit is that of the label."""
    one_hot, _ = ops.split(y_true, 2, axis=-1)
    return keras.metrics.categorical_accuracy(one_hot, y_pred)


def _probabilities(teacher: keras.Model) -> Callable[[Any], Tensor]:
    if keras.backend.backend() != "jax":
        return lambda images: ops.softmax(teacher.predict_on_batch(images) / TEMPERATURE)
    import jax  # compiled, and without waiting for the result

    trainable = [ops.copy(variable.value) for variable in teacher.trainable_variables]
    others = [ops.copy(variable.value) for variable in teacher.non_trainable_variables]

    def softened(trainable: Any, others: Any, images: Tensor) -> Tensor:
        logits, _ = teacher.stateless_call(trainable, others, images, training=False)
        return ops.softmax(logits / TEMPERATURE)

    compiled = jax.jit(softened)
    return lambda images: compiled(trainable, others, images)
