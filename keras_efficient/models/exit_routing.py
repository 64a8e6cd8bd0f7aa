"""How a network with exits asks its policy: the policy's place, and leaving masked or skipped."""

import contextlib
from typing import Any

import keras
from keras import ops

from keras_efficient.layers import EXIT_FEATURES, exit_features
from keras_efficient.models.exit_prediction import ExitPrediction
from keras_efficient.models.policy_slot import PolicySlot
from keras_efficient.ops import branch, context
from keras_efficient.policies.exit_policy import ExitPolicy, check_fits

Tensor = Any


class ExitRouting(ExitPrediction):
    """The deciding part of networks with exits; needs `run_stage`, `pass_stage`, `num_exits` and `summary_units`."""

    def _place_policy(self, policy: keras.layers.Layer | None) -> None:
        """Makes the place of the policy, at the end of a constructor: its weights come after those of the network."""
        self._policy_slot = PolicySlot(name="policy_slot")
        self.policy = policy

    @property
    def policy(self) -> keras.layers.Layer | None:
        """The exit policy, or None."""
        return self._policy_slot.policy

    @policy.setter
    def policy(self, policy: keras.layers.Layer | None) -> None:
        if policy is not None:
            self.check_policy(policy)
        self._policy_slot.put(policy)

    def __setattr__(self, name: str, value: Any) -> None:
        # Keras takes no new sublayers once a model is built, but a policy is found after training: a slot holds it.
        if name == "policy":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _all_logits(self, inputs: Tensor, training: bool | None, trade_off: Tensor | None) -> list[Tensor]:
        """Masked: everything is computed, and under `recording()` charged only where an input still runs."""
        routed = self.policy is not None and context.is_recording() and not training
        running = None
        found = []
        carry = {"features": inputs}
        for k in range(self.num_exits):
            with contextlib.nullcontext() if running is None else context.executed_when(running):
                carry, logits = self.run_stage(k, carry, training)
                found.append(logits)
                if routed and k + 1 < self.num_exits:
                    stays = ops.cast(self.exit_score(k, logits, carry, trade_off) <= 0, "float32")
                    running = stays if running is None else running * stays
        return found

    def _left_early(
        self, carry: dict[str, Tensor], k: int, trade_off: Tensor | None, max_exit: Tensor | None
    ) -> dict[str, Tensor]:
        """Skipped: stage `k` and, in a branch that runs only for inputs which stay, what follows."""
        if max_exit is None and self.passes_by(k):
            return self._left_early(self.pass_stage(k, carry), k + 1, trade_off, max_exit)
        carry, logits = self.run_stage(k, carry, False)

        def leave() -> dict[str, Tensor]:
            return {"output": ops.cast(logits, "float32"), "exit_index": ops.full((1,), k, dtype="int32")}

        if k + 1 == self.num_exits:
            return leave()
        leaves = ops.reshape(self.exit_score(k, logits, carry, trade_off), ()) > 0
        if max_exit is not None:
            leaves = ops.logical_or(leaves, ops.reshape(max_exit, ()) <= k)
        return branch(leaves, leave, lambda: self._left_early(carry, k + 1, trade_off, max_exit))

    def passes_by(self, k: int) -> bool:
        """Whether nothing at exit `k` matters: the policy never leaves there, and no later exit needs its summary."""
        never = isinstance(self.policy, ExitPolicy) and not self.policy.may_leave(k)
        return never and k + 1 < self.num_exits and not self.summary_units

    def exit_score(
        self,
        k: int,
        logits: Tensor,
        carry: dict[str, Tensor],
        trade_off: Tensor | None = None,
        policy: keras.layers.Layer | None = None,
    ) -> Tensor:
        """The policy's score `[B]` at exit `k`, above 0 where an input leaves; see `run_stage` for the arguments."""
        policy = self.policy if policy is None else policy
        assert policy is not None
        features = exit_features(logits, k, self.num_exits)
        if getattr(policy, "num_features", 0) > features.shape[-1]:
            features = ops.concatenate([features, ops.cast(carry["summary"], "float32")], axis=-1)
        return policy(features, exit_index=k, **({} if trade_off is None else {"trade_off": trade_off}))

    def check_policy(self, policy: keras.layers.Layer) -> None:
        """Raises a `ValueError` of one sentence unless the policy is made for these exits and features."""
        if not isinstance(policy, keras.layers.Layer):
            raise ValueError(
                f"Invalid value for argument `policy`. Expected a Keras layer or None. Received: {policy!r}"
            )
        check_fits(policy, self.num_exits, len(EXIT_FEATURES) + self.summary_units)
