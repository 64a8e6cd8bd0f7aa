"""What quantised networks learn from: labels, or what the float network makes of the same images."""

import dataclasses
from typing import Any

import keras

from benchmarks.alq import networks
from benchmarks.teaching import Taught, softened_loss
from keras_efficient import datasets


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
