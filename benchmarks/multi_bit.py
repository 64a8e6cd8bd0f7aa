"""How fast multi-bit convolutions and dense layers are beside XNNPACK's int8 ones, batch 1.

`python -m benchmarks.multi_bit [--quick] [--threads N] [--isa NAME] [--only NAME] [--work DIR] [--larq PYTHON]`. Every
finished size is written into the file at once; `--only` measures some of them and leaves what the file says of the
others, so a run may be done in pieces. Both sides are timed in the same process in alternating blocks: CPU time of the
calling thread, or wall time with several threads. Times are medians over the blocks, a speed-up is the median of the
blocks' ratios. Packing of inputs into bits, building of tables and rounding of outputs are inside the times. Our
kernels are called directly, so what a call of an interpreter takes, measured with one that computes next to nothing
(`invoke_us`), is taken off XNNPACK's times.

`conv ... w1aN`: 3x3, "same", weights of one bit with a scale for every channel and tap, int8 in and out; inputs become
signs (`a1`), four levels (`a2`), or stay int8 (`a8`). The peer is XNNPACK's static int8 convolution of the same size,
int8 in and out. `dense ...`: float32 in and out, groups of 256 weights; `mixed` has 0, 1 and 2 bits, 0.75 on average.
The peer is XNNPACK's dynamic int8 layer, float32 in and out; XNNPACK's static int8 layer stands beside it. `error` is
the root mean square difference to the same layer computed from unpacked weights in float32, relative to its outputs.
`--larq` names the Python of an environment with Larq Compute Engine (see `benchmarks.larq_peer`), whose binary
convolution is then timed as well, in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import gated_conv
from benchmarks.gated_conv import ISAS, NATIVE, ROOT, Peer, Shape, invoke_seconds, machine

RESULT = ROOT / "benchmarks" / "results" / "multi_bit.json"
CONVOLUTIONS = [(56, 64), (28, 128), (14, 256)]
DENSE_SIZES = [4096, 1024]
DENSE_BITS = {"w1": 1, "w2": 2, "mixed": 2}
GROUP = 256
Array = np.ndarray[Any, Any]


class ConvShape(ctypes.Structure):
    """`KeMultiBitConv2DShape`."""

    _fields_ = [
        ("conv", Shape),
        ("order", ctypes.c_int32),
        ("group_size", ctypes.c_int32),
        ("bases", ctypes.c_int32),
        ("activation_bits", ctypes.c_int32),
        ("is_int8", ctypes.c_int32),
        ("input_scale", ctypes.c_float),
        ("output_scale", ctypes.c_float),
        ("input_zero_point", ctypes.c_int32),
        ("output_zero_point", ctypes.c_int32),
    ]


class DenseShape(ctypes.Structure):
    """`KeMultiBitDenseShape`."""

    _names = "inputs outputs group_size bases activation_bits activation isa"
    _fields_ = [(name, ctypes.c_int32) for name in _names.split(" ")]


class Streams(ctypes.Structure):
    """`KePackedStreams`."""

    _pointers, _sizes = ("widths", "bits", "scales"), ("widths_bytes", "bits_bytes", "rows")
    _fields_ = [(name, ctypes.c_void_p) for name in _pointers] + [(name, ctypes.c_size_t) for name in _sizes]


def aligned(array: Array) -> Array:
    """A copy that begins with a cache line, as the tensors of a runtime do."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    first = -memory.ctypes.data % 64
    copy = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def build(directory: Path) -> ctypes.CDLL:
    """Compiles the kernels as the package does, and the loops that time them, into one shared library.

    One that the directory has and that is newer than they are is taken as it is.
    """
    native_build = gated_conv.native_build()
    compiler = native_build.find_compiler()
    folders = ("multi_bit", "gated_conv_2d")
    wanted = [
        s for s in native_build.sources() if s.parent.name.startswith(folders) and s.parent.parent.name == "kernels"
    ]
    wanted = [source for source in wanted if source.parent.name != "gated_conv_2d_int8"]
    files = [*wanted, NATIVE / "cpu.c", NATIVE / "thread_pool.c", NATIVE / "bench" / "multi_bit_bench.c"]
    path = directory / "libmulti_bit.so"
    read = [*files, *NATIVE.rglob("*.h")]
    if not path.exists() or path.stat().st_mtime < max(file.stat().st_mtime for file in read):
        objects = native_build.compile_objects(directory, files, compiler, ["-fvisibility=default"])
        subprocess.run([*compiler, *objects, "-shared", "-pthread", "-lm", "-o", str(path)], check=True)
    library = ctypes.CDLL(str(path))
    for name in ("ke_multi_bit_conv_2d", "ke_multi_bit_dense"):
        getattr(library, f"{name}_create").restype = ctypes.c_void_p
        getattr(library, f"{name}_bench").restype = ctypes.c_double
    library.ke_thread_pool_create.restype = ctypes.c_void_p
    return library


