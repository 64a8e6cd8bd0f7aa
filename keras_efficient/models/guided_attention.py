"""`GuidedAttention`: recurrent attention that is shown, for some training images, where the regions of interest are."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient.layers.glimpse_sensor import check_count
from keras_efficient.layers.guided_cell import GuidedCell
from keras_efficient.models.guidance import check_regions, first_visits, nearest_unvisited, rewards_to_go
from keras_efficient.models.recurrent_attention import BASELINES, LOCATIONS, MEANS, RecurrentAttention

Tensor = Any
GUIDANCES = ("reward", "supervised")
HUBER = 0.1  # distance at which the supervised loss turns from a square to a line


@keras.saving.register_keras_serializable(package="keras_efficient")
class GuidedAttention(RecurrentAttention):
    """Guided attention (GARN): classifies images whose class depends on several regions, from few images.

    It differs from `RecurrentAttention` in the cell (`GuidedCell`: one recurrent network for what is seen, another for
    where to look, which starts from a thumbnail) and in what a decision earns. For an image with regions `c_j`, half
    sizes `s_j`:

        hit_{t,j} = all |l_t - c_j| <= reach * s_j
        first_t   = 1 if some hit_{t,j} = 1 and no hit_{t',j} with t' < t, 0 otherwise
        r_t = a first_t + (1 - a) 1[t = T] 1[argmax p = y];    G_t = sum_{t' >= t} gamma^{t'-t} r_t'

    Only the first visit to a region is rewarded, so it pays to find all of them. `G_t` takes the place of the reward
    `R` in the losses of `RecurrentAttention`. For an image without regions `r_t` has the label's part alone, with
    weight 1.

    Over the first `guidance_steps` training steps the weight `a` falls from the first to the second value of
    `guidance`, and `reach` likewise: a target that is easily hit at first teaches sooner.

    In the log, `regions_found` is the share of the regions that the looks tried in training hit, at the last `reach`.

    `y` of `fit` is `{"label": [B], "regions": [B, R, 4]}`: centre (y, x), half height and half width in units of
    locations, zeros where there is no region (`datasets.regions_of` makes them from boxes in pixels). Plain labels do
    for images without any. Regions are part of the target: they never enter the network, and it needs none to predict.

    >>> model = GuidedAttention(19, GuidedCell(12, num_scales=2), num_glimpses=4, samples=4)
    >>> model.compile("adam", loss, metrics=["accuracy"], guidance_steps=1000)
    >>> model.fit(x, {"label": y, "regions": regions}, validation_data=(x_validation, y_validation))

    Args:
        num_classes, num_glimpses, samples, dropout, image_dtype, image_layout, policy: As for `RecurrentAttention`.
        cell: A `GuidedCell`; the default one where None.
        **kwargs: Arguments of `keras.Model`.

    Reference: in the manner of Dai et al., "Recurrent Networks for Guided Multi-Attention Classification" (GARN, KDD
    2020), whose text was not at hand: its abstract names several regions, small samples and guidance; equations and
    defaults are this package's.
    """

    guidance: tuple[float, float] = (1.0, 0.2)
    reach: tuple[float, float] = (1.5, 0.5)
    guidance_steps: int = 1000
    guided_by: str = "reward"
    discount: float = 1.0

    def __init__(
        self, num_classes: int, cell: GuidedCell | None = None, num_glimpses: int = 6, samples: int = 1, **kwargs: Any
    ) -> None:
        cell = GuidedCell() if cell is None else cell
        if not isinstance(cell, GuidedCell):
            raise ValueError(f"Invalid value for argument `cell`. Expected a `GuidedCell`. Received: {cell!r}")
        super().__init__(num_classes, cell, num_glimpses, samples, **kwargs)
        self.regions_found = keras.metrics.Mean(name="regions_found")

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.trained_steps = self.add_weight(
            shape=(), initializer="zeros", trainable=False, dtype="float32", name="trained_steps"
        )

    def compile(
        self,
        *args: Any,
        guidance: Sequence[float] = (1.0, 0.2),
        reach: Sequence[float] = (1.5, 0.5),
        guidance_steps: int = 1000,
        guided_by: str = "reward",
        discount: float = 1.0,
        **kwargs: Any,
    ) -> None:
        """As for `RecurrentAttention`, with the guidance.

        Args:
            *args: Of `RecurrentAttention.compile`.
            guidance: Weight `a` at the beginning and after `guidance_steps`.
            reach: How near the centre a look must come to count, as a share of the region's half size, likewise.
            guidance_steps: Training steps over which both change.
            guided_by: `"reward"`, or `"supervised"`: instead of the reward of regions, the policy's mean is drawn
                (Huber loss, weight `a`) to the nearest region that no earlier look of this path has hit; where all are
                found, nowhere. The label's reward has weight `1 - a` then, too.
            discount: `gamma`.
            **kwargs: Of `RecurrentAttention.compile`, but for `reward`: what is earned is said above.
        """
        if guided_by not in GUIDANCES:
            raise ValueError(
                f"Invalid value for argument `guided_by`. Expected 'reward' or 'supervised'. Received: {guided_by!r}"
            )
        self.guidance = _pair("guidance", guidance, 1.0)
        self.reach = _pair("reach", reach, math.inf)
        check_count("guidance_steps", guidance_steps)
        if not 0 <= discount <= 1:
            raise ValueError(f"Invalid value for argument `discount`. Expected 0 to 1. Received: {discount!r}")
        self.guidance_steps, self.guided_by, self.discount = guidance_steps, guided_by, float(discount)
        if "reward" in kwargs:
            raise ValueError(
                "Invalid argument `reward`. Expected `guidance` alone to decide what is earned. "
                f"Received: {kwargs['reward']!r}"
            )
        super().compile(*args, **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        config = super().get_compile_config()
        if config:
            for name in ("guidance", "reach", "guidance_steps", "guided_by", "discount"):
                value = getattr(self, name)
                config[name] = list(value) if isinstance(value, tuple) else value
            del config["reward"]
        return config

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`; regions among arrays are checked first.

        Raises:
            ValueError: If a region has another shape, is not finite or lies outside the image.
        """
        if isinstance(y, dict) and "regions" in y and isinstance(y["regions"], np.ndarray):
            check_regions(y["regions"])
        return super().fit(x, y, *args, **kwargs)

    def labels_of(self, y: Any) -> Any:
        return y["label"] if isinstance(y, dict) else y

    def returns(self, y: Any, logits: dict[str, Tensor], learning: dict[str, Tensor]) -> Tensor:
        won = self.is_right(self._repeated(self.labels_of(y), logits), logits[self.exit_names[-1]])
        regions, weight = self._guide(y, logits)
        rewards = won[:, None] * ops.one_hot(ops.convert_to_tensor([self.num_glimpses - 1]), self.num_glimpses)
        if weight is not None:
            rewards = (1.0 - weight) * rewards
        if regions is not None and self.guided_by == "reward":
            first, _ = first_visits(learning[LOCATIONS], regions, self._now(self.reach))
            rewards = rewards + weight * first
        decisions = learning[BASELINES].shape[1]
        return rewards_to_go(rewards, self.discount)[:, self.num_glimpses - decisions :]

    def policy_loss(self, y: Any, logits: dict[str, Tensor], learning: dict[str, Tensor]) -> Tensor:
        loss = super().policy_loss(y, logits, learning)
        regions, weight = self._guide(y, logits)
        if regions is not None and self.guided_by == "supervised":
            _, visited = first_visits(learning[LOCATIONS], regions, self._now(self.reach))
            decisions = learning[MEANS].shape[1]
            targets, wanted = nearest_unvisited(learning[LOCATIONS], regions, visited)
            error = ops.abs(learning[MEANS] - targets[:, -decisions:])
            huber = ops.where(error < HUBER, 0.5 * ops.square(error) / HUBER, error - 0.5 * HUBER)
            loss = loss + ops.mean(weight * wanted[:, -decisions:] * ops.sum(huber, axis=-1))
        self.trained_steps.assign_add(1.0)
        return loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        logits, learning = self._parted(y_pred)
        regions = self._regions(y, logits)
        measured = False
        if learning and regions is not None:  # in training alone there is a path that was sampled
            measured = True
            # At the last reach throughout: other variables than those of metrics cannot be read here on JAX.
            _, visited = first_visits(learning[LOCATIONS], regions, self.reach[1])
            there = ops.cast(regions[:, :, 2] > 0, "float32")
            self.regions_found.update_state(visited[:, -1], sample_weight=there)
        results = super().compute_metrics(x, y, y_pred, sample_weight)
        return {name: value for name, value in results.items() if measured or name != self.regions_found.name}

    def _regions(self, y: Any, logits: dict[str, Tensor]) -> Tensor | None:
        """Regions `[N, R, 4]`, None where `fit` got none."""
        if not isinstance(y, dict) or "regions" not in y:
            return None
        return ops.cast(self._repeated(y["regions"], logits), "float32")

    def _guide(self, y: Any, logits: dict[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Regions, and the weight `[N, 1]` of their part in the reward, 0 for images without any."""
        regions = self._regions(y, logits)
        if regions is None:
            return None, None
        annotated = ops.cast(ops.any(regions[:, :, 2] > 0, axis=1), "float32")
        return regions, annotated[:, None] * self._now(self.guidance)

    def _now(self, ends: tuple[float, float]) -> Tensor:
        """The value between the first and the second one that this training step has reached."""
        done = ops.minimum(self.trained_steps / self.guidance_steps, 1.0)
        return ends[0] + (ends[1] - ends[0]) * done


def _pair(name: str, value: Any, highest: float) -> tuple[float, float]:
    pair = tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(pair) != 2 or not all(isinstance(v, (int, float)) and 0 <= v <= highest and math.isfinite(v) for v in pair):
        limit = "of at least 0" if highest == math.inf else f"in [0, {highest:g}]"
        raise ValueError(f"Invalid value for argument `{name}`. Expected two numbers {limit}. Received: {value!r}")
    return float(pair[0]), float(pair[1])
