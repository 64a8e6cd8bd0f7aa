"""What quantised networks learn from: labels, or what the float network makes of the same images."""

import keras

from benchmarks.alq import networks
from benchmarks.teaching import Lesson, Taught, softened_loss
from keras_efficient import datasets


def lessons(dataset: datasets.Dataset, seed: int, teacher: keras.Model | None = None) -> Lesson:
    """Labels as targets; with a teacher, its softened probabilities for each augmented image.

    Distillation as in Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, without labels.
    """
    data, y = networks.batches(dataset, seed), dataset.y_validation
    if teacher is None:
        return Lesson(data, networks.loss(), "accuracy", (dataset.x_validation, y))
    one_hot = keras.utils.to_categorical(y, dataset.num_classes)
    return Lesson(Taught(data, teacher), softened_loss, "accuracy", (dataset.x_validation, one_hot))
