"""What a Keras model costs: multiply-adds (MACs), parameters and bytes, per layer and in all."""

from keras_efficient.cost.counting import counting
from keras_efficient.cost.observe import observed_calls
from keras_efficient.cost.profiling import LayerCost, Profile, profile

__all__ = ["LayerCost", "Profile", "counting", "observed_calls", "profile"]
