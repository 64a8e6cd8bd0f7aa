"""`RecurrentAttention`: a network that looks at little and learns where to look, trained with `compile` and `fit`."""

from typing import Any

import keras
from keras import ops

from keras_efficient.layers.glimpse_cell import GlimpseCell
from keras_efficient.layers.glimpse_sensor import check_count
from keras_efficient.models.glimpse_network import GlimpseNetwork

Tensor = Any
LOG_PROBABILITIES, BASELINES, MEANS, LOCATIONS = "log_probabilities", "baselines", "means", "locations"
RAW_MEANS = "raw_means"
FOR_LEARNING = (LOG_PROBABILITIES, BASELINES, MEANS, RAW_MEANS, LOCATIONS)
REWARDS = ("last", "every")


@keras.saving.register_keras_serializable(package="keras_efficient")
class RecurrentAttention(GlimpseNetwork):
    """The recurrent attention model (RAM): `T` glimpses of an image, each where the one before said, and a class.

    With the cell's `h_t`, `mu_t` and `l_t` (see `GlimpseCell`), logits `z_t = W_a h_t`, baselines `b_t = w_b sg(h_t)`
    and the reward `R = 1[argmax z_T = y]`, the loss is

        L = sum_t v_t CE(z_t, y)                                         v = (0, ..., 0, 1) unless `loss_weights` say
            - c mean_B sum_t (R - sg(b_t)) log N(l_{t+1}; mu_t, sigma)   location network only
            + c d mean_B sum_t |artanh mu_t|^2                           location network only
            + mean (b_t - R)^2                                           baseline only

    The third line is not in the paper. It keeps the locations' means where the hyperbolic tangent still has a slope:
    without it they tend to wander to the border of the image, where nothing changes any more, and to stay there.

    In training each image is looked at `samples` times along different locations, which share its label: the cheapest
    way to less noise. Elsewhere the next location is `mu_t`, without noise.

    Called, it gives the logits after each glimpse, `{"glimpse_1": [B, n], ...}`; `predict` those after the last. What
    it costs does not depend on the size of the image. A policy (`model.policy`, made as for `MultiExit`) stops earlier
    where the answer is clear.

    >>> model = RecurrentAttention(10, GlimpseCell(8), num_glimpses=6)
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    >>> model.fit(x_train, y_train, validation_data=(x_validation, y_validation))  # glimpse_6_accuracy, ...
    >>> logits, locations = model.predict_path(x_test)

    Args:
        num_classes: Number of logits.
        cell: A `GlimpseCell`.
        num_glimpses: `T`, at least 2.
        samples: Paths of locations tried per image in training.
        dropout: Share of the classifier's inputs dropped in training.
        image_dtype: `"float32"` or `"uint8"`, what an exported file takes; a network trained on images in [0, 1] takes
            both.
        image_layout: `"pixels"` or `"rows"`, what an exported file takes: `[1, H, W, C]` or the same bytes as
            `[1, H, W C]`, of which patches are cut several times as fast.
        policy: Exit policy, or None.
        **kwargs: Arguments of `keras.Model`.

    Reference: Mnih, Heess, Graves and Kavukcuoglu, "Recurrent Models of Visual Attention", NeurIPS 2014.
    """

    policy_weight: float = 1.0
    location_decay: float = 0.0
    reward: str = "last"
    normalize_advantages: bool = False

    def __init__(
        self, num_classes: int, cell: GlimpseCell, num_glimpses: int = 6, samples: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, cell, num_glimpses, **kwargs)
        self.samples = check_count("samples", samples)
        self.baseline = keras.layers.Dense(1, name="baseline", dtype="float32")

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.baseline.build((None, self.cell.policy_width))

    def compile(  # type: ignore[override]  # other options than those of exits
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        policy_weight: float = 1.0,
        normalize_advantages: bool = False,
        location_decay: float = 0.05,
        reward: str = "last",
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.compile`, with one loss and one list of metrics for the logits after each glimpse.

        Args:
            optimizer: As in Keras.
            loss: A loss on logits, such as `SparseCategoricalCrossentropy(from_logits=True)`.
            loss_weights: `T` numbers `v_t`; None for 1 at the last glimpse and 0 elsewhere. Equal weights are the
                choice for a network that shall be able to stop early.
            metrics: A list, of which every glimpse gets its own copies (`glimpse_1_accuracy`, ...).
            policy_weight: `c` above.
            normalize_advantages: Whether `R - b_t` is divided by its root mean square in the batch.
            location_decay: `d` above.
            reward: `"last"`, or `"every"`: a decision then earns the share of right answers among all glimpses that
                follow it, not whether the last one is right.
            **kwargs: Further arguments of `keras.Model.compile`.
        """
        for name, value in (("policy_weight", policy_weight), ("location_decay", location_decay)):
            if not value >= 0:
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected a number of at least 0. Received: {value}"
                )
        if reward not in REWARDS:
            raise ValueError(f"Invalid value for argument `reward`. Expected 'last' or 'every'. Received: {reward!r}")
        self.policy_weight, self.location_decay, self.reward = float(policy_weight), float(location_decay), reward
        self.normalize_advantages = bool(normalize_advantages)
        if loss_weights is None:
            loss_weights = [0.0] * (self.num_glimpses - 1) + [1.0]
        super().compile(optimizer, loss, loss_weights, metrics, **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        config = super().get_compile_config()
        if config:
            for name in ("policy_weight", "normalize_advantages", "location_decay", "reward"):
                config[name] = getattr(self, name)
            for name in ("gradient_equilibrium", "distillation", "temperature"):
                config.pop(name, None)
        return config

    def call(
        self,
        images: Tensor,
        training: bool | None = None,
        trade_off: Tensor | None = None,
        max_exit: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """As for `GlimpseNetwork`; in training `samples` rows for each image, and what the losses need."""
        if not training:
            return super().call(images, training, trade_off, max_exit)
        look = self.cell.start(images, self.samples, training)
        found, looks, locations = {}, [look], []
        for name in self.exit_names:
            locations.append(look.states[-1])
            look = self.cell.look(images, look.states, training)
            found[name] = self.classify(look, training)
            looks.append(look)
        # Where the last one would lead is of no use, and a cell without context starts where it always does.
        drawn = [look for look in looks[:-1] if look.log_probability is not None]
        return {
            **found,
            LOG_PROBABILITIES: ops.stack([look.log_probability for look in drawn], axis=1),
            BASELINES: ops.concatenate(
                [self.baseline(ops.stop_gradient(look.policy_features)) for look in drawn], axis=1
            ),
            MEANS: ops.stack([look.mean for look in drawn], axis=1),
            RAW_MEANS: ops.stack([look.raw_mean for look in drawn], axis=1),
            LOCATIONS: ops.stack(locations, axis=1),
        }

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        logits, learning = self._parted(y_pred)
        labels = self._repeated(self.labels_of(y), logits)
        weights = self._repeated(sample_weight, logits)
        loss = super().compute_loss(x=x, y=labels, y_pred=logits, sample_weight=weights, training=training)
        return loss + self.policy_loss(y, logits, learning) if learning else loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        logits, _ = self._parted(y_pred)
        labels, weights = (self._repeated(value, logits) for value in (self.labels_of(y), sample_weight))
        return super().compute_metrics(x, labels, logits, weights)

    def labels_of(self, y: Any) -> Any:
        """The class labels in what `fit` got."""
        return y

    def returns(self, y: Any, logits: dict[str, Tensor], learning: dict[str, Tensor]) -> Tensor:
        """What each of the `D` decisions earned, `[N, D]` or `[N, 1]`: whether the class was right in the end.

        With `reward="every"` the share of the glimpses from the decision's own on behind which it was.
        """
        labels = self._repeated(self.labels_of(y), logits)
        if self.reward == "last":
            return self.is_right(labels, logits[self.exit_names[-1]])[:, None]
        decisions = int(learning[BASELINES].shape[1])
        right = [self.is_right(labels, logits[name]) for name in self.exit_names[-decisions:]]
        return ops.stack([ops.mean(ops.stack(right[d:], axis=1), axis=1) for d in range(decisions)], axis=1)

    def is_right(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Float32 `[N]`: whether the largest logit is the label's, given as an index or one-hot."""
        labels = ops.convert_to_tensor(labels)
        if len(labels.shape) == 2 and labels.shape[-1] == self.num_classes:
            labels = ops.argmax(labels, axis=-1)
        labels = ops.cast(ops.reshape(labels, (-1,)), "int32")
        return ops.cast(ops.cast(ops.argmax(logits, axis=-1), "int32") == labels, "float32")

    def policy_loss(self, y: Any, logits: dict[str, Tensor], learning: dict[str, Tensor]) -> Tensor:
        """The losses of location network and baseline; see the class."""
        baselines = learning[BASELINES]
        returns = ops.stop_gradient(self.returns(y, logits, learning))
        advantages = returns - ops.stop_gradient(baselines)
        if self.normalize_advantages:
            advantages = advantages / (ops.sqrt(ops.mean(ops.square(advantages))) + 1e-6)
        policy = -ops.mean(ops.sum(advantages * learning[LOG_PROBABILITIES], axis=1))
        decay = self.location_decay * ops.mean(ops.sum(ops.square(learning[RAW_MEANS]), axis=(1, 2)))
        return self.policy_weight * (policy + decay) + ops.mean(ops.square(baselines - returns))

    def _parted(self, y_pred: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Logits by glimpse, and what only training gives."""
        learning = {name: y_pred[name] for name in FOR_LEARNING if name in y_pred}
        return {name: y_pred[name] for name in self.exit_names}, learning

    def _repeated(self, values: Any, logits: dict[str, Tensor]) -> Any:
        """Labels or weights of `B` images for the `B * samples` rows of training."""
        if values is None:
            return None
        rows = ops.shape(logits[self.exit_names[0]])[0]

        def repeated(array: Tensor) -> Tensor:
            array = ops.convert_to_tensor(array)
            if array.shape[0] is not None and array.shape[0] == logits[self.exit_names[0]].shape[0]:
                return array
            times = rows // ops.shape(array)[0]
            flat = ops.reshape(array, (ops.shape(array)[0], 1, *array.shape[1:]))
            tiled = ops.tile(flat, (1, times, *([1] * (len(array.shape) - 1))))
            return ops.reshape(tiled, (rows, *array.shape[1:]))

        return keras.tree.map_structure(repeated, values)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "samples": self.samples}
