"""How fast one gated convolution is beside XNNPACK's dense one of the same type, batch 1.

`python -m benchmarks.gated_conv [--quick] [--dtype float32|int8] [--threads N] [--isa NAME] [--only NAME]`. Both
sides are timed in the same process in alternating blocks, in CPU time of the calling thread (nothing else computes), so
that other programs on the machine disturb less; with several threads in wall time. Times are the median over the blocks
of a block's mean for one call, a speed-up is the median of the blocks' ratios. The gates are drawn anew for every call,
so planning, gathering of weights and copying are inside the times. Our kernel is called directly, so what it takes to
call an interpreter, measured with one that holds a 1x1 convolution of a single number, is taken off XNNPACK's times
(`invoke_us`).

`dense`: every channel is open. `quarter`: exactly half of the inputs and half of the outputs, a quarter of the
multiplications. `bernoulli`: every channel is open with probability 1/2. The file holds `shapes[name][dtype]` with
`dense_ratio` (our time over XNNPACK's), `quarter_speedup` and `bernoulli_speedup` over XNNPACK's dense time.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.util
import io
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "native"
RESULT = ROOT / "benchmarks" / "results" / "gated_conv.json"
# kernel size, height = width, channels in and out
SHAPES = [
    (3, 56, 64),
    (3, 28, 128),
    (3, 14, 256),
    (3, 7, 512),
    (3, 32, 16),
    (3, 16, 32),
    (3, 8, 64),
    (1, 56, 64),
    (1, 28, 128),
    (1, 14, 256),
    (3, 8, 16),
    (3, 8, 32),
    (3, 4, 32),
    (3, 4, 64),
]
DTYPES = ("float32", "int8")
GATES = ("dense", "quarter", "bernoulli")
ISAS = ("scalar", "avx2", "avx512", "avx512vnni", "avx512bitalg")
DRAWS = 64
Array = np.ndarray[Any, Any]


class Shape(ctypes.Structure):
    """`KeGatedConv2DShape`."""

    _names = "kernel_h kernel_w in_channels out_channels stride_h stride_w dilation_h dilation_w padding activation isa"
    _fields_ = [(name, ctypes.c_int32) for name in _names.split(" ")]


class Int8Shape(ctypes.Structure):
    """`KeGatedConv2DInt8Shape`."""

    _fields_ = [
        ("conv", Shape),
        ("input_scale", ctypes.c_float),
        ("output_scale", ctypes.c_float),
        ("input_zero_point", ctypes.c_int32),
        ("output_zero_point", ctypes.c_int32),
    ]


class Draws(ctypes.Structure):
    """`Draws` of the timing loop."""

    _fields_ = [
        ("g_in", ctypes.c_void_p),
        ("g_out", ctypes.c_void_p),
        ("in_channels", ctypes.c_int),
        ("out_channels", ctypes.c_int),
        ("count", ctypes.c_int),
    ]


def native_build() -> Any:
    """The module `native/build.py`."""
    spec = importlib.util.spec_from_file_location("native_build", NATIVE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(directory: Path) -> ctypes.CDLL:
    """Compiles the kernels as the package does, and the loop that times them, into one shared library."""
    builder = native_build()
    compiler = builder.find_compiler()
    wanted = [source for source in builder.sources() if source.parent.name.startswith("gated_conv_2d")]
    files = [*wanted, NATIVE / "cpu.c", NATIVE / "thread_pool.c", NATIVE / "bench" / "gated_conv_2d_bench.c"]
    objects = builder.compile_objects(directory, files, compiler, ["-fvisibility=default"])
    path = directory / "libgated_conv_2d.so"
    subprocess.run([*compiler, *objects, "-shared", "-pthread", "-lm", "-o", str(path)], check=True)
    library = ctypes.CDLL(str(path))
    for name in ("ke_gated_conv_2d", "ke_gated_conv_2d_int8"):
        getattr(library, f"{name}_create").restype = ctypes.c_void_p
        getattr(library, f"{name}_bench").restype = ctypes.c_double
    library.ke_thread_pool_create.restype = ctypes.c_void_p
    return library


def draw_gates(kind: str, channels: int, rng: np.random.Generator) -> Array:
    """`DRAWS` rows of gates: float32 [DRAWS, channels]."""
    if kind == "dense":
        return np.ones((DRAWS, channels), np.float32)
    if kind == "bernoulli":
        return (rng.random((DRAWS, channels)) < 0.5).astype(np.float32)
    rank = rng.random((DRAWS, channels)).argsort(axis=1)
    return (rank < channels // 2).astype(np.float32)


class Peer:
    """The dense convolution with a fused relu in LiteRT with its default delegates."""

    def __init__(self, shape: tuple[int, int, int], dtype: str, data: dict[str, Array], threads: int) -> None:
        import keras
        import tensorflow as tf
        from ai_edge_litert.interpreter import Interpreter

        kernel_size, size, channels = shape
        self.overhead = 0.0  # seconds that every call takes without computing anything
        self._clock: Callable[[], float] = time.thread_time if threads == 1 else time.perf_counter
        inputs = keras.Input((size, size, channels), batch_size=1)
        layer = keras.layers.Conv2D(channels, kernel_size, padding="same", activation="relu")
        model = keras.Model(inputs, layer(inputs))
        layer.set_weights([data["kernel"], data["bias"]])
        with contextlib.redirect_stdout(io.StringIO()):
            converter = tf.lite.TFLiteConverter.from_keras_model(model)
            if dtype == "int8":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.representative_dataset = lambda: [[data["x"]]]
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.inference_input_type = converter.inference_output_type = tf.int8
            content = converter.convert()
        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        self.x = data["x"]
        if dtype == "int8":
            scale, zero_point = self._input["quantization"]
            self.x = np.clip(np.rint(data["x"] / scale) + zero_point, -128, 127).astype(np.int8)
        self._interpreter.set_tensor(self._input["index"], self.x)

    def seconds(self, calls: int) -> float:
        """The mean time of one call."""
        invoke = self._interpreter.invoke
        start = self._clock()
        for _ in range(calls):
            invoke()
        return (self._clock() - start) / calls - self.overhead

    def output(self) -> Array:
        """The dense result."""
        return np.asarray(self._interpreter.get_tensor(self._output["index"]))

    def quantization(self) -> tuple[tuple[float, int], tuple[float, int]]:
        """Scale and zero point of input and output."""
        return self._input["quantization"], self._output["quantization"]


class Ours:
    """Our kernel on one shape, with one kind of gates."""

    def __init__(
        self,
        library: ctypes.CDLL,
        shape: tuple[int, int, int],
        kind: str,
        isa: int,
        data: dict[str, Array],
        peer: Peer,
        pool: ctypes.c_void_p,
        threads: int,
    ) -> None:
        from keras_efficient.ops.gated_conv_2d_int8 import quantized_bias, quantized_kernel

        kernel_size, size, channels = shape
        self._library, self._pool = library, pool
        self._x = np.ascontiguousarray(peer.x)
        rng = np.random.default_rng(7)
        self._gates = [draw_gates(kind, channels, rng) for _ in range(2)]
        self._draws = Draws(*(gates.ctypes.data for gates in self._gates), channels, channels, DRAWS)
        self.y = np.empty((1, size, size, channels), self._x.dtype)
        conv = Shape(kernel_size, kernel_size, channels, channels, 1, 1, 1, 1, 1, 1, isa)
        if self._x.dtype == np.int8:
            self._name = "ke_gated_conv_2d_int8"
            (input_scale, input_zero), (output_scale, output_zero) = peer.quantization()
            kernel, scale = quantized_kernel(data["kernel"])
            bias = quantized_bias(data["bias"], input_scale, scale)
            described: Shape | Int8Shape = Int8Shape(conv, input_scale, output_scale, input_zero, output_zero)
            self._weights = [np.ascontiguousarray(kernel.transpose(3, 0, 1, 2)), scale, bias]
        else:
            self._name = "ke_gated_conv_2d"
            described = conv
            self._weights = [np.ascontiguousarray(data["kernel"].transpose(3, 0, 1, 2)), data["bias"]]
        pointer = self._call("create")(ctypes.byref(described), *map(_pointer, self._weights), None)
        self._plan = ctypes.c_void_p(pointer)
        if self._call("resize")(self._plan, 1, size, size, threads) != 0:
            raise MemoryError("no room for the plan")

    def _call(self, name: str) -> Any:
        return getattr(self._library, f"{self._name}_{name}")

    def seconds(self, calls: int) -> float:
        """The mean time of one call."""
        arguments = (self._plan, _pointer(self._x), ctypes.byref(self._draws), _pointer(self.y), calls, self._pool)
        return float(self._call("bench")(*arguments))

    def close(self) -> None:
        """Frees the plan."""
        self._call("destroy")(self._plan)


def _pointer(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def invoke_seconds(dtype: str, blocks: int, threads: int) -> float:
    """What a call of an interpreter takes that computes next to nothing."""
    ones = np.ones((1, 1, 1, 1), np.float32)
    peer = Peer((1, 1, 1), dtype, {"x": ones, "kernel": ones, "bias": ones[0, 0, 0]}, threads)
    return float(np.median([peer.seconds(2000) for _ in range(blocks)]))


def measure(
    library: ctypes.CDLL,
    shape: tuple[int, int, int],
    dtype: str,
    isa: int,
    overhead: float,
    blocks: int,
    block_seconds: float,
    threads: int,
) -> dict[str, Any]:
    """Medians and quartiles for one shape and type."""
    kernel_size, size, channels = shape
    rng = np.random.default_rng(3)
    scale = 1 / (kernel_size * channels**0.5)
    data = {
        "x": rng.standard_normal((1, size, size, channels)).astype(np.float32),
        "kernel": (rng.standard_normal((kernel_size, kernel_size, channels, channels)) * scale).astype(np.float32),
        "bias": rng.standard_normal(channels).astype(np.float32),
    }
    pool = ctypes.c_void_p(library.ke_thread_pool_create(threads) if threads > 1 else None)
    peer = Peer(shape, dtype, data, threads)
    ours = {kind: Ours(library, shape, kind, isa, data, peer, pool, threads) for kind in GATES}
    sides: dict[str, Peer | Ours] = {"peer": peer, **ours}
    calls = {name: max(3, int(block_seconds / min(side.seconds(3) for _ in range(3)))) for name, side in sides.items()}
    peer.overhead = overhead
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(blocks):
        for name, side in sides.items():
            times[name].append(side.seconds(calls[name]))
    macs = size * size * kernel_size * kernel_size * channels * channels
    microseconds = {name: float(np.median(values)) * 1e6 for name, values in times.items()}
    ratios = {kind: np.asarray(times["peer"]) / np.asarray(times[kind]) for kind in GATES}
    difference = np.abs(ours["dense"].y.astype(np.float64) - peer.output()).max()
    for side in ours.values():
        side.close()
    if threads > 1:
        library.ke_thread_pool_destroy(pool)
    return {
        "peer_us": microseconds["peer"],
        "peer_gmacs": macs / microseconds["peer"] / 1e3,
        "dense_us": microseconds["dense"],
        "dense_ratio": float(np.median(1 / ratios["dense"])),
        "quarter_us": microseconds["quarter"],
        "quarter_speedup": float(np.median(ratios["quarter"])),
        "bernoulli_us": microseconds["bernoulli"],
        "bernoulli_speedup": float(np.median(ratios["bernoulli"])),
        "quartiles": {kind: [float(v) for v in np.quantile(ratios[kind], (0.25, 0.75))] for kind in GATES},
        "largest_difference_dense": float(difference),
    }


def machine() -> dict[str, Any]:
    """What the numbers belong to."""
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions = {name: metadata.version(name) for name in ("ai-edge-litert", "tensorflow", "keras", "numpy")}
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "system": platform.platform(),
        "compiler": compiler,
        "versions": versions,
    }


def name_of(shape: tuple[int, int, int]) -> str:
    """Such as `3x3 56x56x64`."""
    kernel_size, size, channels = shape
    return f"{kernel_size}x{kernel_size} {size}x{size}x{channels}"


def result_path(base: Path, threads: int, isa: str | None) -> Path:
    """Where a run with these options is kept."""
    return base.with_stem(base.stem + (f"_{isa}" if isa else "") + (f"_{threads}_threads" if threads > 1 else ""))


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter blocks; writes no file")
    parser.add_argument("--dtype", choices=DTYPES, help="one type only; writes no file")
    parser.add_argument(
        "--threads", type=int, default=1, help="of both sides; other numbers than 1 have files of their own"
    )
    parser.add_argument("--isa", choices=ISAS, help="force a path (default: the best one); has a file of its own")
    parser.add_argument("--data-dir", help="not used: the tensors are random")
    parser.add_argument("--only", help="shapes whose name contains this; writes no file")
    arguments = parser.parse_args()
    blocks, block_seconds = (9, 0.01) if arguments.quick else (31, 0.01)
    shapes: dict[str, dict[str, Any]] = {}
    overheads = {}
    with tempfile.TemporaryDirectory() as directory:
        library = build(Path(directory))
        best = int(library.ke_cpu_best_isa())
        isa = min(best, ISAS.index(arguments.isa)) if arguments.isa else best
        for dtype in [arguments.dtype] if arguments.dtype else DTYPES:
            overheads[dtype] = invoke_seconds(dtype, blocks, arguments.threads)
            print(f"{dtype:16}  XNNPACK us (GMAC/s)  all open us  (x)    half us     (x)    p=0.5 us    (x)")
            for shape in SHAPES:
                name = name_of(shape)
                if arguments.only and arguments.only not in name:
                    continue
                row = measure(library, shape, dtype, isa, overheads[dtype], blocks, block_seconds, arguments.threads)
                shapes.setdefault(name, {})[dtype] = row
                print(
                    f"{name:16}{row['peer_us']:12.2f} ({row['peer_gmacs']:4.0f})"
                    f"{row['dense_us']:14.2f} ({1 / row['dense_ratio']:4.2f})"
                    f"{row['quarter_us']:12.2f} ({row['quarter_speedup']:4.2f})"
                    f"{row['bernoulli_us']:12.2f} ({row['bernoulli_speedup']:4.2f})",
                    flush=True,
                )
    result = {
        "benchmark": "gated_conv_2d",
        "isa": ISAS[isa],
        "threads": arguments.threads,
        "invoke_us": {dtype: seconds * 1e6 for dtype, seconds in overheads.items()},
        "blocks": blocks,
        "shapes": shapes,
        "machine": machine(),
    }
    if not (arguments.quick or arguments.only or arguments.dtype):
        path = result_path(RESULT, arguments.threads, arguments.isa)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
