"""Devices that an export can be made for: what they take, and what belongs beside the model there."""

from keras_efficient.tflite_export.targets.coral_checking import coral_check
from keras_efficient.tflite_export.targets.coral_report import CoralReport
from keras_efficient.tflite_export.targets.coral_runner import CoralRunner, load_coral
from keras_efficient.tflite_export.targets.folder_report import FolderReport
from keras_efficient.tflite_export.targets.quantization_aware import quantization_aware

__all__ = ["CoralReport", "CoralRunner", "FolderReport", "coral_check", "load_coral", "quantization_aware"]