class Ours:
    """One of our kernels: `name`, its shape, the weights, an input and a buffer for the output."""

    def __init__(
        self, library: ctypes.CDLL, name: str, shape: Any, packed: Any, levels: Array, x: Array, y: Array, size: Any
    ) -> None:
        self._library, self._name = library, name
        self.x, self.y, self.pool = aligned(x), aligned(y), ctypes.c_void_p(None)
        outputs = shape.conv.out_channels if name == "ke_multi_bit_conv_2d" else shape.outputs
        self.kept = (packed, levels, np.zeros(outputs, np.float32))
        streams = Streams(
            *(array.ctypes.data for array in packed), packed.widths.nbytes, packed.bits.nbytes, packed.scales.size
        )
        message = ctypes.create_string_buffer(256)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in self.kept[1:]]
        plan = self._call("create")(ctypes.byref(shape), ctypes.byref(streams), *pointers, message, 256)
        if plan is None:
            raise RuntimeError(message.value.decode())
        self._plan = ctypes.c_void_p(plan)
        if self._call("resize")(self._plan, *size) != 0:
            raise RuntimeError("There was no memory for the kernel.")

    def _call(self, name: str) -> Any:
        return getattr(self._library, f"{self._name}_{name}")

    def seconds(self, calls: int) -> float:
        """The mean time of one call."""
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in (self.x, self.y))
        return float(self._call("bench")(self._plan, *pointers, calls, self.pool))

    def close(self) -> None:
        """Frees the plan."""
        self._call("destroy")(self._plan)


def convolution(library: ctypes.CDLL, size: int, channels: int, bits: int, isa: int, real: bool = False) -> Ours:
    """Weights of one bit with a scale for every channel and tap; `real`: float32 out, for the error."""
    from keras_efficient.ops import bits as packing

    rng = np.random.default_rng(3)
    signs = rng.choice([-1, 1], (channels, 9, 1, channels))
    scales = rng.uniform(0.5, 1.5, (channels, 9, 1)) / (3 * channels**0.5)
    packed = packing.pack(signs, scales, np.ones((channels, 9), int))
    x = rng.integers(-128, 128, (size, size, channels)).astype(np.int8)
    levels = {0: [0.0], 1: [0.0, 1.0], 2: [0.0, 0.4, 0.8]}[bits]
    input_scale = 1 / 64
    conv = Shape(3, 3, channels, channels, 1, 1, 1, 1, 1, 1, isa)
    shape = ConvShape(conv, 0, channels, 1, bits, int(not real), input_scale, 1 / 40, 0, 0)
    taken = x.astype(np.float32) * np.float32(input_scale) if real else x
    y = np.empty((size, size, channels), np.float32 if real else np.int8)
    return Ours(library, "ke_multi_bit_conv_2d", shape, packed, np.array(levels, np.float32), taken, y, (1, size, size))


