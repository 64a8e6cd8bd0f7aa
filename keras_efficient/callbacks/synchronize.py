"""Variables as they are in the middle of `fit`, on every backend."""

import keras


def synchronize(model: keras.Model) -> None:
    """To be called before a callback reads or assigns variables: on JAX they lag behind the training loop's state."""
    bring_up_to_date = getattr(model, "jax_state_sync", None)
    if bring_up_to_date is not None:
        bring_up_to_date()
