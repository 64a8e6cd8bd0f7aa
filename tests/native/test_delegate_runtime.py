"""The delegate in the real runtime: files written by hand in every form, run with and without it, against numpy.

The environment variable `KERAS_EFFICIENT_TEST_PYTHONS` may name the Pythons of other environments, with `:` between
them, that have tflite-runtime or another release of ai-edge-litert: the same library has to work there.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

if not any(map(shutil.which, ("cc", "gcc", "clang"))):
    pytest.skip("needs a C compiler", allow_module_level=True)
pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")

from ai_edge_litert import interpreter as litert

HERE = pathlib.Path(__file__).resolve().parent
NATIVE = HERE.parents[1] / "native"


def _load(path: pathlib.Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"keras_efficient_tests_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


build = _load(NATIVE / "build.py")
tiny_models = _load(HERE / "tiny_models.py")

CASES = {"gated_conv_2d": tiny_models.GatedConv2D, "multi_bit_dense": tiny_models.MultiBitDense}


class Stats(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("size_bytes", "executed_macs", "kernel_calls", "claimed_ops")]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build.build(tmp_path_factory.mktemp("library") / "libkeras_efficient.so"))


def interpreter(model: bytes, library: str | None, threads: int = 1, **options: str) -> Any:
    delegates = [] if library is None else [litert.load_delegate(library, options)]
    return litert.Interpreter(model_content=model, experimental_delegates=delegates, num_threads=threads)


def run(runner: Any, *inputs: np.ndarray) -> np.ndarray:
    details = runner.get_input_details()
    for detail, value in zip(details, inputs, strict=True):
        if tuple(detail["shape"]) != value.shape:
            runner.resize_tensor_input(detail["index"], value.shape)
    runner.allocate_tensors()
    for detail, value in zip(details, inputs, strict=True):
        runner.set_tensor(detail["index"], value)
    runner.invoke()
    return np.asarray(runner.get_tensor(runner.get_output_details()[0]["index"]))


def op_names(runner: Any) -> list[str]:
    return [op["op_name"] for op in runner._get_ops_details()]


@pytest.mark.parametrize("form", ["custom", "composite"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("threads", [1, 3])
def test_result_and_macs(library: str, case: str, form: str, threads: int) -> None:
    op = CASES[case]()
    stats = Stats(size_bytes=ctypes.sizeof(Stats))
    runner = interpreter(tiny_models.single_op_model(op, form), library, threads, stats=str(ctypes.addressof(stats)))
    assert "DELEGATE" in op_names(runner)
    rng = np.random.default_rng(0)
    for batch in (1, 4, 2):
        inputs = op.example(rng, batch)
        before = stats.executed_macs
        np.testing.assert_allclose(run(runner, *inputs), op.expected(*inputs), rtol=1e-4, atol=op.tolerance)
        assert stats.executed_macs - before == op.macs(*inputs)
    assert (stats.kernel_calls, stats.claimed_ops) == (3, 1)


def _processor_has() -> set[str]:
    flags = set(pathlib.Path("/proc/cpuinfo").read_text().split())
    avx512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
    vnni = avx512 | {"avx512_vnni"}
    needs = {
        "scalar": set(),
        "avx2": {"avx2", "fma"},
        "avx512": avx512,
        "avx512vnni": vnni,
        "avx512bitalg": vnni | {"avx512vbmi", "avx512_bitalg"},
    }
    return {isa for isa, needed in needs.items() if needed <= flags}


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512", "avx512vnni", "avx512bitalg"])
@pytest.mark.parametrize("case", CASES)
def test_every_instruction_set(library: str, case: str, isa: str) -> None:
    op = CASES[case]()
    model = tiny_models.single_op_model(op, "custom")
    if isa not in _processor_has():
        with pytest.raises(ValueError, match="which this processor runs"):
            interpreter(model, library, isa=isa)
        return
    runner = interpreter(model, library, isa=isa)
    inputs = op.example(np.random.default_rng(1))
    np.testing.assert_allclose(run(runner, *inputs), op.expected(*inputs), rtol=1e-4, atol=op.tolerance)


@pytest.mark.parametrize("case", CASES)
def test_composite_runs_without_the_delegate(case: str) -> None:
    op = CASES[case]()
    runner = interpreter(tiny_models.single_op_model(op, "composite"), None)
    inputs = op.example(np.random.default_rng(2), 3)
    np.testing.assert_allclose(run(runner, *inputs), op.expected(*inputs), rtol=1e-4, atol=op.tolerance)


@pytest.mark.parametrize("form", ["custom", "composite"])
@pytest.mark.parametrize("case", CASES)
def test_inside_branches(library: str, case: str, form: str) -> None:
    op = CASES[case]()
    stats = Stats(size_bytes=ctypes.sizeof(Stats))
    runner = interpreter(tiny_models.branch_model(op, form), library, stats=str(ctypes.addressof(stats)))
    assert stats.claimed_ops == 2
    x, *gates = op.example(np.random.default_rng(3))
    for condition in (True, False, True):
        expected = op.expected(x if condition else 2 * x, *gates)
        np.testing.assert_allclose(
            run(runner, np.array(condition), x, *gates), expected, rtol=1e-4, atol=2 * op.tolerance
        )
    assert stats.kernel_calls == 3
    assert stats.executed_macs == 3 * op.macs(x, *gates)


def test_refused_custom_op_says_why(library: str) -> None:
    runner = interpreter(tiny_models.single_op_model(tiny_models.GatedConv2D(), "custom", version=2), library)
    message = r"ke\.gated_conv_2d: Invalid op version\. Expected at most 1.* Received: 2;"
    with pytest.raises(RuntimeError, match=message):
        runner.allocate_tensors()


@pytest.mark.parametrize(
    "overrides", [{"version": 2}, {"stride_h": 0}, {"padding": "same"}, {"weights": [3]}, {"weights": [0, 1]}]
)
def test_refused_composite_stays_on_its_decomposition(library: str, overrides: dict[str, Any]) -> None:
    op = tiny_models.GatedConv2D()
    runner = interpreter(tiny_models.single_op_model(op, "composite", **overrides), library)
    assert "DELEGATE" not in op_names(runner)
    inputs = op.example(np.random.default_rng(4))
    np.testing.assert_allclose(run(runner, *inputs), op.expected(*inputs), rtol=1e-4, atol=op.tolerance)


def test_unused_decomposition_costs_nothing(library: str) -> None:
    op = tiny_models.MultiBitDense(4096, 4096, 256, 1)
    model = tiny_models.single_op_model(op, "composite")
    inputs = op.example(np.random.default_rng(5))
    runner = interpreter(model, library)
    before = _resident_bytes()
    run(runner, *inputs)
    matrix_bytes = 4096 * 4096 * 4
    assert _resident_bytes() - before < matrix_bytes / 4, "XNNPACK has packed the decomposition's matrix"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"isa": "neon"}, "Expected scalar.*, which this processor runs. Received: neon."),
        ({"stats": "12"}, "Expected the address"),
        ({"stat": "12"}, "Expected stats, plugins or isa. Received: stat."),
        ({"plugins": "/nonexistent.so"}, "Expected paths of shared libraries. Received: /nonexistent.so"),
    ],
)
def test_options(library: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        litert.load_delegate(library, options)


OTHER_RUNTIME = """
import importlib, pathlib, sys
import numpy as np
runtime, library, folder = sys.argv[1:]
if runtime == "tensorflow":
    import tensorflow
    Interpreter, load_delegate = tensorflow.lite.Interpreter, tensorflow.lite.experimental.load_delegate
