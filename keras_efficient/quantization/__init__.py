"""From a trained network to one of a few bits per weight (ALQ)."""

from keras_efficient.quantization.multi_bit_model import MultiBitModel, multi_bit_layers
from keras_efficient.quantization.picture import picture
from keras_efficient.quantization.quantize import LayerReport, QuantizeReport, quantize
from keras_efficient.quantization.rebuild import finished, nested, quantize_activations
from keras_efficient.quantization.summary import LayerSummary, Summary, summary

__all__ = [
    "LayerReport",
    "LayerSummary",
    "MultiBitModel",
    "QuantizeReport",
    "Summary",
    "finished",
    "multi_bit_layers",
    "nested",
    "picture",
    "quantize",
    "quantize_activations",
    "summary",
]
