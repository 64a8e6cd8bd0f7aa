"""`FilterSharingSchedule`: warm-up, search, hardening and fine-tuning of networks that share filters among tasks."""

from typing import Any

import keras
import numpy as np

from keras_efficient.callbacks.share_rate import meet_share_rate
from keras_efficient.callbacks.synchronize import synchronize
from keras_efficient.layers.filter_sharing import FilterSharing
from keras_efficient.models.decision_training import DecisionTraining
from keras_efficient.models.multi_task import MultiTask

Logs = dict[str, Any] | None


class FilterSharingSchedule(keras.callbacks.Callback):
    """Drives what tasks share through one call of `fit`, in three phases of whole epochs.

    | phase | epochs | what happens |
    |---|---|---|
    | warm-up | first `warmup` of all | every task uses the same filters, and the same normalisation |
    | search | next `search` | filters of all sources start as copies; decisions are sampled and learned |
    | fine-tuning | the rest | decisions are fixed at the likeliest; weights go on |

    During the search the loss has the further term

        strength * (share_rate - goal)^2 + private_price * (1 - share_rate)

    where `share_rate` is 1 when all tasks use the same filters and 0 when each has its own, by parameters, and the goal
    falls from 1 to `target` over the first half of the search. The rate is that of the decisions as they stand, so what
    it says is what will be stored. Where the search ends beside the target, the decisions of all layers that are
    nearest to undecided turn until it is met. Filters of finished tasks count too, so the rate of a network with an
    added task (`MultiTask.with_task`) can only come to lie between that of nothing new and that of all new.
    `share_rate` appears in the logs of every epoch. A training that is resumed (`initial_epoch`) goes on where it was.

    Args:
        target: Share rate to arrive at, in [0, 1]; None for a price alone.
        strength: Weight of the squared error.
        private_price: Loss for having all filters private instead of shared.
        warmup, search: Shares of the epochs; what they leave is fine-tuning.
        temperature: Of the samples, at the beginning and at the end of the search.
        unlock: Whether layers start to search one after the other, from the last to the first, over the first half of
            the search.
        decision_data: `(x, y)` as for `fit`, or a dataset of it, from samples that `fit` does not see: decisions are
            learned on them alone, in one pass before every epoch of the search, weights on the others (bilevel).
            None to learn both together.
        decision_learning_rate: Of the Adam optimizer of those passes.

    Raises:
        ValueError: If an argument is out of range; when training begins, if the model is no `MultiTask` network with
            layers that share filters, or there are too few epochs for the three phases.

    In the manner of FiShNet (Dai, Kong and Guo, CIKM 2021); schedule after Sun et al., "AdaShare", NeurIPS 2020.
    """

    def __init__(
        self,
        target: float | None = 0.5,
        strength: float = 10.0,
        private_price: float = 0.0,
        warmup: float = 0.1,
        search: float = 0.2,
        temperature: tuple[float, float] = (1.0, 0.5),
        unlock: bool = False,
        decision_data: Any = None,
        decision_learning_rate: float = 1e-2,
    ) -> None:
        super().__init__()
        shares = {"target": 0.0 if target is None else target, "warmup": warmup, "search": search}
        for name, value in shares.items():
            if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)) or not 0 <= value <= 1:
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected a share in [0, 1]. Received: {value!r}"
                )
        if warmup + search > 1 or search == 0:
            raise ValueError(
                "Invalid value for argument `search`. Expected a share above 0 that makes at most 1 with `warmup`. "
                f"Received: {search} beside warmup={warmup}"
            )
        for name, value in {"strength": strength, "private_price": private_price}.items():
            if not value >= 0:
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected a number of at least 0. Received: {value!r}"
                )
        if not isinstance(temperature, (tuple, list)) or len(temperature) != 2 or not all(t > 0 for t in temperature):
            raise ValueError(
                f"Invalid value for argument `temperature`. Expected two numbers above 0. Received: {temperature!r}"
            )
        self.target = None if target is None else float(target)
        self.strength = float(strength)
        self.private_price = float(private_price)
        self.warmup = float(warmup)
        self.search = float(search)
        self.temperature = (float(temperature[0]), float(temperature[1]))
        self.unlock = unlock
        self.decision_data = decision_data
        self.decision_learning_rate = decision_learning_rate

    def on_train_begin(self, logs: Logs = None) -> None:
        if not isinstance(self.model, MultiTask) or not self.model.sharing_layers:
            raise ValueError(
                "`FilterSharingSchedule` expected a `MultiTask` network with layers that share filters. Received: "
                f"`{self.model.name}` of {type(self.model).__name__}"
            )
        epochs = self.params.get("epochs") or 0
        self._first = round(self.warmup * epochs)
        self._last = max(self._first + 1, round((self.warmup + self.search) * epochs))
        if epochs < self._last:
            raise ValueError(
                f"`FilterSharingSchedule` expected enough epochs for warm-up and search. Received: {epochs} epochs"
            )
        self._layers: list[FilterSharing] = self.model.sharing_layers
        self._begun = False
        self._settled = False
        self._decisions: DecisionTraining | None = None
        synchronize(self.model)
        self._price(0.0, 0.0, 0.0)
        for layer in self._layers:
            layer.learning.assign(1.0 if self.decision_data is None else 0.0)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        synchronize(self.model)
        if not self._begun:
            self._begin(epoch)
        if self._first <= epoch < self._last:
            self._search(epoch - self._first, self._last - self._first)
        elif epoch == self._last:
            self._settle()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        synchronize(self.model)
        if logs is not None:
            logs["share_rate"] = self.model.share_rate()

    def on_train_end(self, logs: Logs = None) -> None:
        synchronize(self.model)
        self._settle()
        for layer in self._layers:
            layer.learning.assign(1.0)

    def _begin(self, epoch: int) -> None:
        """The first epoch of this call of `fit`: all tasks alike, or as an interrupted training left them."""
        self._begun = True
        if epoch <= self._first:
            self.model.set_phase("shared")
        self._unlocked = sum(layer.phase != "shared" for layer in self._layers)
        self._settled = epoch > self._last

    def _search(self, epoch: int, epochs: int) -> None:
        """One of so many epochs of the search."""
        first, last = self.temperature
        count, done = len(self._layers), (epoch + 1) / epochs
        unlocked = min(count, 1 + int(2 * epoch / epochs * count)) if self.unlock else count
        for layer in reversed(self._layers[count - unlocked : count - self._unlocked]):
            layer.copy_first_source()
            layer.phase = "search"
        self.model.normalize_together(False)
        self._unlocked = unlocked
        for layer in self._layers:
            layer.temperature.assign(first * (last / first) ** done)
        goal = 0.0 if self.target is None else 1.0 + min(1.0, 2 * done) * (self.target - 1.0)
        self._price(goal, 0.0 if self.target is None else self.strength, self.private_price)
        if self.decision_data is not None:
            if self._decisions is None:
                self._decisions = DecisionTraining(self.model, self.decision_learning_rate)
            self._decisions.run(self.decision_data)

    def _settle(self) -> None:
        """Hardens the decisions, the first time after they have met the target."""
        if self._settled:
            return
        if self.target is not None and self.model.share_rate() != self.target:
            meet_share_rate(self._layers, self.target)
        for layer in self._layers:
            layer.set_sources(layer.sources())  # far from undecided, where the optimizer's momentum cannot turn them
        self._price(0.0, 0.0, 0.0)
        self._settled = True

    def _price(self, target: float, strength: float, price: float) -> None:
        self.model.share_target.assign(target)
        self.model.share_strength.assign(strength)
        self.model.private_price.assign(price)
