"""Devices that an export can be made for: what they take, and what belongs beside the model there."""

from keras_efficient.tflite_export.targets.coral_checking import coral_check
from keras_efficient.tflite_export.targets.coral_report import CoralReport

__all__ = ["CoralReport", "coral_check"]
