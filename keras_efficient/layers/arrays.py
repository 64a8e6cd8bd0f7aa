"""Arrays into weights and out of them."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


def array(value: Any) -> NDArray[Any]:
    """What a variable holds, while a function is traced too."""
    if keras.backend.backend() != "tensorflow":
        return np.asarray(ops.convert_to_numpy(value))
    import tensorflow as tf

    with tf.init_scope():
        return np.asarray(ops.convert_to_numpy(value))


class Given(keras.initializers.Initializer):
    """Starts a weight with a given array."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return ops.convert_to_tensor(self.values, dtype=dtype)
