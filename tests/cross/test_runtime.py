"""Exported models on emulated arm machines: Debian's Python, tflite-runtime 2.14 and the cross-built delegate there,
against the same file with ai-edge-litert and the installed library here.

The machines add in other orders and may fuse multiplications with additions: outputs agree within 1e-4 of a number's
size or 1e-4, whatever is larger; exits and counts of multiply-adds are equal. Labels of int8 stages are equal but where
two logits are within a step of the integers: kernels of other releases round one step apart.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")

HERE = pathlib.Path(__file__).resolve().parent
TESTS = HERE.parent
BOARD_SCRIPT = TESTS.parent / "examples" / "coral" / "run_on_board.py"
TARGETS = {"arm64": "linux-aarch64", "armhf": "linux-armv7"}
EXACT = {"executed_macs", "macs", "exit_index"}
Result = dict[str, np.ndarray]


def load(path: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"keras_efficient_tests_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


debian = load(HERE / "debian_root.py")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict[str, np.ndarray]]:
    """One file for each op, alone and inside branches, with inputs beside it; and what numpy says of them."""
    tiny_models = load(TESTS / "native" / "tiny_models.py")
    folder, expected = tmp_path_factory.mktemp("tiny"), {}
    rng = np.random.default_rng(0)
    for name, case in (("conv", tiny_models.GatedConv2D), ("dense", tiny_models.MultiBitDense)):
        op = case()
        calls = [op.example(rng) for _ in range(3)]
        columns = zip(op.input_shapes, zip(*calls, strict=True), strict=True)
        inputs = {argument: np.stack(values) for argument, values in columns}
        for kind, model in (("single", tiny_models.single_op_model), ("branch", tiny_models.branch_model)):
            more = {"condition": np.array([True] * 3)} if kind == "branch" else {}
            (folder / f"{name}_{kind}.tflite").write_bytes(model(op, "custom"))
            np.savez(folder / f"{name}_{kind}.inputs.npz", **inputs, **more)
        expected[f"{name}_single"] = np.stack([op.expected(*call) for call in calls])
    return folder, expected


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, pathlib.Path]:
    """A folder with a network that has gates, exits and multi-bit weights, and inputs that take all of its exits."""
    samples = load(TESTS / "tflite_export" / "conftest.py")
    folder = tmp_path_factory.mktemp("network")
    x = samples.inputs(64)
    samples.tflite_export.export(samples.multi_exit(), folder / "network.tflite", ops="custom", representative_data=x)
    np.savez(folder / "network.inputs.npz", image=x[:, None])
    return samples, folder


def results(folder: pathlib.Path, command: list[str], library: pathlib.Path) -> dict[str, Result]:
    """Runs all models of a folder; the outputs by model."""
    process = subprocess.run(
        [*command, str(HERE / "run_model.py"), str(library), str(folder)], capture_output=True, text=True, timeout=900
    )
    assert process.returncode == 0, process.stdout + process.stderr
    made = {}
    for path in sorted(folder.glob("*.outputs.npz")):
        made[path.name.partition(".")[0]] = dict(np.load(path))
        path.unlink()
    return made


def results_here(folder: pathlib.Path) -> dict[str, Result]:
    from keras_efficient import _native

    return results(folder, [sys.executable], _native.library_path())


Machine = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def machine(emulators: dict[str, str]) -> Machine:
    """The command of the Python of an emulated Debian, by Debian's name of the architecture."""

    def python(architecture: str) -> list[str]:
        emulator = emulators["aarch64" if architecture == "arm64" else "arm"]
        try:
            root = debian.debian_root(architecture)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"needs {architecture} packages of Debian: {error}")
        return list(debian.python_command(architecture, emulator, root))

    return python


def assert_equal(found: dict[str, Result], expected: dict[str, Result]) -> None:
    assert found.keys() == expected.keys()
    for model, outputs in expected.items():
        assert found[model].keys() == outputs.keys()
        for name, value in outputs.items():
            if name == "claimed":  # runtimes look through a graph's branches more or less often
                assert min(value, found[model][name]) > 0
            elif name in EXACT:
                np.testing.assert_array_equal(found[model][name], value, err_msg=f"{model} {name}")
            else:
                np.testing.assert_allclose(found[model][name], value, rtol=1e-4, atol=1e-4, err_msg=f"{model} {name}")


@pytest.mark.parametrize("architecture", TARGETS)
def test_ops(
    machine: Machine,
    libraries: Mapping[str, pathlib.Path],
    tiny: tuple[pathlib.Path, dict[str, np.ndarray]],
    architecture: str,
) -> None:
    folder, expected = tiny
    found = results(folder, machine(architecture), libraries[TARGETS[architecture]])
    for name, value in expected.items():
        np.testing.assert_allclose(found[name]["output"], value, rtol=1e-4, atol=1e-4)
    assert_equal(found, results_here(folder))


@pytest.mark.parametrize("architecture", TARGETS)
def test_exported_network(
    machine: Machine, libraries: Mapping[str, pathlib.Path], network: tuple[ModuleType, pathlib.Path], architecture: str
) -> None:
    _, folder = network
    here = results_here(folder)
    assert set(here["network"]["exit_index"].ravel()) == {0, 1, 2}
    assert_equal(results(folder, machine(architecture), libraries[TARGETS[architecture]]), here)


@pytest.fixture(scope="module")
def staged(network: tuple[ModuleType, pathlib.Path], tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with a staged int8 network, `coral`, and inputs for it, `x.npy`."""
    samples, _ = network
    folder = tmp_path_factory.mktemp("staged")
    x = samples.inputs(64)
    samples.tflite_export.export(samples.conditioned(), folder / "coral", target="coral", representative_data=x)
    np.save(folder / "x.npy", x[:24])
    return folder


@pytest.mark.parametrize("architecture", TARGETS)
def test_board_script_on_a_staged_folder(machine: Machine, staged: pathlib.Path, architecture: str) -> None:
    command = [*machine(architecture), str(BOARD_SCRIPT), str(staged / "coral"), str(staged / "x.npy"), "--json"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert process.returncode == 0, process.stderr
    (warning,) = (line for line in process.stderr.splitlines() if not line.startswith("INFO:"))
    assert warning.startswith("No Edge TPU")
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    here = board_script_here(staged)
    assert [answer["exit"] - 1 for answer in answers] == [exit_index for _, exit_index in here]
    assert len({exit_index for _, exit_index in here}) > 1
    same = sum(answer["index"] == logits.argmax() for answer, (logits, _) in zip(answers, here, strict=True))
    assert same >= len(here) - 2
    stages = json.loads((staged / "coral" / "model.json").read_text())["stages"]
    for answer, (logits, _) in zip(answers, here, strict=True):
        if answer["index"] != logits.argmax():  # int8 kernels of other releases and machines may round one step apart
            step = stages[answer["exit"] - 1]["outputs"]["output"]["scale"]
            assert logits.max() - logits[answer["index"]] <= 2.5 * step


def board_script_here(folder: pathlib.Path) -> list[tuple[np.ndarray, int]]:
    """Logits and exits that the board script finds here, with ai-edge-litert in the place of tflite-runtime."""
    from ai_edge_litert import interpreter

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tflite_runtime", interpreter)
        patch.setitem(sys.modules, "tflite_runtime.interpreter", interpreter)
        script = load(BOARD_SCRIPT)
    network = script.Network(folder / "coral", use_edge_tpu=False)
    x = np.load(folder / "x.npy")
    made = [network.run(x[i : i + 1]) for i in range(len(x))]
    return [(logits.ravel(), int(exit_index)) for logits, exit_index in made]
