"""Running a file: stock or with the delegate, with what each call executed."""

import ctypes
import dataclasses
import os
import pathlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient import _native, ops
from keras_efficient.tflite_export import flatbuffer, metadata
from keras_efficient.tflite_export.runtime import Runtime, find_runtime

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Result:
    """What one call of a `Runner` gave.

    Attributes:
        outputs: Arrays by output name, first dimension N.
        exit_index: `[N]` index of the exit taken, None for a model without an exit policy.
        executed_macs: `[N]` multiply-adds that really ran: the builtin ops of the branches taken, and the ops'
            kernels by their own counters (without the delegate: the ops in full, since their decomposition computes
            everything).
    """

    outputs: dict[str, Array]
    exit_index: NDArray[np.int32] | None
    executed_macs: NDArray[np.float64]

    @property
    def output(self) -> Array:
        """The only output, or the one called `output`."""
        return self.outputs["output"] if "output" in self.outputs else next(iter(self.outputs.values()))


class _Stats(ctypes.Structure):
    """The buffer that kernels count into; its address is the delegate's option `stats`."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("size_bytes", "executed_macs", "kernel_calls", "claimed_ops")]


def delegate_path() -> pathlib.Path:
    """The shared library with the delegate, for anybody's own interpreter.

    Raises:
        FileNotFoundError: One sentence, where the package was installed without a C compiler.
    """
    return _native.library_path()


def load(
    path: str | os.PathLike[str],
    *,
    delegate: str = "auto",
    num_threads: int = 1,
    runtime: str | None = None,
    plugins: list[str] | None = None,
) -> "Runner":
    """Loads a `.tflite` file.

    Args:
        path: The file.
        delegate: `"auto"` (our kernels where the library is installed), `"none"` (stock), or the path of a library.
        num_threads: Threads of builtin ops and kernels.
        runtime: `"ai_edge_litert"`, `"tensorflow"` or `"tflite_runtime"`; the first one that is installed where None.
        plugins: Paths of further kernel libraries; those of installed plugin packages are found by themselves.

    Raises:
        ValueError: If the file is no TFLite file, or the runtime is too old for it; one sentence that names the
            version.
        FileNotFoundError: If the file or the library does not exist.
        ImportError: If no runtime is installed.
    """
    if num_threads < 1:
        raise ValueError(f"Invalid value for argument `num_threads`. Expected at least 1. Received: {num_threads}")
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"Invalid value for argument `path`. Expected a .tflite file. Received: {file} (not there)"
        )
    content = file.read_bytes()
    library: pathlib.Path | None = None
    if delegate == "auto":
        try:
            library = delegate_path()
        except FileNotFoundError as error:
            warnings.warn(str(error), stacklevel=2)
    elif delegate != "none":
        library = pathlib.Path(delegate)
        if not library.is_file():
            raise FileNotFoundError(
                "Invalid value for argument `delegate`. Expected 'auto', 'none' or the path of a library. "
                f"Received: {delegate!r}"
            )
    return Runner(content, find_runtime(runtime), library, num_threads, plugins)


class Runner:
    """A loaded file. Call it with one array, or with arrays by input name; see `load`.

    A file with exits or layer gates takes one sample at a time; batches are run sample by sample. A `Runner` belongs
    to one thread at a time; load one per thread.
    """

    def __init__(
        self,
        content: bytes,
        runtime: Runtime,
        library: pathlib.Path | None,
        num_threads: int,
        plugins: list[str] | None = None,
    ):
        self.metadata = _file_metadata(content)
        self._content = content
        self._stats = _Stats(ctypes.sizeof(_Stats))
        delegates = []
        if library is not None:
            options = {"stats": str(ctypes.addressof(self._stats)), **plugin_options(plugins)}
            delegates.append(runtime.load_delegate(library, options))
        self.interpreter = runtime.interpreter(content, delegates, num_threads, self.metadata)
        self.interpreter._keras_efficient_stats = self._stats  # kernels write there as long as the interpreter lives
        self._signature = self.interpreter.get_signature_runner()
        self._inputs = self._signature.get_input_details()
        # The outputs that the exporter added; by their names alone where the file's metadata cannot be read.
        said = {"macs": bool(self.metadata.get("branches")), "exit_index": "exits" in self.metadata}
        names = self._signature.get_output_details()
        self._own = {name for name, is_own in said.items() if name in names and (is_own or not self.metadata)}

    @property
    def delegated_ops(self) -> int:
        """How many ops our kernels took over."""
        return int(self._stats.claimed_ops)

    @property
    def batch_size(self) -> int | None:
        """Rows that the file takes at a time, None where it takes any number."""
        size = int(next(iter(self._inputs.values()))["shape_signature"][0])
        return size if size > 0 else None

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes by input name; -1 is a free dimension."""
        return {name: tuple(int(size) for size in detail["shape_signature"]) for name, detail in self._inputs.items()}

    def __call__(self, x: Any = None, **inputs: Any) -> Result:
        """Runs a batch `[N, ...]`, one array or arrays by input name.

        Raises:
            ValueError: If an input is missing, unknown, or of the wrong shape or dtype.
        """
        arrays = self._check(x, inputs)
        count = len(next(iter(arrays.values())))
        size = self.batch_size or count
        if count % size:
            raise ValueError(
                f"Invalid inputs. Expected a multiple of the file's batch size {size}. Received: {count} rows"
            )
        outputs: list[dict[str, Array]] = []
        macs: list[float] = []
        for start in range(0, count, size):
            self._stats.executed_macs = 0
            one = self._signature(**{name: array[start : start + size] for name, array in arrays.items()})
            outputs.append(one)
            macs += [self._executed(one, size)] * size
        merged = {name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]}
        added = {name: merged.pop(name) for name in self._own}
        return Result(merged, added.get("exit_index"), np.asarray(macs, "float64"))

    def _executed(self, outputs: dict[str, Array], samples: int) -> float:
        """Multiply-adds per sample of the call that just ended."""
        known = self.metadata.get("macs", {})
        builtin, dense_ops = (
            outputs["macs"] if "macs" in self._own else (known.get("builtin", 0.0), known.get("ops", 0.0))
        )
        return float(builtin) + (self._stats.executed_macs / samples if self.delegated_ops else float(dense_ops))

    def _check(self, x: Any, inputs: dict[str, Any]) -> dict[str, Array]:
        if x is not None:
            free = [name for name in self._inputs if name not in inputs]
            if len(free) != 1:
                raise ValueError(
                    f"Invalid inputs. Expected arrays by name for {sorted(self._inputs)}. Received one array for {free}"
                )
            inputs = {free[0]: x, **inputs}
        if set(inputs) != set(self._inputs):
            raise ValueError(f"Invalid inputs. Expected {sorted(self._inputs)}. Received: {sorted(inputs)}")
        arrays = {}
        for name, detail in self._inputs.items():
            array = np.asarray(inputs[name])
            wanted = [int(size) for size in detail["shape_signature"]]
            if array.ndim != len(wanted) or list(array.shape[1:]) != wanted[1:] or len(array) == 0:
                raise ValueError(
                    f"Invalid shape for input `{name}`. Expected [N, {wanted[1:]}]. Received: {array.shape}"
                )
            numbers = array.dtype.kind in "fiub"
            narrows = np.issubdtype(detail["dtype"], np.integer) and not np.can_cast(array.dtype, detail["dtype"])
            if not numbers or narrows:
                raise ValueError(
                    f"Invalid dtype for input `{name}`. Expected {detail['dtype'].__name__}. Received: {array.dtype}"
                )
            arrays[name] = np.ascontiguousarray(array.astype(detail["dtype"], copy=False))
        if len({len(array) for array in arrays.values()}) != 1:
            raise ValueError(
                f"Invalid inputs. Expected one batch size. Received: { {n: a.shape for n, a in arrays.items()} }"
            )
        return arrays


def _file_metadata(content: bytes) -> dict[str, Any]:
    """What the file says of itself; nothing where LiteRT's schema is not installed (a bare tflite-runtime)."""
    try:
        return metadata.read(flatbuffer.parse(content))
    except ImportError:
        return {}


def plugin_options(libraries: list[str] | None = None) -> dict[str, str]:
    """The delegate's option `plugins` for kernel libraries, by default those of all registered ops."""
    if libraries is None:
        libraries = sorted({op.library for op in ops.registered_ops().values() if op.library is not None})
    return {"plugins": os.pathsep.join(libraries)} if libraries else {}
