"""How the weights of a layer are cut into groups `[outputs, groups, n]`."""

import dataclasses
import math
from typing import Any

from keras import ops

Tensor = Any
STRUCTURES = ("channelwise", "pixelwise", "kernelwise", "subchannelwise")
SMALLEST, LARGEST = 32, 64  # group size of a dense layer where none is asked for


@dataclasses.dataclass(frozen=True)
class Grouping:
    """A cut of a kernel into groups.

    | structure | groups per output G | weights per group n |
    |---|---|---|
    | `channelwise` | 1 | all of an output |
    | `pixelwise` (convolution) | kernel height x width | input channels |
    | `kernelwise` (convolution) | input channels | kernel height x width |
    | `subchannelwise` (dense) | `groups` runs of inputs | inputs / groups |

    Attributes:
        structure: One of the names above.
        kernel_shape: `(inputs, outputs)` or `(height, width, inputs, outputs)`.
        groups: Groups per output, G.
        size: Weights per group, n.
    """

    structure: str
    kernel_shape: tuple[int, ...]
    groups: int
    size: int

    @property
    def outputs(self) -> int:
        """Outputs, or filters."""
        return self.kernel_shape[-1]

    @property
    def num_weights(self) -> int:
        """Weights of the kernel."""
        return math.prod(self.kernel_shape)

    @property
    def num_groups(self) -> int:
        """Groups of all outputs, R."""
        return self.outputs * self.groups

    @property
    def _order(self) -> tuple[int, ...]:
        """Axes of the kernel in the order of the groups: output first."""
        if len(self.kernel_shape) == 2:
            return (1, 0)
        return (3, 2, 0, 1) if self.structure == "kernelwise" else (3, 0, 1, 2)

    def rows(self, kernel: Tensor) -> Tensor:
        """A kernel as rows of groups `[R, n]`; row `o * G + g` is group g of output o."""
        return ops.reshape(ops.transpose(kernel, self._order), (self.num_groups, self.size))

    def kernel(self, rows: Tensor) -> Tensor:
        """The inverse of `rows`."""
        shape = [self.kernel_shape[axis] for axis in self._order]
        back = sorted(range(len(shape)), key=self._order.__getitem__)
        return ops.transpose(ops.reshape(rows, shape), back)


def dense_grouping(inputs: int, outputs: int, group_size: int | None) -> Grouping:
    """Groups of `group_size` inputs; None for `default_group_size`.

    Raises:
        ValueError: If the groups do not divide the layer.
    """
    size = default_group_size(inputs) if group_size is None else group_size
    if inputs % size:
        raise ValueError(
            f"Invalid value for argument `group_size`. Expected a divisor of the layer's {inputs} inputs. "
            f"Received: {size}"
        )
    groups = inputs // size
    return Grouping("channelwise" if groups == 1 else "subchannelwise", (inputs, outputs), groups, size)


def default_group_size(inputs: int) -> int:
    """The largest divisor of `inputs` in [32, 64], else the smallest one above, else all inputs."""
    divisors = [size for size in range(1, inputs + 1) if inputs % size == 0]
    inside = [size for size in divisors if SMALLEST <= size <= LARGEST]
    return inside[-1] if inside else min((size for size in divisors if size > LARGEST), default=inputs)


def conv_grouping(kernel_shape: tuple[int, ...], structure: str) -> Grouping:
    """Groups of a convolution's kernel `(height, width, inputs, outputs)`.

    Raises:
        ValueError: For a structure that a convolution has not.
    """
    height, width, inputs, _ = kernel_shape
    counts = {"channelwise": 1, "pixelwise": height * width, "kernelwise": inputs}
    if structure not in counts:
        raise ValueError(
            f"Invalid value for argument `groups`. Expected one of {tuple(counts)}. Received: {structure!r}"
        )
    groups = counts[structure]
    return Grouping(structure, tuple(kernel_shape), groups, height * width * inputs // groups)
