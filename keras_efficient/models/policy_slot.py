"""A place in a built model for an exit policy that is found after training."""

from typing import Any

import keras


class PolicySlot(keras.layers.Layer):
    """Holds a policy that may come after the model was built, when Keras takes no new sublayers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.policy: keras.layers.Layer | None = None
        self.built = True

    def put(self, policy: keras.layers.Layer | None) -> None:
        """Holds `policy`, which `fit` shall leave alone."""
        if policy is not None:
            policy.trainable = False
        self.policy = policy
