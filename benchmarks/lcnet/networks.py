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
from keras_efficient.callbacks import ComputeBudget, GateSchedule
from keras_efficient.models import LCResNet, copy_weights, harden, remove_idle_branches

MARGIN = 0.01  # the budget is asked for that much below the target, since it is met on validation data within 0.03
CALIBRATION = 80  # batches on which batch normalisation is measured anew
WATCHED = 10_000  # training images: a layer gate that none of them shuts gets no branch
GATED = ("lc", "taught")  # what names of networks with gates begin with


@dataclasses.dataclass(frozen=True)
class Plan:
    """The network, and epochs.

    Attributes:
        depth: Of the networks.
        variant: `"thin"` or `"wide"`, see `LCResNet`.
        dense: Epochs of the dense network from which all begin.
        gated: Epochs with gates and budget.
        fine: Epochs of fine-tuning behind it, at a low rate, the budget kept.
        target: Share of the dense multiply-adds at which LC-Net is compared with its rivals.
        short_gated, short_fine: Epochs instead of `gated` and `fine` at other targets.
    """

    depth: int = 20
    variant: str = "thin"
    dense: int = 14
    gated: int = 6
    fine: int = 3
    target: float = 0.46
    short_gated: int = 3
    short_fine: int = 1

    @property
    def rest(self) -> int:
        """Epochs behind the common beginning."""
        return self.gated + self.fine

    def epochs(self, target: float) -> tuple[int, int]:
        """With gates and budget, and of fine-tuning, at a target."""
        return (self.gated, self.fine) if target == self.target else (self.short_gated, self.short_fine)

    @property
    def total(self) -> int:
        """Epochs of everything that is compared."""
        return self.dense + self.rest


@dataclasses.dataclass(frozen=True)
class Net:
    """What is compared of one network.

    Attributes:
        plan: How it is trained.
        rivals: Methods of `Workshop`.
        targets: Further budgets of LC-Net, as shares of the dense multiply-adds.
    """

    plan: Plan
    rivals: tuple[str, ...]
    targets: tuple[float, ...] = ()

    @property
    def gated(self) -> str:
        """The LC-Net that is compared with rivals."""
        return f"lc_{self.plan.target:g}"

    @property
    def names(self) -> list[str]:
        """All networks that are compared, the one that the others are measured by first."""
        return ["dense", self.gated, self.taught, *[f"lc_{target:g}" for target in self.targets], *self.rivals]

    @property
    def taught(self) -> str:
        """Gates that decide and do not scale, trained with the dense network as teacher."""
        return f"taught_{self.plan.target:g}"


NETS = {
    "thin": Net(Plan(), ("narrow", "winners", "random_drop", "frozen"), (0.7, 0.58, 0.35, 0.25)),
    "wide": Net(Plan(depth=18, variant="wide"), ("narrow", "frozen")),
}


