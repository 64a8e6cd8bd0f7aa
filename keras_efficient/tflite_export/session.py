"""A loaded file: interpreter, delegate, metadata, and the count of what kernels executed."""

import ctypes
import os
import pathlib
from typing import Any

from keras_efficient import ops
from keras_efficient.tflite_export import flatbuffer, metadata
from keras_efficient.tflite_export.runtime import Runtime


class _Stats(ctypes.Structure):
    """The buffer that kernels count into; its address is the delegate's option `stats`."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("size_bytes", "executed_macs", "kernel_calls", "claimed_ops")]


class Session:
    """A file in an interpreter, its tensors allocated.

    Args:
        content: The file's bytes.
        runtime: See `runtime.find_runtime`.
        library: The delegate's library, None for a stock runtime.
        num_threads: Threads of builtin ops and kernels.
        plugins: Paths of further kernel libraries; those of registered ops where None.

    Raises:
        ValueError: If the file is no TFLite file, or the runtime refuses it.
    """

    def __init__(
        self,
        content: bytes,
        runtime: Runtime,
        library: pathlib.Path | None,
        num_threads: int,
        plugins: list[str] | None = None,
    ):
        self.metadata = file_metadata(content)
        self._content = content
        self._stats = _Stats(ctypes.sizeof(_Stats))
        delegates = []
        if library is not None:
            options = {"stats": str(ctypes.addressof(self._stats)), **plugin_options(plugins)}
            delegates.append(runtime.load_delegate(library, options))
        self.interpreter = runtime.interpreter(content, delegates, num_threads, self.metadata)
        self.interpreter._keras_efficient_stats = self._stats  # kernels write there as long as the interpreter lives

    @property
    def delegated_ops(self) -> int:
        """How many ops our kernels took over."""
        return int(self._stats.claimed_ops)

    def start_count(self) -> None:
        """Forgets what kernels executed so far."""
        self._stats.executed_macs = 0

    def executed_macs(self, builtin: float, dense_ops: float, samples: int = 1) -> float:
        """Multiply-adds per sample since `start_count`.

        Args:
            builtin: Those of builtin ops.
            dense_ops: Those of our ops in full, which is what they cost where no kernel took them over.
            samples: Number of samples that ran.
        """
        return float(builtin) + (self._stats.executed_macs / samples if self.delegated_ops else float(dense_ops))


def file_metadata(content: bytes) -> dict[str, Any]:
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
