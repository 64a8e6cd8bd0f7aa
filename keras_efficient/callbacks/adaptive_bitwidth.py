"""`AdaptiveBitwidth`: the schedule of ALQ, from a sketched network to an average bit-width."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient.quantization import MultiBitModel

Logs = dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Phase:
    """What one epoch does.

    Attributes:
        mode: The model's `phase` in it.
        round: Which round of pruning it belongs to, from 1; 0 in the training after the last one.
        rate: Factor of the learning rate.
        bits: Average bit-width to prune to by the end of the epoch, None in epochs that do not prune.
    """

    mode: str
    round: int
    rate: float
    bits: float | None = None


class AdaptiveBitwidth(keras.callbacks.Callback):
    """Trains the bases of a `MultiBitModel` and prunes them until a target average bit-width is reached.

    Rounds of optimising bases, optimising coordinates and pruning follow each other until the average is at the target;
    each removes the same share of the bases. Then signs and scales train straight through, scales alone last, and
    training stops.

        round:  basis_epochs x basis,  coordinate_epochs x coordinate,  1 x pruning
        after:  latent_epochs x latent,  final_epochs x coordinate

    Pruning removes, every `prune_every` batches and over all layers, the bases whose loss the quadratic model of the
    loss rates least. The learning rate starts at the optimizer's in every round and again after the last one, and
    decays from epoch to epoch. `average_bits` and `round` stand in the logs.

    >>> schedule = AdaptiveBitwidth(target_bits=0.4)
    >>> model.fit(x, y, epochs=schedule.epochs(model), callbacks=[schedule])

    Training that was interrupted goes on with the model as saved: the schedule starts from the bits that it has in the
    first epoch that runs, `initial_epoch` or 0. A model saved in the middle of `fit` has the learning rate of that
    moment in its optimizer: compile it again, or give `learning_rate`.

    Args:
        target_bits: Bases per weight to reach, the average over the weights of all multi-bit layers.
        keep: Largest share of the bases that a round of pruning leaves out of those it finds, in (0, 1): the number of
            rounds follows from it.
        basis_epochs, coordinate_epochs: Per round.
        latent_epochs, final_epochs: After the last round.
        decay, latent_decay, final_decay: Of the learning rate, per epoch: in rounds, in latent epochs, and after them.
        prune_every: Batches between two removals in an epoch that prunes; with `steps_per_execution` the next multiple
            of that. Where the number of batches is not known (generators) it is counted in the epoch before.
        learning_rate: Where every round starts; default the optimizer's when training begins.
        verbose: 1 for a line per phase, 0 for none.

    Raises:
        ValueError: If an argument is out of range; when training begins, if the model is no `MultiBitModel` with
            adaptive layers, the target cannot be reached, or `fit` has fewer epochs than the schedule.

    Reference: Qu et al., "Adaptive Loss-aware Quantization for Multi-bit Networks", CVPR 2020, section 4.
    """

    def __init__(
        self,
        target_bits: float,
        *,
        keep: float = 0.6,
        basis_epochs: int = 4,
        coordinate_epochs: int = 2,
        latent_epochs: int = 20,
        final_epochs: int = 5,
        decay: float = 0.7,
        latent_decay: float = 0.9,
        final_decay: float = 0.8,
        prune_every: int = 10,
        learning_rate: float | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        if (
            isinstance(target_bits, bool)
            or not isinstance(target_bits, (int, float, np.floating))
            or not target_bits > 0
        ):
            raise ValueError(
                f"Invalid value for argument `target_bits`. Expected a positive number. Received: {target_bits!r}"
            )
        if not 0 < keep < 1:
            raise ValueError(f"Invalid value for argument `keep`. Expected a number in (0, 1). Received: {keep!r}")
        counts = {
            "basis_epochs": basis_epochs,
            "coordinate_epochs": coordinate_epochs,
            "latent_epochs": latent_epochs,
            "final_epochs": final_epochs,
        }
        for name, count in counts.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected an integer of at least 0. Received: {count!r}"
                )
        for name, factor in {"decay": decay, "latent_decay": latent_decay, "final_decay": final_decay}.items():
            if not 0 < factor <= 1:
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected a number in (0, 1]. Received: {factor!r}"
                )
        if isinstance(prune_every, bool) or not isinstance(prune_every, int) or prune_every < 1:
            raise ValueError(
                f"Invalid value for argument `prune_every`. Expected a positive integer. Received: {prune_every!r}"
            )
        if learning_rate is not None and not learning_rate > 0:
            raise ValueError(
                "Invalid value for argument `learning_rate`. Expected a positive number or None. "
                f"Received: {learning_rate!r}"
            )
        self.target_bits = float(target_bits)
        self.keep = keep
        self.basis_epochs, self.coordinate_epochs = basis_epochs, coordinate_epochs
        self.latent_epochs, self.final_epochs = latent_epochs, final_epochs
        self.decay, self.latent_decay, self.final_decay = decay, latent_decay, final_decay
        self.prune_every = prune_every
        self.learning_rate = learning_rate
        self.verbose = verbose

    def epochs(self, model: keras.Model) -> int:
        """How many epochs the schedule takes from the model's present bit-width."""
        return len(self.plan(model))

    def plan(self, model: keras.Model) -> list[Phase]:
        """What every epoch does.

        Raises:
            ValueError: If the model has no layers to adapt, or the target cannot be reached from where it is.
        """
        if not isinstance(model, MultiBitModel) or not model.adaptive_layers:
            raise ValueError(
                "`AdaptiveBitwidth` expected a `MultiBitModel` as `quantization.quantize` makes it. "
                f"Received: {type(model).__name__} {model.name!r}"
            )
        start, least = model.average_bits, model.least_bits
        if not least <= self.target_bits <= 1.02 * start:
            raise ValueError(
                f"Invalid value for argument `target_bits`. Expected a number from {least:.3g} (one basis in every "
                f"layer) to the {start:.3g} that `{model.name}` has. Received: {self.target_bits}"
            )
        share = min(1.0, self.target_bits / start)
        rounds = 0 if share > 0.999 else math.ceil(math.log(share) / math.log(self.keep))
        phases = []
        for number in range(1, rounds + 1):
            modes = ["basis"] * self.basis_epochs + ["coordinate"] * self.coordinate_epochs
            phases += [Phase(mode, number, self.decay**k) for k, mode in enumerate(modes)]
            bits = self.target_bits if number == rounds else start * share ** (number / rounds)
            phases.append(Phase("moments", number, self.decay ** len(modes), bits))
        phases += [Phase("latent", 0, self.latent_decay**k) for k in range(self.latent_epochs)]
        last = self.latent_decay**self.latent_epochs
        return phases + [Phase("coordinate", 0, last * self.final_decay**k) for k in range(self.final_epochs)]

    def on_train_begin(self, logs: Logs = None) -> None:
        self.plan(self.model)  # says what is wrong with the model before anything is done
        if isinstance(
            getattr(self.model.optimizer, "_learning_rate", None), keras.optimizers.schedules.LearningRateSchedule
        ):
            raise ValueError(
                "Invalid optimizer. Expected one with a constant learning rate, which `AdaptiveBitwidth` decays. "
                "Received: one with a schedule"
            )
        self._rate = self.learning_rate or float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self._epoch = -1
        self._steps = 0  # of the epoch before

    def _begin(self, epoch: int) -> None:
        """Plans from the weights with which the first epoch begins; callbacks may have brought them back just now."""
        self._plan = self.plan(self.model)
        last = self.params.get("epochs")
        if last is not None and last - epoch < len(self._plan):
            raise ValueError(
                f"Invalid number of epochs. Expected at least {len(self._plan)} to reach {self.target_bits} bits "
                f"(`AdaptiveBitwidth.epochs`). Received: {last - epoch}"
            )

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        if self._epoch < 0:
            self._begin(epoch)
        self._epoch += 1
        self._batches = self._removals = 0
        phase = self._plan[self._epoch]
        model = self.model
        model.synchronize()
        model.optimizer.learning_rate.assign(self._rate * phase.rate)
        previous = self._plan[self._epoch - 1] if self._epoch else None
        if previous is None or previous.round != phase.round:
            model.compact()
        model.phase = phase.mode
        self._bits_before = self._bits = model.average_bits
        if self.verbose and (previous is None or (previous.mode, previous.round) != (phase.mode, phase.round)):
            name = "pruning" if phase.bits is not None else phase.mode
            where = f"round {phase.round}" if phase.round else "after the last round"
            print(f"\n{where}: {name}, {self._bits:.3f} bits")

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        # Not at the end of a batch, where a callback makes Keras wait for the results of every one.
        bits = self._plan[self._epoch].bits
        self._batches = batch  # where their number is not known, there is one more call behind the last
        steps = self.params.get("steps") or self._steps
        if bits is None or not steps or batch >= steps or batch // self.prune_every <= self._removals:
            return
        self._removals = batch // self.prune_every
        self._prune_to(self._bits_before * (bits / self._bits_before) ** min(1.0, batch / steps))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        phase = self._plan[self._epoch]
        self._steps = self._batches
        if phase.bits is not None:
            self._prune_to(phase.bits)
        if logs is not None:
            logs["average_bits"] = self._bits
            logs["round"] = phase.round
        if self._epoch + 1 == len(self._plan):
            self.model.stop_training = True

    def on_train_end(self, logs: Logs = None) -> None:
        self.model.compact()
        self.model.optimizer.learning_rate.assign(self._rate)

    def _prune_to(self, bits: float) -> None:
        weights = self.model.num_weights
        excess = (self._bits - bits) * weights
        if excess > 1e-6 * weights:
            self.model.prune(excess)
            self._bits = self.model.average_bits
