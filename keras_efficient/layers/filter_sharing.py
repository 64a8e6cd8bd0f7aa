"""`FilterSharing`: what convolutions and dense layers that share filters among tasks have in common."""

from collections.abc import Callable, Sequence
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
        self.kernels: list[Any] = []
        self.biases: list[Any] = []
        self.logits: list[Any] = []

    @property
    def num_sources(self) -> int:
        """Number of filters per slot while training."""
        return self.num_tasks + 1 if self.sharing == "pool" and self.num_tasks > 1 else self.num_tasks

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
        self.kernels = self._sources("kernel", tuple(kernel_shape), options)
        self.biases = self._sources("bias", (self.slots,), options) if use_bias else []
        self.logits = []
        if self.num_tasks > 1:
            shape = (self.slots,) if self.sharing == "pool" else (self.num_tasks, self.slots)
            self.logits = [
                self.add_weight(
                    name=f"sharing_{task}",
                    shape=shape,
                    initializer="zeros",
                    dtype="float32",
                    autocast=False,
                    trainable=task >= self.frozen_tasks,
                )
                for task in range(self.num_tasks)
            ]
        scalar: dict[str, Any] = {"shape": (), "dtype": "float32", "trainable": False, "autocast": False}
        self.phase_number = self.add_weight(name="phase", initializer="zeros", **scalar)
        self.temperature = self.add_weight(name="temperature", initializer="ones", **scalar)
        self.learning = self.add_weight(name="learning", initializer="ones", **scalar)

    def _sources(self, name: str, shape: tuple[int, ...], options: dict[str, Any]) -> list[Any]:
        frozen = self.frozen_tasks + (self.sharing == "pool") if self.frozen_tasks else 0
        first: list[Any] = []

        def same(shape: Shape, dtype: Any = None) -> Tensor:
            """The first source draws, the others copy what it drew."""
            if not first:
                first.append(ops.convert_to_numpy(options[f"{name}_initializer"](shape, dtype)))
            return ops.convert_to_tensor(first[0], dtype)

        initializer: Callable[..., Tensor] = options[f"{name}_initializer"] if self.num_sources == 1 else same
        return [
            self.add_weight(
                name=name if self.num_sources == 1 else f"{name}_{source}",
                shape=shape,
                initializer=initializer,
                regularizer=options[f"{name}_regularizer"],
                constraint=options[f"{name}_constraint"],
                trainable=source >= frozen,
            )
            for source in range(self.num_sources)
        ]

    @property
    def phase(self) -> str:
        """`"shared"`, `"search"` or `"hard"`."""
        return PHASES[int(ops.convert_to_numpy(self.phase_number.value))]

    @phase.setter
    def phase(self, phase: str) -> None:
        if phase not in PHASES:
            raise ValueError(f"Invalid value for argument `phase`. Expected one of {PHASES}. Received: {phase!r}")
        self.phase_number.assign(PHASES.index(phase))

    def task_weights(self, task: int, training: bool | None) -> tuple[Tensor, Tensor | None]:
        """Kernel and bias (None without) that a task uses."""
        check_task(task, self.num_tasks)
        if self.num_tasks == 1:
            return self.kernels[0], self.biases[0] if self.biases else None
        selected = self._selection(task, training)
        kernel = self._mixed(self.kernels, selected, task)
        return kernel, self._mixed(self.biases, selected, task) if self.biases else None

    def _mixed(self, sources: list[Any], selected: Tensor, task: int) -> Tensor:
        """The weights of the selected sources, slot by slot."""
        if self.sharing == "pool":
            share = ops.cast(selected, sources[0].dtype)
            return sources[0] * share + sources[1 + task] * (1.0 - share)
        stacked = ops.stack([source.value for source in sources])
        shape = (self.num_sources, *[1] * (len(stacked.shape) - 2), self.slots)
        return ops.sum(stacked * ops.cast(ops.reshape(selected, shape), stacked.dtype), axis=0)

    def _selection(self, task: int, training: bool | None) -> Tensor:
        """`m` `[slots]` for a pool, `z` `[sources, slots]` otherwise: zeros and ones."""
        hard = self._decided(task)
        shared = ops.ones_like(hard) if self.sharing == "pool" else self._first_source()
        chosen = hard
        if training and task >= self.frozen_tasks:
            logits = self._scaled(task)
            noise = keras.random.uniform(logits.shape, 1e-6, 1.0 - 1e-6, seed=self._generator)
            sample = decisions.sampled_share if self.sharing == "pool" else decisions.sampled_source
            searching = ops.equal(self.phase_number, PHASES.index("search"))
            chosen = ops.where(searching, sample(logits, noise, self.temperature), hard)
        if task < self.frozen_tasks:
            return chosen
        return ops.where(ops.equal(self.phase_number, 0.0), shared, chosen)

    def _scaled(self, task: int) -> Tensor:
        """Logits, whose gradient is cut off while decisions are not learned."""
        logits = self.decision_rate * self.logits[task].value
        return ops.where(self.learning > 0, logits, ops.stop_gradient(logits))

    def _decided(self, task: int) -> Tensor:
        logits = ops.stop_gradient(self.logits[task].value)
        return ops.cast(logits >= 0, "float32") if self.sharing == "pool" else decisions.best_source(logits)

    def _first_source(self) -> Tensor:
        first = np.zeros((self.num_sources, self.slots), "float32")
        first[0] = 1.0
        return ops.convert_to_tensor(first)

    def source_probabilities(self) -> Tensor:
        """`[tasks, sources, slots]`: how likely each task fills each slot with each source.

        Ones and zeros, except for tasks that are searching.
        """
        if self.num_tasks == 1:
            return ops.ones((1, 1, self.slots))
        logits = self.decision_rate * ops.stack([row.value for row in self.logits])
        logits = ops.where(self.learning > 0, logits, ops.stop_gradient(logits))
        if self.sharing == "pool":
            hard = self._pool_by_source(ops.cast(ops.stop_gradient(logits) >= 0, "float32"))
            soft = self._pool_by_source(decisions.share_probability(logits))
        else:
            largest = decisions.LARGEST_LOGIT
            hard = decisions.best_source(logits, axis=1)
            soft = ops.softmax(ops.clip(logits, -largest, largest), axis=1)
        frozen = np.arange(self.num_tasks)[:, None, None] < self.frozen_tasks
        searching = ops.where(ops.equal(self.phase_number, PHASES.index("search")), soft, hard)
        decided = ops.where(ops.equal(self.phase_number, 0.0), self._first_source()[None], searching)
        return ops.where(ops.convert_to_tensor(frozen), hard, decided)

    def _pool_by_source(self, share: Tensor) -> Tensor:
        """`[tasks, slots]` to `[tasks, sources, slots]`."""
        own = ops.eye(self.num_tasks)[:, :, None] * (1.0 - share)[:, None]
        return ops.concatenate([share[:, None], own], axis=1)

    def expected_filters(self) -> Tensor:
        """Filters that the layer will store per slot, expected while searching; scalar in [1, num_tasks]."""
        return decisions.expected_filters(self.source_probabilities())

    def share_rate(self) -> Tensor:
        """1 where all tasks use the same filters, 0 where each has its own; scalar with a gradient while searching."""
        return decisions.share_rate(self.expected_filters(), self.num_tasks)

    def sources(self) -> NDArray[np.int64]:
        """`[tasks, slots]`, the source that each task uses: for a pool 0 is shared and `1 + t` private to task `t`."""
        if self.num_tasks == 1:
            return np.zeros((1, self.slots), "int64")
        if self.phase == "shared":
            frozen = np.arange(self.num_tasks) < self.frozen_tasks
        else:
            frozen = np.ones(self.num_tasks, bool)
        decided = np.stack([ops.convert_to_numpy(self._decided(task)) for task in range(self.num_tasks)])
        if self.sharing == "pool":
            own = 1 + np.arange(self.num_tasks)[:, None]
            found = np.where(decided > 0, 0, own)
        else:
            found = decided.argmax(axis=1)
        return np.where(frozen[:, None], found, 0).astype("int64")

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
            one_hot = np.arange(self.num_sources)[:, None] == sources[task]
            chosen = one_hot[0] if self.sharing == "pool" else one_hot
            largest = decisions.LARGEST_LOGIT / self.decision_rate
            self.logits[task].assign(np.where(chosen, largest, -largest).astype("float32"))
        self.phase = "hard"

    def share_all(self) -> None:
        """Every task uses the first source everywhere: hard sharing."""
        self.set_sources(np.zeros((self.num_tasks, self.slots), "int64"))

    def share_nothing(self) -> None:
        """Every task has filters of its own everywhere: independent networks."""
        own = np.arange(self.num_tasks)[:, None] + (self.num_sources - self.num_tasks)
        self.set_sources(np.repeat(own, self.slots, axis=1))

    def copy_first_source(self) -> None:
        """Gives every source that may still change the filters of the first one, from which to grow apart."""
        for sources in (self.kernels, self.biases):
            for source in sources[1:]:
                if source.trainable:
                    source.assign(sources[0].value)

    def stored_filters(self) -> list[tuple[int, int]]:
        """`(source, slot)` of every filter that some task uses."""
        return sorted({(int(s), j) for row in self.sources() for j, s in enumerate(row)})

    def stored_parameters(self) -> int:
        """Weights and biases of the filters that some task uses."""
        return len(self.stored_filters()) * self.parameters_per_slot

    @property
    def parameters_per_slot(self) -> int:
        """Weights and bias of one filter."""
        return int(np.prod(self.kernels[0].shape[:-1])) + bool(self.biases)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_tasks": self.num_tasks,
            "sharing": self.sharing,
            "decision_rate": self.decision_rate,
            "frozen_tasks": self.frozen_tasks,
            "seed": self.seed,
        }


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
