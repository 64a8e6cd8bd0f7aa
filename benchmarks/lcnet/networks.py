"""LC-Nets at several budgets, all from one dense network, and their rivals; interrupted trainings go on."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from benchmarks import training
from benchmarks.lcnet import rivals
from keras_efficient import cost, datasets
from keras_efficient.callbacks import ComputeBudget
from keras_efficient.models import LCResNet, copy_weights, harden, thin_resnet

TARGETS = (0.46, 0.7, 0.58, 0.35, 0.25)
"""Shares of the dense multiply-adds; rivals are trained at the first one."""
RIVALS = ("narrow", "winners", "random_drop", "frozen")
MARGIN = 0.01  # the budget is asked for that much below the target, since it is met on validation data within 0.03
CALIBRATION = 80  # batches on which batch normalisation is measured anew


@dataclasses.dataclass(frozen=True)
class Plan:
    """Depth of the thin network, and epochs.

    Attributes:
        depth: Of the networks.
        dense: Epochs of the dense network from which all begin.
        gated: Epochs with gates and budget.
        fine: Epochs of fine-tuning behind it, gates fixed.
    """

    depth: int = 20
    dense: int = 24
    gated: int = 8
    fine: int = 3

    @property
    def rest(self) -> int:
        """Epochs behind the common beginning."""
        return self.gated + self.fine

    @property
    def total(self) -> int:
        """Epochs of everything that is compared."""
        return self.dense + self.rest


@dataclasses.dataclass(frozen=True)
class Workshop:
    """Makes the networks of one seed in a folder, each once."""

    work: pathlib.Path
    dataset: datasets.Dataset
    plan: Plan
    seed: int = 0

    def network(self, name: str) -> keras.Model:
        """By name: `dense` (as many epochs in all as the others), `lc_<target>`, or a rival."""
        if name.startswith("lc_"):
            return self.lc(float(name[3:]))
        made: Callable[[], keras.Model] = getattr(self, name)
        return made()

    def start(self) -> keras.Model:
        """The dense network from which all but the narrow one begin."""
        return self._trained("start", self._empty, training.Recipe(self.plan.dense))

    def dense(self) -> keras.Model:
        """The dense network, trained on for as many epochs as the others."""
        return self._trained("dense", functools.partial(self._from_start, self._empty), self._second(self.plan.rest))

    def lc(self, target: float) -> keras.Model:
        """The LC-Net at a budget: gates trained, made final, weights fitted to them."""
        self.gated(target)

        def hardened() -> keras.Model:
            return harden(self.gated(target), self._images(), threshold=0.01)

        return self._trained(f"lc_{target:g}", hardened, self._fine())

    def gated(self, target: float) -> keras.Model:
        """The LC-Net behind its training to the budget, before hardening."""
        make = functools.partial(self._from_start, functools.partial(self._empty, gates=True))
        return self._trained(f"gated_{target:g}", make, self._second(self.plan.gated), ComputeBudget(target - MARGIN))

    def frozen(self) -> keras.Model:
        """The LC-Net's gates fixed to their mean pattern at the same cost, then fine-tuned as it is."""
        self.gated(TARGETS[0])

        def fixed() -> keras.Model:
            x = self.dataset.x_validation[:2000]
            model = rivals.freeze_gates(self.gated(TARGETS[0]), x, TARGETS[0])
            return harden(model, self._images())

        return self._trained("frozen", fixed, self._fine())

    def narrow(self) -> keras.Model:
        """A dense network with fewer channels everywhere, trained from the beginning for as many epochs in all."""
        return self._trained("narrow", lambda: self._empty(width=self.narrow_width()), training.Recipe(self.plan.total))

    def winners(self) -> keras.Model:
        """Top-k channels (FBS)."""
        make = functools.partial(rivals.winners, self.plan.depth, self.density())
        return self._trained(
            "winners", functools.partial(self._from_start, self._sized(make)), self._second(self.plan.rest)
        )

    def random_drop(self) -> keras.Model:
        """Blocks dropped at random."""
        make = functools.partial(rivals.random_drop, self.plan.depth, self.density())
        return self._trained(
            "random_drop", functools.partial(self._from_start, self._sized(make)), self._second(self.plan.rest)
        )

    def narrow_width(self) -> int:
        """Channels of the first stage for which a dense network comes nearest to the first target's cost."""
        whole = cost.profile(self._empty()).macs
        return min(range(4, 17), key=lambda width: abs(cost.profile(self._empty(width)).macs / whole - TARGETS[0]))

    def density(self) -> float:
        """Share of the blocks' multiply-adds at which the whole network spends the first target."""
        found = cost.profile(self._empty())
        fixed = sum(layer.macs for layer in found.layers if "GatedConv2D" not in layer.class_name) / found.macs
        return (TARGETS[0] - fixed) / (1 - fixed)

    def _empty(self, width: int | None = None, gates: bool = False) -> keras.Model:
        return self._sized(
            functools.partial(LCResNet, self.plan.depth, width, layer_gates=gates, channel_gates=gates)
        )()

    def _sized(self, make: Callable[..., keras.Model]) -> Callable[[], keras.Model]:
        sizes = {"num_classes": self.dataset.num_classes, "input_shape": self.dataset.input_shape}
        return functools.partial(make, **sizes)

    def _from_start(self, make: Callable[[], keras.Model]) -> keras.Model:
        model = make()
        copy_weights(self.start(), model)
        return model

    def _second(self, epochs: int) -> training.Recipe:
        return training.Recipe(epochs, peak=0.05, warmup=0.1)

    def _fine(self) -> training.Recipe:
        return training.Recipe(self.plan.fine, peak=0.01, warmup=0.0)

    def _images(self) -> Iterator[Any]:
        data = datasets.Augmented(
            self.dataset.x_train, self.dataset.y_train, training.BATCH, shift=training.SHIFT, seed=self.seed
        )
        return (data[k][0] for k in range(min(CALIBRATION, len(data))))

    def _trained(
        self,
        name: str,
        make: Callable[[], keras.Model],
        recipe: training.Recipe,
        *callbacks: keras.callbacks.Callback,
    ) -> keras.Model:
        path = self.work / f"{name}_{self.seed}.keras"
        return training.trained(path, make, self.dataset, recipe, callbacks, self.seed)


def plain(dense: keras.Model, plan: Plan) -> keras.Model:
    """The dense network of builtin layers alone, as one would export it; same weights, same outputs."""
    inputs = dense.inputs[0].shape[1:]
    model = thin_resnet(plan.depth, num_classes=dense.output.shape[-1], input_shape=tuple(inputs))
    sources = {}
    for weight in dense.weights:
        *_, above, layer, name = ["", "", *weight.path.split("/")]
        if layer == "norm":  # the normalisation inside a gated convolution
            layer = f"{above}_bn"
        elif f"{layer}_conv" in {known.name for known in model.layers}:
            layer = f"{layer}_conv"
        sources[f"{layer}/{name}"] = weight
    for weight in model.weights:
        weight.assign(keras.ops.convert_to_numpy(sources["/".join(weight.path.split("/")[-2:])]))
    return model
