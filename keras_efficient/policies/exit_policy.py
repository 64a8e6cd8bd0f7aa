"""The one form that every exit policy has: a Keras layer that scores the features of an exit."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from keras_efficient.layers.exit_features import EXIT_FEATURES
from keras_efficient.ops.context import is_recording, record
from keras_efficient.policies.arguments import check_integer, check_number, check_range
from keras_efficient.policies.request import checked_cap, checked_trade_off


class ExitPolicy(keras.layers.Layer):
    """Base of the layers that decide whether an input leaves a network at an exit.

    `policy(features, exit_index=k)` returns a score `[B]`; an input leaves where the score is above 0. Whoever runs
    the network makes every input that is still there leave at the last exit: a policy is not asked about it.

    A subclass implements `call(features, exit_index)` in `keras.ops`, or `call(features, exit_index, trade_off)` where
    it has a `trade_off_range`. It keeps what it has learned in weights, and what it was made with in `get_config`; one
    that can decide only for networks of so many exits has an attribute `num_exits`. It computes in float32 by default,
    also under mixed precision, because decisions compare close numbers.

    Args:
        num_features: Number of features that `call` reads: the 4 of `keras_efficient.layers.exit_features`, followed by
            `S` of the branch where it has a running summary. A policy of 4 reads the first four of wider features.
        trade_off_range: `(least, greatest)` trade-off of a policy that decides for any trade-off in it, or None for one
            that was made for a single trade-off. Trade-offs outside count as the nearer end.
        default_trade_off: What such a policy uses where no trade-off is given; the geometric mean of the range where
            None.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        num_features: int = len(EXIT_FEATURES),
        trade_off_range: Sequence[float] | None = None,
        default_trade_off: float | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.num_features = check_integer("num_features", num_features, len(EXIT_FEATURES))
        self.trade_off_range = check_range("trade_off_range", trade_off_range)
        self.default_trade_off = _default(self.trade_off_range, default_trade_off)
        self.input_spec = keras.layers.InputSpec(ndim=2)

    @property
    def takes_trade_off(self) -> bool:
        """Whether the trade-off is an input of each decision."""
        return self.trade_off_range is not None

    def __call__(self, features: Any, exit_index: int, trade_off: Any = None, **kwargs: Any) -> Any:
        """Scores one exit.

        Args:
            features: `[B, F]`, the columns of `exit_features`, followed by those of the branch's summary.
            exit_index: Python integer, 0 for the first exit.
            trade_off: Accuracy that one is ready to give for the cost of one full network: a number or float32 `[B]`.
                Where `takes_trade_off`, None stands for `default_trade_off`; other policies leave it unread.
            **kwargs: What Keras itself hands to every layer.

        Returns:
            `[B]`; above 0 the input leaves.

        Raises:
            ValueError: If the features are not as wide as `num_features`.
        """
        features = self._read(features if hasattr(features, "shape") else ops.convert_to_tensor(features))
        if not self.takes_trade_off:
            return super().__call__(features, exit_index=exit_index, **kwargs)
        trade_off = self.default_trade_off if trade_off is None else trade_off
        if len(getattr(trade_off, "shape", ())) == 0:
            trade_off = ops.zeros_like(features[:, 0]) + trade_off
        assert self.trade_off_range is not None
        trade_off = ops.clip(ops.cast(trade_off, "float32"), *self.trade_off_range)
        return super().__call__(features, exit_index=exit_index, trade_off=trade_off, **kwargs)

    def call(self, features: Any, exit_index: int) -> Any:
        """Scores one exit, for features `[B, num_features]`. The trade-off is within its range.

        A policy with a `trade_off_range` has one more argument, `trade_off` `[B]`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement `call(features, exit_index)`.")

    def may_leave(self, exit_index: int) -> bool:
        """Whether any input may leave at an exit; where none may, an exported file passes the exit by."""
        return True

    def _read(self, features: Any) -> Any:
        """The columns that the policy reads."""
        shape = tuple(features.shape)
        width = shape[-1] if len(shape) == 2 else None
        if width == self.num_features:
            return features
        if width is not None and self.num_features == len(EXIT_FEATURES) < width:
            return features[:, : self.num_features]
        raise ValueError(
            f"Invalid shape for argument `features`. Expected [batch, {self.num_features}], the features that "
            f"{type(self).__name__} decides on. Received: {shape}"
        )

    def record_macs(self, macs: float) -> None:
        """Notes the multiply-adds of one decision, so that a network's cost includes its policy's."""
        if is_recording():
            record(self.name, macs, ops.full((1,), macs, dtype="float32"))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None]:
        return (input_shape[0],)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.num_features != len(EXIT_FEATURES):
            config["num_features"] = self.num_features
        if self.trade_off_range is not None:
            config["trade_off_range"] = list(self.trade_off_range)
            config["default_trade_off"] = self.default_trade_off
        return config


def decide(
    policy: ExitPolicy, features: ArrayLike, trade_off: ArrayLike | None = None, max_exit: ArrayLike | None = None
) -> NDArray[np.int64]:
    """The exit that each input takes.

    Args:
        policy: Any exit policy.
        features: `[N, K, F]` features of every exit, such as `ExitData.features`.
        trade_off: Number or `[N]`, for a policy that takes it; None for its default.
        max_exit: Index of the last exit that an input may take, an integer or `[N]` integers in `[0, K)`: there it
            leaves whatever the policy says. None for no cap.

    Returns:
        `[N]` integers in `[0, K)`: the first exit whose score is above 0, or that is the last one allowed.

    Raises:
        ValueError: If an argument is not as described, if the policy does not fit the features, or if a trade-off is
            given to a policy that was made for a single one.

    >>> decide(policy, test.features, max_exit=cap_for_deadline(test.costs, 0.5))
    """
    array = np.asarray(features, dtype=np.float32)
    if array.ndim != 3 or 0 in array.shape[1:]:
        raise ValueError(
            "Invalid value for argument `features`. Expected shape [inputs, exits, features]. "
            f"Received: shape {array.shape}"
        )
    inputs, exits, width = array.shape
    check_fits(policy, exits, width)
    price = checked_trade_off(policy, trade_off, inputs)
    cap = checked_cap(max_exit, inputs, exits)
    leaves = np.arange(exits) >= cap[:, None]
    for k in range(exits - 1):
        scores = policy(array[:, k], exit_index=k, **({} if price is None else {"trade_off": price}))
        leaves[:, k] |= ops.convert_to_numpy(scores) > 0
    return leaves.argmax(axis=1)


def check_fits(policy: Any, num_exits: int, num_features: int = len(EXIT_FEATURES)) -> None:
    """Raises a `ValueError` of one sentence unless `policy` can decide for a network.

    Args:
        policy: An exit policy; any other layer is taken to know what it does.
        num_exits: Exits of the network, `K`, its end included.
        num_features: Width of the features that its exits offer: 4, plus that of the running summary.
    """
    if not isinstance(policy, ExitPolicy):
        return
    name = type(policy).__name__
    made_for = getattr(policy, "num_exits", num_exits)
    if made_for != num_exits:
        raise ValueError(
            f"Invalid value for argument `policy`. Expected a policy for the network's {num_exits} exits. "
            f"Received: {name} '{policy.name}' made for {made_for}"
        )
    if policy.num_features not in (len(EXIT_FEATURES), num_features):
        raise ValueError(
            f"Invalid value for argument `policy`. Expected a policy that decides on the network's {num_features} "
            f"features, or on the first {len(EXIT_FEATURES)}. "
            f"Received: {name} '{policy.name}' made for {policy.num_features}"
        )


def _default(trade_off_range: tuple[float, float] | None, default: float | None) -> float | None:
    if trade_off_range is None:
        if default is not None:
            raise ValueError(
                "Invalid value for argument `default_trade_off`. Expected None without a `trade_off_range`. "
                f"Received: {default!r}"
            )
        return None
    if default is None:
        return math.sqrt(trade_off_range[0] * trade_off_range[1])
    return check_number("default_trade_off", default, *trade_off_range)