else:
    module = importlib.import_module(runtime)
    Interpreter, load_delegate = module.Interpreter, module.load_delegate
for model in pathlib.Path(folder).glob("*.tflite"):
    data = np.load(model.with_suffix(".npz"))
    runner = Interpreter(str(model), experimental_delegates=[load_delegate(library, {})])
    for condition in (True, False):
        runner.allocate_tensors()
        for detail in runner.get_input_details():
            name = detail["name"]
            runner.set_tensor(detail["index"], np.array(condition) if name == "condition" else data[name])
        runner.invoke()
        output = runner.get_tensor(runner.get_output_details()[0]["index"])
        tolerance = 0.6 if "multi_bit" in model.stem else 1e-4
        np.testing.assert_allclose(output, data["expected_" + str(condition)], rtol=1e-4, atol=tolerance)
        print(model.stem, condition)
"""


def _other_runtimes() -> list[tuple[str, str]]:
    found = [("tensorflow", sys.executable)] if importlib.util.find_spec("tensorflow") else []
    for python in filter(None, os.environ.get("KERAS_EFFICIENT_TEST_PYTHONS", "").split(":")):
        probe = [python, "-c", "import tflite_runtime"]
        known = subprocess.run(probe, capture_output=True, cwd="/").returncode == 0
        found.append((f"{'tflite_runtime' if known else 'ai_edge_litert'}.interpreter", python))
    return found


@pytest.mark.parametrize(("runtime", "python"), _other_runtimes())
def test_other_runtimes_load_the_same_library(library: str, tmp_path: pathlib.Path, runtime: str, python: str) -> None:
    for name, case in CASES.items():
        op = case()
        (tmp_path / f"{name}.tflite").write_bytes(tiny_models.branch_model(op, "custom"))
        x, *gates = op.example(np.random.default_rng(7))
        named = dict(zip(op.input_shapes, (x, *gates), strict=True))
        expected = {"expected_True": op.expected(x, *gates), "expected_False": op.expected(2 * x, *gates)}
        np.savez(tmp_path / f"{name}.npz", **named, **expected)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [python, "-c", OTHER_RUNTIME, runtime, library, str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert process.returncode == 0, process.stderr
    assert len(process.stdout.splitlines()) == 4


class Scale(tiny_models.OpCase):
    """The op of plugin_scale.c."""

    def __init__(self, columns: int = 5) -> None:
        shapes = {"x": (1, columns)}
        super().__init__(
            "test.scale", shapes, (1, columns), {"offset": np.arange(columns, dtype=np.float32)}, {"factor": 2.5}
        )


def _plugin(folder: pathlib.Path, *flags: str) -> str:
    path = folder / "plugin.so"
    command = [*build.find_compiler(), "-shared", "-fPIC", f"-I{NATIVE / 'include'}", *flags]
    subprocess.run([*command, str(HERE / "plugin_scale.c"), "-o", str(path)], check=True)
    return str(path)


def test_plugin(library: str, tmp_path: pathlib.Path) -> None:
    model = tiny_models.single_op_model(Scale(), "custom")
    runner = interpreter(model, library, plugins=_plugin(tmp_path))
    x = np.array([[1, 2, 3, 4, 5], [0, 0, 0, 0, 1]], np.float32)
    np.testing.assert_allclose(run(runner, x), 2.5 * x + np.arange(5))
    with pytest.raises(RuntimeError, match="test.scale: Expected 5 columns. Received: 6."):
        run(runner, np.zeros((1, 6), np.float32))


def test_delegate_may_go_before_its_interpreter(library: str, tmp_path: pathlib.Path) -> None:
    """A signature runner holds the interpreter, but not the delegate and with it the plugin's library."""
    runner = interpreter(tiny_models.single_op_model(Scale(), "custom"), library, plugins=_plugin(tmp_path))
    x = np.ones((1, 5), np.float32)
    run(runner, x)
    kept = runner._interpreter
    index = runner.get_output_details()[0]["index"]
    del runner
    gc.collect()
    kept.Invoke(0)
    np.testing.assert_allclose(kept.GetTensor(index, 0), 2.5 * x + np.arange(5))
    del kept
    gc.collect()


