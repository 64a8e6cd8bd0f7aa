"""What quantised networks learn from: labels, or what the float network makes of the same images."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from benchmarks.alq import networks
from keras_efficient import datasets

Tensor = Any
TEMPERATURE = 4.0


@dataclasses.dataclass(frozen=True)
class Lessons:
    """Arguments of `compile` and `fit`.

    Attributes:
        batches: Training images with their targets.
        loss: For these targets.
        validation: Images and targets.
    """

    batches: keras.utils.PyDataset
    loss: Any
    validation: tuple[Any, Any]


def lessons(dataset: datasets.Dataset, seed: int, teacher: keras.Model | None = None) -> Lessons:
    """Labels as targets; with a teacher, its softened probabilities for each augmented image.

    Distillation as in Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, without labels.
    """
    data, y = networks.batches(dataset, seed), dataset.y_validation
    if teacher is None:
        return Lessons(data, networks.loss(), (dataset.x_validation, y))
    one_hot = keras.utils.to_categorical(y, dataset.num_classes)
    return Lessons(Taught(data, teacher), softened_loss, (dataset.x_validation, one_hot))


class Taught(keras.utils.PyDataset):
    """Batches of images with the teacher's probabilities for them."""

    def __init__(self, data: keras.utils.PyDataset, teacher: keras.Model) -> None:
        super().__init__()
        self._data, self._probabilities = data, _probabilities(teacher)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        images, _ = self._data[index]
        return images, self._probabilities(images)

    def on_epoch_end(self) -> None:
        self._data.on_epoch_end()


@keras.saving.register_keras_serializable(package="benchmarks")
def softened_loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Cross-entropy of probabilities and logits, both softened."""
    return TEMPERATURE**2 * keras.losses.categorical_crossentropy(y_true, y_pred / TEMPERATURE, from_logits=True)


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