@dataclasses.dataclass(frozen=True)
class Workshop:
    """Makes the networks of one seed in a folder, each once."""

    work: pathlib.Path
    dataset: datasets.Dataset
    plan: Plan
    seed: int = 0

    def network(self, name: str) -> keras.Model:
        """By name: `dense` (as many epochs in all as the others), `lc_<target>`, `taught_<target>`, or a rival."""
        kind, _, target = name.partition("_")
        if kind in GATED:
            return self.lc(float(target)) if kind == "lc" else self.taught()
        made: Callable[[], keras.Model] = getattr(self, name)
        return made()

    def start(self) -> keras.Model:
        """The dense network from which all but the narrow one begin."""
        return self._trained("start", self._empty, training.Recipe(self.plan.dense))

    def dense(self) -> keras.Model:
        """The dense network, trained on for as many epochs as the others."""
        return self._trained("dense", functools.partial(self._from_start, self._empty), self._second(self.plan.rest))

    def lc(self, target: float) -> keras.Model:
        """The LC-Net at a budget: trained to it, fine-tuned within it, its gates made final."""
        path = self.work / f"lc_{target:g}_{self.seed}.keras"
        if not path.exists():
            self.gated(target)
            budget = ComputeBudget(target - MARGIN, warmup_epochs=0)
            _, fine = self.plan.epochs(target)
            tuned = self._trained(f"tuned_{target:g}", lambda: self.gated(target), self._fine(fine), budget)
            self._finish(tuned, path)
        return keras.saving.load_model(path)

    def gated(self, target: float) -> keras.Model:
        """The LC-Net behind its training to the budget, before hardening."""
        make = functools.partial(self._from_start, functools.partial(self._empty, gates=True))
        gated, _ = self.plan.epochs(target)
        return self._trained(f"gated_{target:g}", make, self._second(gated), ComputeBudget(target - MARGIN))

    def taught(self) -> keras.Model:
        """Binary concrete gates at the same cost and for as many epochs, with the dense network as teacher."""
        target = self.plan.target
        path = self.work / f"taught_{target:g}_{self.seed}.keras"
        if not path.exists():
            make = functools.partial(
                self._from_start, functools.partial(self._empty, gates=True, gate="binary_concrete")
            )
            callbacks = ComputeBudget(target - MARGIN), GateSchedule(1.0, 0.5)
            name, recipe = f"gated_{target:g}_taught", self._second(self.plan.rest)
            self._finish(self._trained(name, make, recipe, *callbacks, teacher=self.dense()), path)
        return keras.saving.load_model(path)

    def frozen(self) -> keras.Model:
        """The LC-Net's gates fixed to their mean pattern at the same cost, then fine-tuned as it is."""
        self.gated(self.plan.target)

        def fixed() -> keras.Model:
            x = self.dataset.x_validation[:2000]
            model = rivals.freeze_gates(self.gated(self.plan.target), x, self.plan.target)
            return harden(model, self._images())

        return self._trained("frozen", fixed, self._fine(self.plan.fine))

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
        whole, full = cost.profile(self._empty()).macs, self._empty().get_layer("stem_conv").filters
        widths = range(full // 4, full + 1)
        return min(widths, key=lambda width: abs(cost.profile(self._empty(width)).macs / whole - self.plan.target))

    def density(self) -> float:
        """Share of the blocks' multiply-adds at which the whole network spends the first target."""
        found = cost.profile(self._empty())
        fixed = sum(layer.macs for layer in found.layers if "GatedConv2D" not in layer.class_name) / found.macs
        return (self.plan.target - fixed) / (1 - fixed)

    def _empty(self, width: int | None = None, gates: bool = False, **options: Any) -> keras.Model:
        kinds = {"variant": self.plan.variant, "layer_gates": gates, "channel_gates": gates, **options}
        return self._sized(functools.partial(LCResNet, self.plan.depth, width, **kinds))()

    def _finish(self, model: keras.Model, path: pathlib.Path) -> None:
        """Gates become final, and what is always open gets no branch."""
        remove_idle_branches(harden(model, self._images()), self.dataset.x_train[:WATCHED])
        training.save(model, path)

    def _sized(self, make: Callable[..., keras.Model]) -> Callable[[], keras.Model]:
        sizes = {"num_classes": self.dataset.num_classes, "input_shape": self.dataset.input_shape}
        return functools.partial(make, **sizes)

    def _from_start(self, make: Callable[[], keras.Model]) -> keras.Model:
        model = make()
        copy_weights(self.start(), model)
        return model

    def _second(self, epochs: int) -> training.Recipe:
        return training.Recipe(epochs, peak=0.05, warmup=0.1)

    def _fine(self, epochs: int) -> training.Recipe:
        return training.Recipe(epochs, peak=0.01, warmup=0.0)

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
        teacher: keras.Model | None = None,
    ) -> keras.Model:
        path = self.work / f"{name}_{self.seed}.keras"
        return training.trained(path, make, self.dataset, recipe, callbacks, self.seed, teacher)
