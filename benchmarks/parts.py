"""Small parts of data sets, for a quick look at a benchmark."""

import dataclasses

from keras_efficient import datasets


def few(dataset: datasets.Dataset, train: int, validation: int, test: int) -> datasets.Dataset:
    """The first images of each part."""
    counts = {"train": train, "validation": validation, "test": test}
    cut = {f"{axis}_{part}": getattr(dataset, f"{axis}_{part}")[:n] for part, n in counts.items() for axis in "xy"}
    return dataclasses.replace(dataset, **cut)
