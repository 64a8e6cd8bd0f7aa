"""The one form that every exit policy has: a Keras layer that scores the features of an exit."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from keras_efficient.layers.exit_features import EXIT_FEATURES
from keras_efficient.ops.context import is_recording, record


class ExitPolicy(keras.layers.Layer):
    """Base of the layers that decide whether an input leaves a network at an exit.

    `policy(features, exit_index=k)` returns a score `[B]`; an input leaves where the score is above 0. Whoever runs
    the network makes every input that is still there leave at the last exit: a policy is not asked about it.

    A subclass implements `call(features, exit_index)` in `keras.ops`, keeps what it has learned in weights, and what it
    was made with in `get_config`. It computes in float32 by default, also under mixed precision, because decisions
    compare close numbers.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: len(EXIT_FEATURES)})

    def call(self, features: Any, exit_index: int) -> Any:
        """Scores one exit.

        Args:
            features: `[B, 4]`, from `keras_efficient.layers.exit_features`.
            exit_index: Python integer, 0 for the first exit.

        Returns:
            `[B]`; above 0 the input leaves.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement `call(features, exit_index)`.")

    def record_macs(self, macs: float) -> None:
        """Notes the multiply-adds of one decision, so that a network's cost includes its policy's."""
        if is_recording():
            record(self.name, macs, ops.full((1,), macs, dtype="float32"))

    def compute_output_shape(self, input_shape: tuple[int | None, ...], **_: Any) -> tuple[int | None]:
        return (input_shape[0],)


def decide(policy: ExitPolicy, features: ArrayLike) -> NDArray[np.int64]:
    """The exit that each input takes.

    Args:
        policy: Any exit policy.
        features: `[N, K, 4]` features of every exit, such as `ExitData.features`.

    Returns:
        `[N]` integers in `[0, K)`: the first exit whose score is above 0, else the last.
    """
    array = np.asarray(features, dtype=np.float32)
    if array.ndim != 3 or array.shape[1] < 1:
        raise ValueError(
            "Invalid value for argument `features`. Expected shape [inputs, exits, features]. "
            f"Received: shape {array.shape}"
        )
    leaves = np.ones(array.shape[:2], dtype=bool)
    for k in range(array.shape[1] - 1):
        leaves[:, k] = ops.convert_to_numpy(policy(array[:, k], exit_index=k)) > 0
    return leaves.argmax(axis=1)
