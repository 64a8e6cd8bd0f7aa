"""A place in a built model for an exit policy that is found after training."""

from typing import Any

import keras

from keras_efficient.layers.keeps_frozen import KeepsFrozen


class PolicySlot(KeepsFrozen):
    """Holds a policy that may come after the model was built, when Keras takes no new sublayers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.policy: keras.layers.Layer | None = None
        self.built = True

    def put(self, policy: keras.layers.Layer | None) -> None:
        """Holds `policy`, which `fit` shall leave alone, in place of the one before."""
        if self.policy is not None:
            self._tracker.untrack(self.policy)
        self.policy = policy
        self.keep_frozen()

    def keep_frozen(self) -> None:
        policy = getattr(self, "policy", None)
        if policy is not None:
            policy.trainable = False
