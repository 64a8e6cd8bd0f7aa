"""Multiply-adds of recurrent layers, whose cells run in a loop that nobody can look into."""

from typing import Any

from keras import layers

from keras_efficient.cost.calls import Call, Shape, channels, spatial
from keras_efficient.ops.macs import conv_macs, dense_macs

_KERNELS = {layers.LSTMCell: 4, layers.GRUCell: 3, layers.SimpleRNNCell: 1}
_CONV_LSTMS = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
CELLS = tuple(_KERNELS)
LAYERS = (layers.RNN, layers.Bidirectional, *_CONV_LSTMS)


def counts_what_is_inside(layer: Any) -> bool:
    """Whether `sequence_macs` knows the cells of this recurrent layer, so that their calls do not count again."""
    if isinstance(layer, layers.Bidirectional):
        return counts_what_is_inside(layer.forward_layer) and counts_what_is_inside(layer.backward_layer)
    if isinstance(layer, _CONV_LSTMS):
        return True
    return isinstance(layer, layers.RNN) and _is_known(layer.cell)


def sequence_macs(call: Call) -> float:
    """MACs of a whole sequence `[steps, ...]`; 0 where the cells are not known and are counted call by call."""
    layer, sequence = call.layer, call.inputs[0]
    if not counts_what_is_inside(layer):
        return 0.0
    directions = [layer.forward_layer, layer.backward_layer] if isinstance(layer, layers.Bidirectional) else [layer]
    return sequence[0] * sum(_step_macs(direction, sequence[1:]) for direction in directions)


def cell_call_macs(call: Call) -> float:
    """MACs of one call of a cell by itself."""
    return _cell_macs(call.layer, call.inputs[0][-1])


def _step_macs(layer: Any, shape: Shape) -> float:
    if not isinstance(layer, _CONV_LSTMS):
        return _cell_macs(layer.cell, shape[-1])
    cell = layer.cell
    output = spatial(cell, tuple(cell.compute_output_shape((1, *shape))[0])[1:])
    from_input = conv_macs(output, cell.kernel_size, channels(cell, shape), 4 * cell.filters)
    return float(from_input + conv_macs(output, cell.kernel_size, cell.filters, 4 * cell.filters))


def _cell_macs(cell: Any, features: int) -> float:
    """One step: a product with the input and one with the state for each of the cell's kernels."""
    if isinstance(cell, layers.StackedRNNCells):
        widths = [features, *(inner.units for inner in cell.cells)]
        return sum(_cell_macs(inner, width) for inner, width in zip(cell.cells, widths, strict=False))
    kernels = next(number for kind, number in _KERNELS.items() if isinstance(cell, kind))
    return kernels * float(dense_macs(features, cell.units) + dense_macs(cell.units, cell.units))


def _is_known(cell: Any) -> bool:
    if isinstance(cell, layers.StackedRNNCells):
        return all(_is_known(inner) for inner in cell.cells)
    return isinstance(cell, CELLS)
