"""Export to TFLite and back: `export` writes a verified file, `load` runs it, stock or with our kernels."""

from keras_efficient.tflite_export.exporter import export
from keras_efficient.tflite_export.report import ExportReport
from keras_efficient.tflite_export.runner import Result, Runner, delegate_path, load

__all__ = ["ExportReport", "Result", "Runner", "delegate_path", "export", "load"]
