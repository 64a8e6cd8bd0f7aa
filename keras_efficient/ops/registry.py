"""The contract in the heart of the package: an op, and the registry that built-in and third-party ops share."""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_efficient.ops import context
from keras_efficient.ops.attributes import Attributes

Tensor = Any
Shape = tuple[int | None, ...]

PLUGIN_GROUP = "keras_efficient.plugins"


@dataclasses.dataclass(frozen=True)
class Argument:
    """One tensor that an op takes.

    Attributes:
        name: The argument's name.
        kind: `"activation"` (changes with every call), `"gate"` (`[B, channels]`, 0 is shut) or `"weight"` (constant in
            an exported file).
        rank: Number of dimensions.
        dtype: `"float32"`, `"int8"`, `"int32"`, or `"uint8"` for packed bits. In mixed precision float arguments may
            be narrower.
        device_permutation: How the dimensions are reordered in an exported file (`None`: as they are).
        packed: True for bits and int8, which the exporter keeps from being unfolded into floats.
        trained: False for floats that are fitted to data, and not by gradients.
    """

    name: str
    kind: Literal["activation", "gate", "weight"]
    rank: int
    dtype: str = "float32"
    device_permutation: tuple[int, ...] | None = None
    packed: bool = False
    trained: bool = True


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one call costs per sample: multiply-adds (a number, or a tensor `[B]`) and bytes of stored weights."""

    macs: Any
    weight_bytes: float


@dataclasses.dataclass(frozen=True)
class Op:
    """A computation that can be skipped, packed or shared at run time.

    Attributes:
        name: `"<namespace>.<op>"`; built-in ops use the namespace `ke`.
        version: Version of the semantics; a kernel refuses a newer one than it knows.
        arguments: The tensors in order: activations and gates first, weights last.
        attributes: Frozen dataclass derived from `Attributes`.
        reference: `reference(*tensors, **attributes)` in `keras.ops`: the definition, and the oracle of every kernel.
        output_shape: `output_shape(shapes, attributes) -> shape` from the shapes of the arguments; raises `ValueError`
            where they do not fit each other.
        cost: `cost(shapes, attributes, open_counts=None) -> Cost`. `open_counts` holds, per gate argument, the number
            of open channels as a tensor `[B]`; without it the cost is the dense one.
        example: `example(rng) -> (arrays, attributes)`, a random valid call in NumPy, for `testing.check_op`.
        library: Path of the shared library with the op's kernel, None for kernels of our own library.
        output_dtype: Of what the reference returns.
        tolerance: How far a kernel may be from the reference, relative to the largest value above 1.
    """

    name: str
    version: int
    arguments: tuple[Argument, ...]
    attributes: type[Attributes]
    reference: Callable[..., Tensor]
    output_shape: Callable[[Sequence[Shape], Any], Shape]
    cost: Callable[..., Cost]
    example: Callable[[np.random.Generator], tuple[list[np.ndarray], dict[str, Any]]]
    library: str | None = None
    output_dtype: str = "float32"
    tolerance: float = 1e-4

    def __call__(self, *tensors: Tensor, **attributes: Any) -> Tensor:
        """Checks the arguments, then computes the reference (or, while the exporter traces, keeps the op whole)."""
        values = self.attributes(**attributes)
        self.check_arguments(tensors)
        self.output_shape([tuple(tensor.shape) for tensor in tensors], values)  # refuses sizes that do not fit
        if context.is_recording():
            self._record(tensors, values)
        call = context.op_caller()
        if call is not None:
            return call(self, tensors, values)
        return self.reference(*tensors, **dataclasses.asdict(values))

    @property
    def weights(self) -> tuple[Argument, ...]:
        """The arguments that are constants of an exported file."""
        return tuple(argument for argument in self.arguments if argument.kind == "weight")

    def check_arguments(self, tensors: Sequence[Tensor]) -> None:
        """Raises `ValueError` in one sentence when the number, a dtype or a rank of the tensors is wrong."""
        if len(tensors) != len(self.arguments):
            names = ", ".join(argument.name for argument in self.arguments)
            raise ValueError(
                f"Op `{self.name}` expected {len(self.arguments)} tensors ({names}). Received: {len(tensors)}"
            )
        for argument, tensor in zip(self.arguments, tensors, strict=True):
            dtype = getattr(tensor, "dtype", None)
            dtype = keras.backend.standardize_dtype(dtype) if dtype is not None else "unknown"
            if dtype != argument.dtype and not ("float" in dtype and "float" in argument.dtype):
                raise ValueError(
                    f"Invalid dtype for argument `{argument.name}` of op `{self.name}`. Expected {argument.dtype}. "
                    f"Received: {dtype}"
                )
            if len(tensor.shape) != argument.rank:
                raise ValueError(
                    f"Invalid shape for argument `{argument.name}` of op `{self.name}`. Expected rank {argument.rank}. "
                    f"Received shape: {tuple(tensor.shape)}"
                )

    def _record(self, tensors: Sequence[Tensor], attributes: Attributes) -> None:
        from keras import ops

        shapes = [tuple(tensor.shape) for tensor in tensors]
        dense = self.cost(shapes, attributes).macs
        if context.op_caller() is not None:
            context.record(self.name, dense, ops.ones((1,)) * dense, by_op=True)
            return
        counts = [
            ops.sum(ops.cast(ops.not_equal(tensor, 0), "float32"), axis=-1)
            for argument, tensor in zip(self.arguments, tensors, strict=True)
            if argument.kind == "gate"
        ]
        executed = self.cost(shapes, attributes, counts).macs if counts else ops.ones((1,)) * dense
        context.record(self.name, dense, executed, by_op=True)


def check_sizes(op: str, expected: dict[str, tuple[int | None, int | None]]) -> None:
    """Raises `ValueError` for the first dimension that is not as expected.

    Args:
        op: The op's name.
        expected: `(size that came, size that was expected)` by what the dimension is; None fits everything.
    """
    for what, (size, wanted) in expected.items():
        if size is not None and wanted is not None and size != wanted:
            raise ValueError(f"Invalid shape for op `{op}`. Expected {what} to be {wanted}. Received: {size}")


_ops: dict[str, Op] = {}


def register_op(op: Op) -> Op:
    """Makes an op known to layers, exporter, runtime and `testing.check_op`. Returns it.

    Raises:
        ValueError: If `op` is not an `Op`, its name has no namespace, weights do not come last, or the name is taken by
            another op.
    """
    if not isinstance(op, Op):
        raise ValueError(f"Invalid value for argument `op`. Expected an `Op`. Received: {op!r}")
    if op.name.count(".") != 1 or not op.name.replace(".", "_").isidentifier():
        raise ValueError(f"Invalid op name. Expected '<namespace>.<op>' of identifiers. Received: {op.name!r}")
    kinds = [argument.kind == "weight" for argument in op.arguments]
    if kinds != sorted(kinds):
        raise ValueError(f"Invalid arguments of op `{op.name}`. Expected weights last. Received: {op.arguments}")
    known = _ops.get(op.name)
    if known is not None and known is not op:
        raise ValueError(f"Op name {op.name!r} is taken already. Expected a name of your own. Received: {op!r}")
    _ops[op.name] = op
    return op


@functools.cache
def load_plugins() -> tuple[str, ...]:
    """Calls every entry point of the group `keras_efficient.plugins` once; each registers ops. Returns their names."""
    names = []
    for entry_point in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        try:
            entry_point.load()()
        except Exception as error:
            raise RuntimeError(
                f"Plugin {entry_point.name!r} ({entry_point.value}) of the group {PLUGIN_GROUP} could not be loaded: "
                f"{error}"
            ) from error
        names.append(entry_point.name)
    return tuple(names)


def registered_ops() -> dict[str, Op]:
    """All ops by name, those of plugins included."""
    load_plugins()
    return dict(_ops)


def get_op(name: str) -> Op:
    """The op called `name`. Raises `KeyError` with the known names when there is none."""
    known = registered_ops()
    if name not in known:
        raise KeyError(f"Unknown op {name!r}. Expected one of {sorted(known)}.")
    return known[name]
