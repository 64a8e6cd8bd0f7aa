"""Export to TFLite and back: `export` writes a verified file, `load` runs it, stock or with our kernels."""

from keras_efficient.tflite_export.exporter import export
from keras_efficient.tflite_export.loading import load
from keras_efficient.tflite_export.measuring import measure_stages, set_latencies
from keras_efficient.tflite_export.report import ExportReport
from keras_efficient.tflite_export.runner import Result, Runner, delegate_path
from keras_efficient.tflite_export.staged_runner import StagedRunner
from keras_efficient.tflite_export.targets import (
    CoralReport,
    CoralRunner,
    FolderReport,
    coral_check,
    load_coral,
    quantization_aware,
)

__all__ = [
    "CoralReport",
    "CoralRunner",
    "ExportReport",
    "FolderReport",
    "Result",
    "Runner",
    "StagedRunner",
    "coral_check",
    "delegate_path",
    "export",
    "load",
    "load_coral",
    "measure_stages",
    "quantization_aware",
    "set_latencies",
]
