"""Callbacks that train dynamic layers to a budget and show what they spend."""

from keras_efficient.callbacks.compute_budget import ComputeBudget
from keras_efficient.callbacks.efficiency_logger import EfficiencyLogger

__all__ = ["ComputeBudget", "EfficiencyLogger"]
