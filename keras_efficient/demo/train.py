"""Training with one recipe for every network, and a progress bar for each."""

from collections.abc import Sequence
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keras_efficient.datasets import Dataset
from keras_efficient.demo.data import training_batches
from keras_efficient.demo.settings import Recipe

STEPS_AT_ONCE = 4
EFFICIENCY = {"macs_share": "share of MACs", "average_bits": "bits"}  # names in the logs: how they are shown


def train(
    model: keras.Model,
    dataset: Dataset,
    recipe: Recipe,
    seed: int,
    console: Console,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Trains a network with the recipe: AdamW, one cycle, cross-entropy of every exit."""
    batches = training_batches(dataset, recipe, seed)
    steps = recipe.epochs * len(batches)
    warm_up = max(1, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 40, max(1, steps - warm_up), warmup_target=recipe.learning_rate, warmup_steps=warm_up
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=min(STEPS_AT_ONCE, len(batches)),
    )
    model.fit(batches, epochs=recipe.epochs, verbose=0, callbacks=[*callbacks, EpochBar(model.name, console)])


class EpochBar(keras.callbacks.Callback):
    """One line per network: epochs done, time, and the numbers that matter of the last epoch."""

    def __init__(self, label: str, console: Console) -> None:
        super().__init__()
        self._label = label
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
        )

    def on_train_begin(self, logs: Any = None) -> None:
        self._bar.start()
        self._task = self._bar.add_task(f"training {self._label:13}", total=self.params["epochs"], numbers="")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._bar.update(self._task, completed=epoch + 1, numbers=_numbers(logs or {}))

    def on_train_end(self, logs: Any = None) -> None:
        self._bar.stop()


def _numbers(logs: dict[str, float]) -> str:
    accuracies = [value for name, value in logs.items() if name.endswith("accuracy") and not name.startswith("val_")]
    shown = [f"loss {logs['loss']:.3f}"] if "loss" in logs else []
    shown += [f"accuracy {' '.join(f'{value:.3f}' for value in accuracies)}"] if accuracies else []
    efficiency = [f"{label} {logs[name]:.2f}" for name, label in EFFICIENCY.items() if name in logs]
    return "  ".join(shown + efficiency)