def dense(library: ctypes.CDLL, size: int, kind: str, isa: int) -> tuple[Ours, Any]:
    """A square layer, and its packed weights."""
    from keras_efficient.ops import bits as packing

    rng = np.random.default_rng(4)
    groups, bases = size // GROUP, DENSE_BITS[kind]
    widths = np.full((size, groups), bases)
    if kind == "mixed":
        widths = rng.choice(3, (size, groups), p=[0.5, 0.25, 0.25])
    signs = np.where(rng.integers(0, 2, (size, groups, bases, GROUP), dtype=np.int8), -1, 1).astype(np.int8)
    packed = packing.pack(signs, rng.uniform(0.5, 1.5, (size, groups, bases)) / size**0.5, widths, bases)
    x, y = rng.standard_normal(size).astype(np.float32), np.empty(size, np.float32)
    shape = DenseShape(size, size, GROUP, bases, 0, 0, isa)
    return Ours(library, "ke_multi_bit_dense", shape, packed, np.zeros(1, np.float32), x, y, (1,)), packed


class DensePeer:
    """The dense layer in LiteRT with its default delegates: dynamic int8 or static int8."""

    def __init__(self, size: int, static: bool, threads: int) -> None:
        import keras
        import tensorflow as tf
        from ai_edge_litert.interpreter import Interpreter

        self.overhead = 0.0
        self._clock: Callable[[], float] = time.thread_time if threads == 1 else time.perf_counter
        rng = np.random.default_rng(5)
        inputs = keras.Input((size,), batch_size=1)
        layer = keras.layers.Dense(size)
        model = keras.Model(inputs, layer(inputs))
        layer.set_weights(
            [(rng.standard_normal((size, size)) / size**0.5).astype(np.float32), np.zeros(size, np.float32)]
        )
        x = rng.standard_normal((1, size)).astype(np.float32)
        with contextlib.redirect_stdout(io.StringIO()):
            converter = tf.lite.TFLiteConverter.from_keras_model(model)
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if static:
                converter.representative_dataset = lambda: [[x]]
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.inference_input_type = converter.inference_output_type = tf.int8
            self._interpreter = Interpreter(model_content=converter.convert(), num_threads=threads)
        self._interpreter.allocate_tensors()
        detail = self._interpreter.get_input_details()[0]
        self._interpreter.set_tensor(
            detail["index"], np.clip(x * 40, -128, 127).astype(detail["dtype"]) if static else x
        )

    def seconds(self, calls: int) -> float:
        """The mean time of one call."""
        invoke = self._interpreter.invoke
        start = self._clock()
        for _ in range(calls):
            invoke()
        return (self._clock() - start) / calls - self.overhead


def compare(
    sides: dict[str, Any], overheads: dict[str, float], blocks: int, block_seconds: float
) -> dict[str, list[float]]:
    """Seconds of one call by side, one for every block; the sides take turns."""
    calls = {name: max(3, int(block_seconds / min(side.seconds(3) for _ in range(3)))) for name, side in sides.items()}
    for name, overhead in overheads.items():
        sides[name].overhead = overhead
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(blocks):
        for name, side in sides.items():
            times[name].append(side.seconds(calls[name]))
    return times


def summary(times: dict[str, list[float]], name: str, peer: str, macs: int, **more: Any) -> dict[str, Any]:
    """One case: medians, GMAC/s and the ratio to the peer."""
    ratios = np.asarray(times[peer]) / np.asarray(times[name])
    us, peer_us = (float(np.median(times[side])) * 1e6 for side in (name, peer))
    return {
        "us": us,
        "gmacs": macs / us / 1e3,
        "peer_us": peer_us,
        "peer_gmacs": macs / peer_us / 1e3,
        "speedup": float(np.median(ratios)),
        "quartiles": [float(value) for value in np.quantile(ratios, (0.25, 0.75))],
        **more,
    }


def relative_error(y: Array, reference: Array) -> float:
    """Root mean square of the difference, relative to that of the reference."""
    return float(np.sqrt(np.mean((y - reference) ** 2.0) / np.mean(reference**2.0)))


