"""How fast one gated convolution is beside XNNPACK's dense one, batch 1, one thread.

`python -m benchmarks.gated_conv_2d [--quick] [--isa avx512|avx2|scalar] [--only NAME]`. Both sides are timed in the
same process in alternating blocks, in CPU time of the calling thread (nothing else computes), so that other programs on
the machine disturb less. Times are the median over the blocks of a block's mean for one call, a speed-up is the median
of the blocks' ratios. The gates are drawn anew for every call, so planning, gathering of weights and copying are inside
the times. Our kernel is called directly, so what it takes to call an interpreter, measured with one that holds a 1x1
convolution of a single number, is taken off XNNPACK's times (`invoke_us`).

`all`: every channel is open. `half`: exactly half of the inputs and half of the outputs. `bern`: every channel is open
with probability 1/2.
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
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "native"
RESULT = ROOT / "benchmarks" / "results" / "gated_conv_2d.json"
# kernel size, height = width, channels in and out
SHAPES = [
    (3, 8, 16),
    (3, 8, 32),
    (3, 8, 64),
    (3, 4, 32),
    (3, 4, 64),
    (3, 32, 16),
    (3, 16, 32),
    (3, 56, 64),
    (3, 28, 128),
    (3, 14, 256),
    (3, 7, 512),
    (1, 56, 64),
    (1, 28, 128),
    (1, 14, 256),
]
GATES = ("all", "half", "bern")
DRAWS = 64


class Shape(ctypes.Structure):
    """`KeGatedConv2DShape`."""

    _names = "kernel_h kernel_w in_channels out_channels stride_h stride_w dilation_h dilation_w padding activation isa"
    _fields_ = [(name, ctypes.c_int32) for name in _names.split(" ")]


def build(directory: Path) -> ctypes.CDLL:
    """Compiles the kernels as the package does, and the loop that times them, into one shared library."""
    spec = importlib.util.spec_from_file_location("native_build", NATIVE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    native_build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native_build)
    compiler = native_build.find_compiler()
    wanted = [source for source in native_build.sources() if source.parent.name == "gated_conv_2d"]
    files = [*wanted, NATIVE / "cpu.c", NATIVE / "bench" / "gated_conv_2d_bench.c"]
    objects = native_build.compile_objects(directory, files, compiler, ["-fvisibility=default"])
    path = directory / "libgated_conv_2d.so"
    subprocess.run([*compiler, *objects, "-shared", "-lm", "-o", str(path)], check=True)
    library = ctypes.CDLL(str(path))
    library.ke_gated_conv_2d_create.restype = ctypes.c_void_p
    library.ke_gated_conv_2d_bench.restype = ctypes.c_double
    return library


def draw_gates(kind: str, channels: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """`DRAWS` rows of gates: float32 [DRAWS, channels]."""
    if kind == "all":
        return np.ones((DRAWS, channels), np.float32)
    if kind == "bern":
        return (rng.random((DRAWS, channels)) < 0.5).astype(np.float32)
    rank = rng.random((DRAWS, channels)).argsort(axis=1)
    return (rank < channels // 2).astype(np.float32)


class Ours:
    """Our kernel on one shape, with one kind of gates."""

    def __init__(
        self, library: ctypes.CDLL, shape: tuple[int, int, int], kind: str, isa: int, data: dict[str, Any]
    ) -> None:
        kernel_size, size, channels = shape
        self._library = library
        self._data = data
        rng = np.random.default_rng(7)
        self._g_in = draw_gates(kind, channels, rng)
        self._g_out = draw_gates(kind, channels, rng)
        self.y = np.empty((1, size, size, channels), np.float32)
        c_shape = Shape(kernel_size, kernel_size, channels, channels, 1, 1, 1, 1, 1, 1, isa)
        ohwi = np.ascontiguousarray(data["kernel"].transpose(3, 0, 1, 2))
        pointer = library.ke_gated_conv_2d_create(ctypes.byref(c_shape), _pointer(ohwi), _pointer(data["bias"]), None)
        self._plan = ctypes.c_void_p(pointer)
        if library.ke_gated_conv_2d_resize(self._plan, 1, size, size, 1) != 0:
            raise MemoryError("no room for the plan")

    def seconds(self, calls: int) -> float:
        """The mean time of one call."""
        arguments = [_pointer(a) for a in (self._data["x"], self._g_in, self._g_out, self.y)]
        return float(self._library.ke_gated_conv_2d_bench(self._plan, *arguments, *self._sizes(), DRAWS, calls))

    def _sizes(self) -> tuple[int, int]:
        return self._g_in.shape[1], self._g_out.shape[1]

    def close(self) -> None:
        """Frees the plan."""
        self._library.ke_gated_conv_2d_destroy(self._plan)


def _pointer(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class Peer:
    """The dense convolution with a fused relu in LiteRT with XNNPACK, one thread."""

    def __init__(self, shape: tuple[int, int, int], data: dict[str, Any]) -> None:
        import keras
        import tensorflow as tf
        from ai_edge_litert.interpreter import Interpreter

        kernel_size, size, channels = shape
        self.overhead = 0.0  # seconds that every call takes without computing anything
        inputs = keras.Input((size, size, channels), batch_size=1)
        layer = keras.layers.Conv2D(channels, kernel_size, padding="same", activation="relu")
        model = keras.Model(inputs, layer(inputs))
        layer.set_weights([data["kernel"], data["bias"]])
        with contextlib.redirect_stdout(io.StringIO()):
            content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(self._interpreter.get_input_details()[0]["index"], data["x"])

    def seconds(self, calls: int) -> float:
        """The mean time of one call."""
        invoke = self._interpreter.invoke
        start = time.thread_time()
        for _ in range(calls):
            invoke()
        return (time.thread_time() - start) / calls - self.overhead

    def output(self) -> np.ndarray[Any, Any]:
        """The dense result."""
        index = self._interpreter.get_output_details()[0]["index"]
        return np.asarray(self._interpreter.get_tensor(index))


def invoke_seconds(blocks: int) -> float:
    """What a call of an interpreter takes that computes next to nothing."""
    ones = np.ones((1, 1, 1, 1), np.float32)
    peer = Peer((1, 1, 1), {"x": ones, "kernel": ones, "bias": ones[0, 0, 0]})
    return float(np.median([peer.seconds(2000) for _ in range(blocks)]))


def measure(
    library: ctypes.CDLL, shape: tuple[int, int, int], isa: int, overhead: float, blocks: int, block_seconds: float
) -> dict[str, Any]:
    """Medians and quartiles for one shape."""
    kernel_size, size, channels = shape
    rng = np.random.default_rng(3)
    scale = 1 / (kernel_size * channels**0.5)
    data = {
        "x": rng.standard_normal((1, size, size, channels)).astype(np.float32),
        "kernel": (rng.standard_normal((kernel_size, kernel_size, channels, channels)) * scale).astype(np.float32),
        "bias": rng.standard_normal(channels).astype(np.float32),
    }
    peer = Peer(shape, data)
    sides: dict[str, Peer | Ours] = {"peer": peer}
    sides.update({kind: Ours(library, shape, kind, isa, data) for kind in GATES})
    peer.overhead = overhead
    calls = {name: max(3, int(block_seconds / min(side.seconds(3) for _ in range(3)))) for name, side in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(blocks):
        for name, side in sides.items():
            times[name].append(side.seconds(calls[name]))
    macs = size * size * kernel_size * kernel_size * channels * channels
    row: dict[str, Any] = {"name": f"{kernel_size}x{kernel_size} {size}x{size}x{channels}", "macs": macs}
    row["peer_us"] = float(np.median(times["peer"])) * 1e6
    dense = sides["all"]
    assert isinstance(dense, Ours)
    row["difference_all_open"] = float(np.abs(dense.y - peer.output()).max())
    for kind in GATES:
        ratios = np.asarray(times["peer"]) / np.asarray(times[kind])
        row[kind] = {
            "us": float(np.median(times[kind])) * 1e6,
            "speedup": float(np.median(ratios)),
            "speedup_quartiles": [float(v) for v in np.quantile(ratios, (0.25, 0.75))],
        }
        side = sides[kind]
        assert isinstance(side, Ours)
        side.close()
    return row


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
        "system": platform.platform(),
        "compiler": compiler,
        "versions": versions,
    }


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter blocks; writes no file")
    parser.add_argument(
        "--isa", choices=("scalar", "avx2", "avx512"), help="force a path (default: the best one); writes no file"
    )
    parser.add_argument("--data-dir", help="not used: the tensors are random")
    parser.add_argument("--only", help="shapes whose name contains this; writes no file")
    arguments = parser.parse_args()
    blocks, block_seconds = (9, 0.01) if arguments.quick else (41, 0.02)
    with tempfile.TemporaryDirectory() as directory:
        library = build(Path(directory))
        best = int(library.ke_cpu_best_isa())
        names = ("scalar", "avx2", "avx512", "avx512vnni")
        isa = min(best, names.index(arguments.isa)) if arguments.isa else best
        rows = []
        overhead = invoke_seconds(blocks)
        print(f"{'':20}{'XNNPACK us':>11}" + "".join(f"{kind + ' us':>11}{'speed-up':>10}" for kind in GATES))
        for shape in SHAPES:
            if arguments.only and arguments.only not in f"{shape[0]}x{shape[0]} {shape[1]}x{shape[1]}x{shape[2]}":
                continue
            row = measure(library, shape, isa, overhead, blocks, block_seconds)
            rows.append(row)
            cells = "".join(f"{row[kind]['us']:11.2f}{row[kind]['speedup']:10.2f}" for kind in GATES)
            print(f"{row['name']:20}{row['peer_us']:11.2f}{cells}", flush=True)
    result = {
        "benchmark": "gated_conv_2d",
        "isa": names[isa],
        "invoke_us": overhead * 1e6,
        "blocks": blocks,
        "rows": rows,
        "machine": machine(),
    }
    if not (arguments.quick or arguments.isa or arguments.only):
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
