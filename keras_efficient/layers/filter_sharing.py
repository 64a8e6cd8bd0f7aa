"""`FilterSharing`: what convolutions and dense layers that share filters among tasks have in common."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient.layers import filter_sharing_decisions as decisions

Tensor = Any
Shape = Sequence[int | None]
VARIANTS = ("pool", "source")
PHASES = ("shared", "search", "hard")


class FilterSharing(keras.layers.Layer):
    """Base of layers whose filters are shared by tasks where that serves them, and private elsewhere.

    Each task uses exactly one filter per output channel ("slot"), so running one task costs what a plain layer costs,
    however many tasks there are. Which filter it is has been learned, slot by slot:

        pool:    W_t[j] = m_t[j] W_shared[j] + (1 - m_t[j]) W_private_t[j]           m_t[j] in {0, 1}
        source:  W_t[j] = sum_s z_t[s, j] W_s[j]                                     z_t[:, j] one-hot over the tasks

    What decides is a phase of the layer, set by `callbacks.FilterSharingSchedule` or by hand:

    | `phase` | training | inference |
    |---|---|---|
    | `"shared"` | all tasks use the first source | likewise |
    | `"search"` | sampled, straight-through gradients | the likeliest source |
    | `"hard"` | the likeliest source, decisions get no gradient | likewise |

    Args:
        num_tasks: Number of tasks `T`. With one task this is the plain layer.
        sharing: `"pool"` (one shared filter per slot, one private one per task), `"source"` (one filter per slot and
            task, each free to all; tells which tasks share with which), or None for `"pool"` up to two tasks and
            `"source"` above.
        decision_rate: How much faster decisions move than weights: the logits are this times what the optimizer sees.
        frozen_tasks: The first so many tasks are finished: their filters and decisions are not trainable.
        seed: Of the samples.
        **kwargs: Arguments of `keras.layers.Layer`.

    In the manner of FiShNet (Dai, Kong and Guo, "FiShNet: Fine-Grained Filter Sharing for Resource-Efficient Multi-Task
    Learning", CIKM 2021), whose text was not at hand: the relaxation, the two variants and all defaults are our own.
    """

    by_task = True  # `call` takes the index of a task

    def __init__(
        self,
        *,
        num_tasks: int = 2,
        sharing: str | None = None,
        decision_rate: float = 10.0,
        frozen_tasks: int = 0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_count("num_tasks", num_tasks, 1)
        check_count("frozen_tasks", frozen_tasks, 0)
        if frozen_tasks >= num_tasks:
            raise ValueError(
                f"Invalid value for argument `frozen_tasks`. Expected fewer than the {num_tasks} tasks. "
                f"Received: {frozen_tasks}"
            )
        if sharing is not None and sharing not in VARIANTS:
            raise ValueError(
                f"Invalid value for argument `sharing`. Expected None or one of {VARIANTS}. Received: {sharing!r}"
            )
        if not decision_rate > 0:
            raise ValueError(
                f"Invalid value for argument `decision_rate`. Expected a number above 0. Received: {decision_rate!r}"
            )
        self.num_tasks = num_tasks
        self.sharing = sharing or ("pool" if num_tasks <= 2 else "source")
        self.decision_rate = float(decision_rate)
        self.frozen_tasks = frozen_tasks
        self.seed = seed
        self._generator = keras.random.SeedGenerator(seed)
        self.kernels: Any = None
        self.biases: Any = None
        self.frozen_kernels: Any = None
        self.frozen_biases: Any = None
        self.logits: Any = None
        self.frozen_logits: Any = None

    @property
    def num_sources(self) -> int:
        """Number of filters per slot while training."""
        return self.num_tasks + 1 if self.sharing == "pool" and self.num_tasks > 1 else self.num_tasks

    @property
    def frozen_sources(self) -> int:
        """How many of them, from the first, do not change any more."""
        return self.frozen_tasks + (self.sharing == "pool") if self.frozen_tasks else 0

    @property
    def slots(self) -> int:
        """Number of output channels."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `slots`.")

    def build_sources(self, kernel_shape: Sequence[int], use_bias: bool, **options: Any) -> None:
        """Makes the filters, all equal to begin with, and the decisions, all undecided.

        Args:
            kernel_shape: Of one source; the last axis counts slots.
            use_bias: Whether each filter has a bias.
            options: `kernel_initializer`, `kernel_regularizer`, `kernel_constraint` and likewise for `bias`.
        """
        self.kernels, self.frozen_kernels = self._sources("kernel", tuple(kernel_shape), options)
        if use_bias:
            self.biases, self.frozen_biases = self._sources("bias", (self.slots,), options)
        if self.num_tasks > 1:
            shape = (self.slots,) if self.sharing == "pool" else (self.num_sources, self.slots)
            decisions_of: dict[str, Any] = {"initializer": "zeros", "dtype": "float32", "autocast": False}
            learned = (self.num_tasks - self.frozen_tasks, *shape)
            self.logits = self.add_weight(name="sharing", shape=learned, **decisions_of)
            if self.frozen_tasks:
                frozen = (self.frozen_tasks, *shape)
                self.frozen_logits = self.add_weight(
                    name="frozen_sharing", shape=frozen, trainable=False, **decisions_of
                )
        scalar: dict[str, Any] = {"shape": (), "dtype": "float32", "trainable": False, "autocast": False}
        self.phase_number = self.add_weight(name="phase", initializer="zeros", **scalar)
        self.temperature = self.add_weight(name="temperature", initializer="ones", **scalar)
        self.learning = self.add_weight(name="learning", initializer="ones", **scalar)

    def _sources(self, name: str, shape: tuple[int, ...], options: dict[str, Any]) -> tuple[Any, Any]:
        """Trainable and frozen sources (None without), `[sources, *shape]`."""
        initializer = options[f"{name}_initializer"]

        def equal(shape: Shape, dtype: Any = None) -> Tensor:
            return ops.repeat(initializer(shape[1:], dtype)[None], shape[0], axis=0)

        sources = self.add_weight(
            name=f"{name}s",
            shape=(self.num_sources - self.frozen_sources, *shape),
            initializer=equal,
            regularizer=_EachRegularizer.of(options[f"{name}_regularizer"]),
            constraint=_EachConstraint.of(options[f"{name}_constraint"]),
        )
        if not self.frozen_sources:
            return sources, None
        frozen = (self.frozen_sources, *shape)
        return sources, self.add_weight(name=f"frozen_{name}s", shape=frozen, initializer="zeros", trainable=False)

    @property
    def phase(self) -> str:
        """`"shared"`, `"search"` or `"hard"`."""
        return PHASES[int(ops.convert_to_numpy(self.phase_number.value))]

    @phase.setter
    def phase(self, phase: str) -> None:
        if phase not in PHASES:
            raise ValueError(f"Invalid value for argument `phase`. Expected one of {PHASES}. Received: {phase!r}")
        self.phase_number.assign(PHASES.index(phase))

    def task_weights(self, task: int | None, training: bool | None) -> tuple[Tensor, Tensor | None]:
        """Kernel and bias (None without) that a task uses; those of all tasks, `[tasks, ...]`, where `task` is None."""
        if task is not None:
            check_task(task, self.num_tasks)
        rows = slice(None) if task is None else slice(task, task + 1)
        selected = None if self.num_tasks == 1 else self._selection(training)[rows]
        kernel = self._mixed(_joined(self.frozen_kernels, self.kernels), selected, rows)
        bias = None
        if self.biases is not None:
            bias = self._mixed(_joined(self.frozen_biases, self.biases), selected, rows)
        if task is None:
            return kernel, bias
        return kernel[0], None if bias is None else bias[0]

    def _mixed(self, bank: Tensor, selected: Tensor, rows: slice) -> Tensor:
        """The weights of the selected sources, slot by slot, `[tasks, ...]`."""
        if selected is None:
            return bank
        ones = [1] * (len(bank.shape) - 2)
        selected = ops.cast(selected, bank.dtype)
        if self.sharing == "pool":
            share = ops.reshape(selected, (-1, *ones, self.slots))
            return bank[0][None] * share + bank[1:][rows] * (1.0 - share)
        return ops.sum(bank[None] * ops.reshape(selected, (-1, self.num_sources, *ones, self.slots)), axis=1)

    def _selection(self, training: bool | None) -> Tensor:
        """`m` `[tasks, slots]` for a pool, `z` `[tasks, sources, slots]` otherwise: zeros and ones."""
        logits = self._all_logits()
        hard = self._decided(logits)
        chosen = hard
        if training:
            noise = keras.random.uniform(logits.shape, 1e-6, 1.0 - 1e-6, seed=self._generator)
            sample = decisions.sampled_share if self.sharing == "pool" else decisions.sampled_source
            searching = ops.equal(ops.convert_to_tensor(self.phase_number.value), float(PHASES.index("search")))
            chosen = ops.where(searching, sample(logits, noise, self.temperature.value), hard)
        return self._unless_shared(chosen, hard)

    def _unless_shared(self, chosen: Tensor, hard: Tensor) -> Tensor:
        """The first source for all tasks in the phase `"shared"`; what frozen tasks have decided stays."""
        first = np.ones((1, self.slots), "float32")
        if self.sharing == "source":
            first = np.zeros((1, self.num_sources, self.slots), "float32")
            first[:, 0] = 1.0
        shared = ops.equal(ops.convert_to_tensor(self.phase_number.value), 0.0)
        found = ops.where(shared, ops.convert_to_tensor(first), chosen)
        if not self.frozen_tasks:
            return found
        return ops.concatenate([hard[: self.frozen_tasks], found[self.frozen_tasks :]])

    def _all_logits(self) -> Tensor:
        """`[tasks, ...]`, with a gradient for tasks that still learn, while they do."""
        logits = _joined(self.frozen_logits, self.logits) * self.decision_rate
        return ops.where(self.learning.value > 0, logits, ops.stop_gradient(logits))

    def _decided(self, logits: Tensor) -> Tensor:
        logits = ops.stop_gradient(logits)
        return ops.cast(logits >= 0, "float32") if self.sharing == "pool" else decisions.best_source(logits)

    def decided_sources(self) -> Tensor:
        """`[tasks, sources, slots]`: which source fills each slot of each task, as zeros and ones.

        While searching they are the decisions as they stand, with the gradient of their probabilities.
        """
        if self.num_tasks == 1:
            return ops.ones((1, 1, self.slots))
        logits = self._all_logits()
        hard = self._decided(logits)
        soft = decisions.share_probability(logits)
        if self.sharing == "source":
            largest = decisions.LARGEST_LOGIT
            soft = ops.softmax(ops.clip(logits, -largest, largest), axis=1)
        searching = ops.equal(ops.convert_to_tensor(self.phase_number.value), float(PHASES.index("search")))
        chosen = ops.where(searching, hard + (soft - ops.stop_gradient(soft)), hard)
        found = self._unless_shared(chosen, hard)
        if self.sharing == "source":
            return found
        own = ops.eye(self.num_tasks)[:, :, None] * (1.0 - found)[:, None]
        return ops.concatenate([found[:, None], own], axis=1)

    def filters_per_slot(self) -> Tensor:
        """Filters that the layer stores per slot as decided now, in [1, num_tasks]; has a gradient while searching."""
        return decisions.filters_per_slot(self.decided_sources())

    def share_rate(self) -> Tensor:
        """1 where all tasks use the same filters, 0 where each has its own; scalar with a gradient while searching."""
        return decisions.share_rate(self.filters_per_slot(), self.num_tasks)

    def sources(self) -> NDArray[np.int64]:
        """`[tasks, slots]`, the source that each task uses: for a pool 0 is shared and `1 + t` private to task `t`."""
        decided = ops.convert_to_numpy(ops.stop_gradient(self.decided_sources()))
        return np.asarray(decided.argmax(axis=1), "int64")

    def set_sources(self, sources: Any) -> None:
        """Fixes which source each task uses, `[tasks, slots]` as `sources()` gives it, and hardens the layer.

        Raises:
            ValueError: If the shape does not fit, or a task cannot use a source.
        """
        sources = np.asarray(sources)
        if sources.shape != (self.num_tasks, self.slots):
            raise ValueError(
                f"Invalid value for argument `sources`. Expected shape {(self.num_tasks, self.slots)}, one source per "
                f"task and slot. Received: shape {sources.shape}"
            )
        for task in range(self.num_tasks if self.num_tasks > 1 else 0):
            allowed = [0, 1 + task] if self.sharing == "pool" else list(range(self.num_sources))
            if not np.isin(sources[task], allowed).all():
                raise ValueError(
                    f"Invalid value for argument `sources`. Expected sources {allowed} for task {task}. "
                    f"Received: {sorted(set(sources[task].tolist()))}"
                )
        if self.num_tasks > 1:
            pool = self.sharing == "pool"
            chosen = sources == 0 if pool else np.arange(self.num_sources)[:, None] == sources[:, None]
            largest = decisions.LARGEST_LOGIT / self.decision_rate
            _assign(self.frozen_logits, self.logits, np.where(chosen, largest, -largest).astype("float32"))
        self.phase = "hard"

    def share_all(self) -> None:
        """Every task uses the first source everywhere: hard sharing."""
        self.set_sources(np.zeros((self.num_tasks, self.slots), "int64"))

    def share_nothing(self) -> None:
        """Every task has filters of its own everywhere: independent networks."""
        self.set_sources(self.own_sources())

    def own_sources(self) -> NDArray[np.int64]:
        """`[tasks, slots]`, the source in each slot that is the task's own."""
        own = np.arange(self.num_tasks)[:, None] + (self.num_sources - self.num_tasks)
        return np.repeat(own, self.slots, axis=1)

    def copy_first_source(self) -> None:
        """Gives every source that may still change the filters of the first one, from which to grow apart."""
        for frozen, sources in ((self.frozen_kernels, self.kernels), (self.frozen_biases, self.biases)):
            if sources is not None:
                first = sources.value[0] if frozen is None else frozen.value[0]
                sources.assign(ops.repeat(first[None], sources.shape[0], axis=0))

    def get_sources(self) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Kernels `[sources, ...]` and biases `[sources, slots]` (None without) of all sources."""
        kernels = ops.convert_to_numpy(_joined(self.frozen_kernels, self.kernels))
        if self.biases is None:
            return kernels, None
        return kernels, ops.convert_to_numpy(_joined(self.frozen_biases, self.biases))

    def assign_sources(self, kernels: NDArray[Any], biases: NDArray[Any] | None = None) -> None:
        """Sets kernels and biases of all sources, as `get_sources` gives them."""
        _assign(self.frozen_kernels, self.kernels, kernels)
        if self.biases is not None:
            _assign(self.frozen_biases, self.biases, biases)

    def stored_filters(self) -> list[tuple[int, int]]:
        """`(source, slot)` of every filter that some task uses."""
        return sorted({(int(s), j) for row in self.sources() for j, s in enumerate(row)})

    def stored_parameters(self) -> int:
        """Weights and biases of the filters that some task uses."""
        return len(self.stored_filters()) * self.parameters_per_slot

    @property
    def parameters_per_slot(self) -> int:
        """Weights and bias of one filter."""
        return int(np.prod(self.kernels.shape[1:-1])) + (self.biases is not None)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_tasks": self.num_tasks,
            "sharing": self.sharing,
            "decision_rate": self.decision_rate,
            "frozen_tasks": self.frozen_tasks,
            "seed": self.seed,
        }


class _EachRegularizer(keras.regularizers.Regularizer):
    """A regularizer of one filter bank for each of several, `[sources, ...]`: their sum."""

    def __init__(self, regularizer: Any) -> None:
        self.regularizer = regularizer

    @classmethod
    def of(cls, regularizer: Any) -> Any:
        """None stays None."""
        return None if regularizer is None else cls(regularizer)

    def __call__(self, x: Tensor) -> Tensor:
        return sum(self.regularizer(x[source]) for source in range(x.shape[0]))

    def get_config(self) -> dict[str, Any]:
        return {"regularizer": self.regularizer}


class _EachConstraint(keras.constraints.Constraint):
    """A constraint of one filter bank on each of several, `[sources, ...]`."""

    def __init__(self, constraint: Any) -> None:
        self.constraint = constraint

    @classmethod
    def of(cls, constraint: Any) -> Any:
        """None stays None."""
        return None if constraint is None else cls(constraint)

    def __call__(self, w: Tensor) -> Tensor:
        w = ops.convert_to_tensor(w)
        return ops.stack([self.constraint(w[source]) for source in range(w.shape[0])])

    def get_config(self) -> dict[str, Any]:
        return {"constraint": self.constraint}


def _joined(frozen: Any, learned: Any) -> Tensor:
    """Frozen and trainable rows as one tensor."""
    return ops.convert_to_tensor(learned.value) if frozen is None else ops.concatenate([frozen.value, learned.value])


def _assign(frozen: Any, learned: Any, value: Any) -> None:
    """Sets frozen and trainable rows from one array."""
    count = 0 if frozen is None else frozen.shape[0]
    if frozen is not None:
        frozen.assign(value[:count])
    learned.assign(value[count:])


def check_task(task: Any, num_tasks: int) -> None:
    """Raises a `ValueError` unless `task` is the index of a task."""
    if isinstance(task, bool) or not isinstance(task, int) or not 0 <= task < num_tasks:
        raise ValueError(
            f"Invalid value for argument `task`. Expected an integer from 0 to {num_tasks - 1}. Received: {task!r}"
        )


def check_count(name: str, value: Any, least: int) -> None:
    """Raises a `ValueError` unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected an integer of at least {least}. Received: {value!r}"
        )
