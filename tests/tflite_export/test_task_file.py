"""A file of all tasks: each as in Keras, shared filters stored once, folded into a plain network when loaded."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_efficient import cli, tflite_export
from keras_efficient.models import MultiTask
from keras_efficient.tflite_export import flatbuffer, metadata

TASKS = ("left", "right", "third")


@pytest.fixture(scope="module")
def model():
    x = inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(12, 3, padding="same", use_bias=False, name="first")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm")(x))
    x = keras.layers.Conv2D(40, 3, activation="relu", name="second")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    backbone = keras.Model(inputs, keras.layers.Dense(60, activation="relu", name="dense")(x))
    made = MultiTask(backbone, dict.fromkeys(TASKS, 4), sharing="pool", seed=0)
    rng = np.random.default_rng(0)
    for layer in made.sharing_layers:
        kernels, biases = layer.get_sources()
        noise = rng.normal(size=kernels.shape).astype("float32")
        layer.assign_sources(kernels + 0.1 * noise, biases)
        own = np.arange(1, 4)[:, None]
        layer.set_sources(np.where(rng.uniform(size=(3, layer.slots)) < 0.4, own, 0))
    norm = made.body[1]
    norm.set_rows([rng.uniform(0.5, 1.5, rows.shape).astype("float32") for rows in norm.get_rows()])
    return made


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("tasks") / "tasks.tflite"
    return path, tflite_export.export(model, path)


def image(count=4):
    return np.random.default_rng(1).uniform(size=(count, 8, 8, 1)).astype("float32")


def test_every_task_is_that_of_keras(model, exported):
    path, report = exported
    assert set(report.parity) == set(TASKS)
    assert max(report.parity.values()) < 1e-5
    x = image()
    for task in TASKS:
        expected = model.export(task=task).predict(x, verbose=0)
        runner = tflite_export.load(path, task=task, delegate="none")
        np.testing.assert_allclose(runner(x).output, expected, atol=1e-5)
        assert runner.metadata["task"] == task
        assert runner(x).executed_macs[0] == pytest.approx(model_macs(model, task))


def model_macs(model, task):
    from keras_efficient import cost

    return cost.profile(model.network(task)).macs


def test_a_stock_interpreter_runs_every_signature(model, exported):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(exported[0]))
    assert set(interpreter.get_signature_list()) == set(TASKS)
    x = image(1)
    for task in TASKS:
        found = next(iter(interpreter.get_signature_runner(task)(image=x).values()))
        np.testing.assert_allclose(found, model.export(task=task).predict(x, verbose=0), atol=1e-5)


def test_shared_filters_are_stored_once(model, exported):
    path, report = exported
    filters = 4 * sum(
        len(layer.stored_filters()) * int(np.prod(layer.kernels.shape[1:-1])) for layer in model.sharing_layers
    )
    parsed = flatbuffer.parse(path.read_bytes())
    assert metadata.read(parsed)["pool_bytes"] == filters
    assert not [note for note in report.notes if "not found" in note]
    sizes = [len(buffer.data) for buffer in parsed.buffers if buffer.data is not None]
    for layer in model.sharing_layers:
        pool = 4 * len(layer.stored_filters()) * int(np.prod(layer.kernels.shape[1:-1]))
        assert sizes.count(pool) == 1
    constants = sum(sizes) - filters
    per_task = sum(3 * 4 * layer.slots for layer in model.sharing_layers) * len(TASKS) + 3 * 4 * (60 * 4 + 4)
    assert constants <= per_task + 6000  # indices, scales and biases of each task, heads, metadata


def test_a_loaded_task_is_a_plain_file(model, exported, tmp_path):
    report = tflite_export.export(model, tmp_path / "left.tflite", task="left")
    plain = flatbuffer.parse((tmp_path / "left.tflite").read_bytes())
    from keras_efficient.tflite_export.task_folding import one_task

    folded = flatbuffer.parse(one_task(exported[0].read_bytes(), "left"))
    kinds = [
        [flatbuffer.operator_code(parsed, operator) for operator in parsed.subgraphs[0].operators]
        for parsed in (plain, folded)
    ]
    assert kinds[0] == kinds[1]
    assert max(report.parity.values()) < 1e-5
    constants = [sum(len(b.data) for b in parsed.buffers if b.data is not None) for parsed in (plain, folded)]
    assert constants[1] == pytest.approx(constants[0], abs=600)


def test_bad_input(model, exported, tmp_path):
    with pytest.raises(ValueError, match="`task`"):
        tflite_export.export(model, tmp_path / "m.tflite", task="fourth")
    with pytest.raises(ValueError, match="`task`"):
        tflite_export.export(
            keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), tmp_path / "m.tflite", task="a"
        )
    with pytest.raises(ValueError, match="`quantize`"):
        tflite_export.export(model, tmp_path / "m.tflite", quantize="int8", representative_data=image())
    with pytest.raises(ValueError, match="`ops`.*Expected None or 'builtin'.*Received: 'custom'"):
        tflite_export.export(model, tmp_path / "m.tflite", ops="custom")
    with pytest.raises(ValueError, match="`task`"):
        tflite_export.load(exported[0])
    with pytest.raises(ValueError, match="`task`"):
        tflite_export.load(exported[0], task="fourth")
    assert not (tmp_path / "m.tflite").exists()


def test_the_command_times_one_task(exported, capsys):
    words = ["benchmark", str(exported[0]), "--runs", "2", "--delegate", "none"]
    assert cli.main([*words, "--task", "left", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "left"
    assert found["rows"]["stock"]["mean_us"] > 0
    assert cli.main([*words, "--task", "right"]) == 0
    assert "task right" in capsys.readouterr().out
    assert cli.main(words) == 2
    assert f"Expected one of {list(TASKS)}" in capsys.readouterr().err


ON_JAX = """
import sys
import keras, numpy as np
from keras_efficient import models, tflite_export
backbone = keras.Sequential([keras.Input((6,), name="x"), keras.layers.Dense(4, activation="relu")])
model = models.MultiTask(backbone, {"left": 2, "right": 3})
def loss(y, found):  # which no other process knows
    return keras.ops.mean(found)
