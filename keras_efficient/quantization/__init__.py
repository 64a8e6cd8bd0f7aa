"""From a trained network to one of a few bits per weight."""

from keras_efficient.quantization.multi_bit_model import MultiBitModel, multi_bit_layers
from keras_efficient.quantization.quantize import LayerReport, QuantizeReport, quantize

__all__ = ["LayerReport", "MultiBitModel", "QuantizeReport", "multi_bit_layers", "quantize"]