def error_of_convolution(library: ctypes.CDLL, size: int, channels: int, bits: int, isa: int) -> float:
    """Of float32 outputs at 64 pixels inside the picture, beside the product with unpacked weights."""
    from keras_efficient.ops import bits as packing

    side = convolution(library, size, channels, bits, isa, real=True)
    side.seconds(1)
    side.close()
    packed, levels = side.kept[:2]
    signs, scales, _ = packing.unpack(packed, channels, 9, channels, 1)
    weights = (signs * scales[..., None]).reshape(channels, -1).astype(np.float64)
    x = side.x.astype(np.float64)
    if bits:
        values = levels[0] + (2 * (np.arange(2**bits)[:, None] >> np.arange(bits) & 1) - 1) @ levels[1:]
        steps = (np.sort(values)[1:] + np.sort(values)[:-1]) / 2
        x = np.sort(values)[np.searchsorted(steps, x, side="right")]
    rows, columns = np.random.default_rng(6).integers(1, size - 1, (2, 64))
    patches = np.stack([x[r - 1 : r + 2, c - 1 : c + 2].ravel() for r, c in zip(rows, columns, strict=True)])
    return relative_error(side.y[rows, columns], np.maximum(patches @ weights.T, 0))  # relu, as the peer has


def error_of_dense(side: Ours, packed: Any, kind: str) -> float:
    """Beside the product with unpacked weights."""
    from keras_efficient.ops import bits as packing

    size, bases = side.y.size, DENSE_BITS[kind]
    rows = 256
    signs, scales, _ = packing.unpack(packed, size, size // GROUP, GROUP, bases)
    weights = np.einsum("ogin,ogi->ogn", signs[:rows].astype(np.float32), scales[:rows]).reshape(rows, size)
    return relative_error(side.y[:rows], weights @ side.x)


def measure_convolutions(library: ctypes.CDLL, size: int, channels: int, options: dict[str, Any]) -> dict[str, Any]:
    """All bit-widths of the inputs at one size, beside one peer."""
    rng = np.random.default_rng(3)
    data = {
        "x": rng.standard_normal((1, size, size, channels)).astype(np.float32),
        "kernel": (rng.standard_normal((3, 3, channels, channels)) / (3 * channels**0.5)).astype(np.float32),
        "bias": np.zeros(channels, np.float32),
    }
    ours = {f"a{bits or 8}": convolution(library, size, channels, bits, options["isa"]) for bits in (1, 2, 0)}
    sides = {"peer": Peer((3, size, channels), "int8", data, options["threads"]), **ours}
    for side in ours.values():
        side.pool = options["pool"]
    times = compare(sides, {"peer": options["invoke"]["int8"]}, options["blocks"], options["block_seconds"])
    cases = {}
    for bits in (1, 2, 0):
        name, error = f"a{bits or 8}", error_of_convolution(library, size, channels, bits, options["isa"])
        case = summary(times, name, "peer", size * size * 9 * channels * channels, error=error, types="int8 to int8")
        cases[f"conv {size}x{size}x{channels} w1{name}"] = {**case, "peer": "static int8"}
        if bits == 1 and options["larq"]:
            us = float(np.median(options["larq"][f"{size}x{channels}"])) * 1e6
            cases[f"conv {size}x{size}x{channels} w1{name}"] |= {"larq_us": us, "larq_speedup": us / case["us"]}
        ours[name].close()
    return cases


def measure_dense(library: ctypes.CDLL, size: int, options: dict[str, Any]) -> dict[str, Any]:
    """All kinds of weights at one size, beside both peers."""
    ours = {kind: dense(library, size, kind, options["isa"]) for kind in DENSE_BITS}
    peers = {name: DensePeer(size, name == "static", options["threads"]) for name in ("dynamic", "static")}
    for side, _ in ours.values():
        side.pool = options["pool"]
    sides: dict[str, Any] = {**peers, **{kind: side for kind, (side, _) in ours.items()}}
    overheads = {"dynamic": options["invoke"]["float32"], "static": options["invoke"]["int8"]}
    times = compare(sides, overheads, options["blocks"], options["block_seconds"])
    cases = {}
    for kind, (side, packed) in ours.items():
        more = {"error": error_of_dense(side, packed, kind), "types": "float32 to float32"}
        case = {**summary(times, kind, "dynamic", size * size, **more), "peer": "dynamic int8"}
        case["static_int8_us"] = float(np.median(times["static"])) * 1e6
        case["weight_bytes"] = sum(array.nbytes for array in packed)
        cases[f"dense {size} {kind}"] = case
        side.close()
    return cases


def larq_seconds(python: str) -> dict[str, list[float]]:
    """Seconds of Larq's binary convolutions by size, one for each block."""
    sizes = [f"{size}x{channels}" for size, channels in CONVOLUTIONS]
    command = [python, "-m", "benchmarks.larq_peer", *sizes]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report(cases: dict[str, Any]) -> None:
    """Prints a line for every case."""
    for name, case in cases.items():
        mine = f"{case['us']:10.2f} us ({case['gmacs']:5.0f} GMAC/s)"
        peer = f"{case['peer']:13}{case['peer_us']:10.2f} us ({case['peer_gmacs']:4.0f})"
        print(
            f"{name:24}{mine}   {peer}   {case['speedup']:5.2f}x   error {case['error']:.1e}   {case['types']}",
            flush=True,
        )
        if "larq_us" in case:
            print(f"{'':24}Larq Compute Engine {case['larq_us']:.0f} us, {case['larq_speedup']:.1f}x")


def result_path(threads: int, isa: str | None) -> Path:
    """Where cases are kept: a file for each number of threads and each path that was forced."""
    name = RESULT.stem + (f"_{isa}" if isa else "") + (f"_{threads}_threads" if threads > 1 else "")
    return RESULT.with_name(f"{name}.json")


def write(path: Path, result: dict[str, Any]) -> None:
    """Replaces the file; cases that it has and `result` has not are kept, in the order of all."""
    old = json.loads(path.read_text())["cases"] if path.exists() else {}
    cases = {**old, **result["cases"]}
    names = [
        f"conv {size}x{size}x{channels} w1{kind}" for size, channels in CONVOLUTIONS for kind in ("a1", "a2", "a8")
    ]
    names += [f"dense {size} {kind}" for size in DENSE_SIZES for kind in DENSE_BITS]
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: cases[name] for name in names if name in cases}
    path.write_text(json.dumps({**result, "cases": kept}, indent=1) + "\n")


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer blocks; writes no file")
    parser.add_argument(
        "--threads", type=int, default=1, help="of both sides; other numbers than 1 have a file of their own"
    )
    parser.add_argument("--isa", choices=ISAS, help="force a path (default: the best one); has a file of its own")
    parser.add_argument("--data-dir", help="not used: the tensors are random")
    parser.add_argument("--only", help="sizes whose name contains this: conv, dense, 56, 4096, ...")
    parser.add_argument("--larq", help="Python of an environment with Larq Compute Engine, one thread")
    parser.add_argument("--work", help="keeps the compiled kernels here (default: nowhere)")
    arguments = parser.parse_args()
    threads, blocks = arguments.threads, 5 if arguments.quick else 25
    with contextlib.ExitStack() as stack:
        work = Path(arguments.work or stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        library = build(work)
        best = int(library.ke_cpu_best_isa())
        isa = min(best, ISAS.index(arguments.isa)) if arguments.isa else best
        options = {
            "isa": isa,
            "threads": threads,
            "blocks": blocks,
            "block_seconds": 0.01,
            "larq": larq_seconds(arguments.larq) if arguments.larq else {},
            "pool": ctypes.c_void_p(library.ke_thread_pool_create(threads) if threads > 1 else None),
            "invoke": {dtype: invoke_seconds(dtype, blocks, threads) for dtype in ("int8", "float32")},
        }
        result: dict[str, Any] = {
            "benchmark": "multi_bit",
            "isa": ISAS[isa],
            "threads": threads,
            "invoke_us": {dtype: seconds * 1e6 for dtype, seconds in options["invoke"].items()},
            "blocks": blocks,
            "cases": {},
            "machine": machine(),
        }
        jobs: list[tuple[str, Callable[..., dict[str, Any]], tuple[int, ...]]] = [
            *((f"conv {size}", measure_convolutions, (size, channels)) for size, channels in CONVOLUTIONS),
            *((f"dense {size}", measure_dense, (size,)) for size in DENSE_SIZES),
        ]
        for name, measure, sizes in jobs:
            if arguments.only and arguments.only not in name:
                continue
            found = measure(library, *sizes, options)
            report(found)
            result["cases"].update(found)
            if not arguments.quick:
                write(result_path(threads, arguments.isa), result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
