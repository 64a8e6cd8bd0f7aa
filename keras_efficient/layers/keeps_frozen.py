"""`KeepsFrozen`: a layer of which something does not train, whatever its `trainable` is set to."""

import keras


class KeepsFrozen(keras.layers.Layer):
    """Base of layers that freeze something again in `keep_frozen` whenever `trainable` is set."""

    @property
    def trainable(self) -> bool:
        """As in Keras; what is frozen stays so."""
        return bool(super().trainable)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value)
        self.keep_frozen()

    def keep_frozen(self) -> None:
        """Freezes it again. For subclasses to define."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `keep_frozen()`.")
