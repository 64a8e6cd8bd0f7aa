"""A policy that uses some of a network's exits; the others cost nothing in an exported file."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient.policies.arguments import check_number, checked_exits
from keras_efficient.policies.evaluation import evaluate
from keras_efficient.policies.exit_data import ExitData
from keras_efficient.policies.exit_policy import ExitPolicy


@keras.saving.register_keras_serializable(package="keras_efficient")
class SelectedExits(ExitPolicy):
    """Leaves at some exits only, as another policy says that was made for those.

    A network is trained with many exits, but one budget needs few of them. At an exit that is passed by, an exported
    file neither computes logits nor asks a policy nor branches, unless a cap (`max_exit`) is among its inputs.

    Args:
        policy: Policy for a network of `len(exits)` exits.
        exits: Increasing indices of the exits used, the last one (`num_exits - 1`) among them; at least two.
        num_exits: Number of exits of the network.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If the exits are not as described, or the policy is made for another number of exits.

    See `select_exits`, which finds both.
    """

    def __init__(self, policy: ExitPolicy, exits: Sequence[int], num_exits: int, **kwargs: Any) -> None:
        if not isinstance(policy, ExitPolicy):
            raise ValueError(f"Invalid value for argument `policy`. Expected an exit policy. Received: {policy!r}")
        super().__init__(
            num_features=policy.num_features,
            trade_off_range=policy.trade_off_range,
            default_trade_off=policy.default_trade_off,
            **kwargs,
        )
        self.exits = checked_exits(exits, num_exits)
        self.num_exits = num_exits
        made_for = getattr(policy, "num_exits", len(self.exits))
        if made_for != len(self.exits):
            raise ValueError(
                f"Invalid value for argument `policy`. Expected a policy for {len(self.exits)} exits, as many as "
                f"`exits` names. Received: one made for {made_for}"
            )
        self.policy = policy

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if not self.policy.built:
            self.policy.build(input_shape)
        self.built = True

    def may_leave(self, exit_index: int) -> bool:
        return exit_index in self.exits

    def call(self, features: Any, exit_index: int, trade_off: Any = None) -> Any:
        if exit_index not in self.exits:
            return -ops.ones_like(features[:, 0])
        more = {} if trade_off is None else {"trade_off": trade_off}
        return self.policy(features, exit_index=self.exits.index(exit_index), **more)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for key in ("num_features", "trade_off_range", "default_trade_off"):  # the inner policy's own
            config.pop(key, None)
        policy = keras.saving.serialize_keras_object(self.policy)
        return {**config, "policy": policy, "exits": list(self.exits), "num_exits": self.num_exits}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SelectedExits":
        return cls(policy=keras.saving.deserialize_keras_object(config.pop("policy")), **config)


def select_exits(
    make: Callable[[ExitData], ExitPolicy], data: ExitData, min_share: float = 0.02, max_exits: int | None = None
) -> ExitPolicy:
    """Makes a policy for as few exits as it really uses.

    The exit at which the fewest inputs of `data` leave is dropped, and the policy made anew for those that stay, as
    long as that share is below `min_share` or there are more than `max_exits` exits. The last exit always stays.

    Args:
        make: From exit data to a policy for its exits, such as `lambda data: BackwardInduction.fit(data, 0.1)`.
        data: Held-out exit data.
        min_share: Least share of the inputs that leave at an exit which is kept, in `[0, 1)`.
        max_exits: Most exits kept, at least 2 and the last one counted, or None.

    Returns:
        `SelectedExits`, or the policy itself where all exits stay.

    >>> model.policy = select_exits(lambda data: BackwardInduction.fit(data, 0.1), held_out)
    """
    check_number("min_share", min_share, 0, 1)
    if max_exits is not None and max_exits < 2:
        raise ValueError(f"Invalid value for argument `max_exits`. Expected at least 2 or None. Received: {max_exits}")
    exits = list(range(data.num_exits))
    while True:
        part = data.select(exits)
        policy = make(part)
        shares = np.asarray(evaluate(policy, part).exit_shares)[:-1]
        rarest = int(shares.argmin())
        too_many = max_exits is not None and len(exits) > max_exits
        if len(exits) == 2 or not (too_many or shares[rarest] < min_share):
            break
        del exits[rarest]
    return policy if len(exits) == data.num_exits else SelectedExits(policy, exits, data.num_exits)
