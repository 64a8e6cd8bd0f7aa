"""Callbacks that train dynamic layers to a budget and show what they spend."""

from keras_efficient.callbacks.adaptive_bitwidth import AdaptiveBitwidth
from keras_efficient.callbacks.compute_budget import ComputeBudget
from keras_efficient.callbacks.efficiency_logger import EfficiencyLogger
from keras_efficient.callbacks.filter_sharing_schedule import FilterSharingSchedule
from keras_efficient.callbacks.gate_schedule import GateSchedule

__all__ = ["AdaptiveBitwidth", "ComputeBudget", "EfficiencyLogger", "FilterSharingSchedule", "GateSchedule"]