def test_plugin_attribute_out_of_range(library: str, tmp_path: pathlib.Path) -> None:
    model = tiny_models.single_op_model(Scale(), "custom", factor=101.0)
    runner = interpreter(model, library, plugins=_plugin(tmp_path))
    with pytest.raises(RuntimeError, match="attribute `factor`. Expected a number from -100 to 100. Received: 101."):
        runner.allocate_tensors()


def test_plugin_of_another_abi_is_refused(library: str, tmp_path: pathlib.Path) -> None:
    plugin = _plugin(tmp_path, "-DPLUGIN_ABI_VERSION=99")
    with pytest.raises(ValueError, match="Expected plugin ABI version 1. Received: version 99"):
        litert.load_delegate(library, {"plugins": plugin})


def test_plugin_twice_is_refused(library: str, tmp_path: pathlib.Path) -> None:
    plugin = _plugin(tmp_path)
    with pytest.raises(ValueError, match="Expected new op names. Received: `test.scale`"):
        litert.load_delegate(library, {"plugins": f"{plugin}:{plugin}"})


def _resident_bytes() -> int:
    gc.collect()
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def test_eight_interpreters_in_eight_threads(library: str) -> None:
    cases = [make() for make in CASES.values()]
    models = [(op, tiny_models.branch_model(op, form)) for op in cases for form in ("custom", "composite")]
    examples = [(op, model, op.example(np.random.default_rng(6))) for op, model in models]
    expected = [op.expected(*inputs) for op, _, inputs in examples]
    wrong: list[str] = []

    def work(thread: int, rounds: int, shared: Any) -> None:
        for round_ in range(rounds):
            which = (thread + round_) % len(examples)
            op, model, inputs = examples[which]
            delegate = shared if round_ % 2 else litert.load_delegate(library, {})
            runner = litert.Interpreter(
                model_content=model, experimental_delegates=[delegate], num_threads=1 + round_ % 2
            )
            for _ in range(2):
                if not np.allclose(
                    run(runner, np.array(True), *inputs), expected[which], rtol=1e-4, atol=2 * op.tolerance
                ):
                    wrong.append(f"{op.name} in thread {thread}, round {round_}")

    def all_threads(rounds: int) -> None:
        shared = litert.load_delegate(library, {})
        threads = [threading.Thread(target=work, args=(thread, rounds, shared)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    all_threads(25)  # warms up: allocators, thread stacks
    before = _resident_bytes()
    for _ in range(4):
        all_threads(25)
    assert not wrong
    assert _resident_bytes() - before < 8 << 20