model.compile("sgd", loss)
report = tflite_export.export(model, sys.argv[1])
assert set(report.parity) == {"left", "right"}, report
x = np.ones((2, 6), "float32")
found = tflite_export.load(sys.argv[1], task="right", delegate="none")(x).output
np.testing.assert_allclose(found, model.export(task="right").predict(x, verbose=0), atol=1e-5)
"""


def test_all_tasks_from_jax(tmp_path):
    pytest.importorskip("jax")
    words = [sys.executable, "-c", ON_JAX, str(tmp_path / "tasks.tflite")]
    done = subprocess.run(words, env={**os.environ, "KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_layer_that_a_backbone_calls_twice_is_stored_once(tmp_path):
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", name="first")(inputs)
    twice = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="twice")
    backbone = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(twice(twice(x))))
    model = MultiTask(backbone, {"left": 4, "right": 4}, sharing="pool", seed=0)
    for layer in model.sharing_layers:
        kernels, biases = layer.get_sources()
        layer.assign_sources(kernels + np.arange(3, dtype="float32")[:, None, None, None, None] / 10, biases)
        layer.set_sources(np.where(np.arange(layer.slots) < 2, [[1], [2]], 0))
    path = tmp_path / "tasks.tflite"
    report = tflite_export.export(model, path)
    assert max(report.parity.values()) < 1e-5
    parsed = flatbuffer.parse(path.read_bytes())
    pool = np.prod((6, 3, 3, 4)) * 4  # two shared filters and two of each task
    sizes = [len(buffer.data) for buffer in parsed.buffers if buffer.data is not None]
    assert sizes.count(pool) == 1
    assert 4 * 3 * 3 * 4 * 4 not in sizes  # no kernel of a task stands beside it
    for task in ("left", "right"):
        runner = tflite_export.load(path, task=task, delegate="none")
        np.testing.assert_allclose(
            runner(image()).output, model.export(task=task).predict(image(), verbose=0), atol=1e-5
        )
