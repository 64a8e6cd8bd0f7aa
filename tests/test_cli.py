"""The command line: what each command prints, and one sentence for everything that is wrong."""

import json
import pathlib
import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pytest

import keras_efficient
from keras_efficient.cli import main
from keras_efficient.layers import EarlyExit, GatedConv2D
from keras_efficient.models import MultiExit
from keras_efficient.policies import ThresholdPolicy

pytestmark = pytest.mark.skipif(
    find_spec("tensorflow") is None or find_spec("ai_edge_litert") is None, reason="the commands need the extra tflite"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`tiny.keras`, `tiny.npz`, and `tiny.tflite` exported from them by the command line."""
    made = tmp_path_factory.mktemp("cli")
    network = keras.Sequential([keras.Input((6, 6, 1)), GatedConv2D(8, 3, activation="relu"), EarlyExit(3)])
    network.add(GatedConv2D(8, 3, activation="relu"))
    network.add(keras.layers.GlobalAveragePooling2D())
    network.add(keras.layers.Dense(3))
    model = MultiExit.from_model(network)
    model.policy = ThresholdPolicy(0.4)
    model.save(made / "tiny.keras")
    np.savez(made / "tiny.npz", x=np.random.default_rng(0).random((20, 6, 6, 1)).astype("float32"))
    assert main(["export", str(made / "tiny.keras"), "--data", str(made / "tiny.npz")]) == 0
    return made


def fails(capsys, *words):
    """Runs a command that must fail; returns its one sentence."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("keras-efficient")]
    assert code == 2
    assert len(lines) == 1
    assert "Traceback" not in printed.err
    assert printed.out == ""
    return lines[0]


def test_version_and_help(capsys):
    for words in (
        ["--version"],
        ["--help"],
        ["demo", "--help"],
        ["export", "--help"],
        ["inspect", "-h"],
        ["benchmark", "-h"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert f"keras-efficient {keras_efficient.__version__}" in printed
    assert "report.html" in printed


def test_export_writes_beside_the_model_and_prints_the_report(folder, capsys):
    assert main(["export", str(folder / "tiny.keras"), "--ops", "custom", "--out", str(folder / "custom.tflite")]) == 0
    assert "custom: 2 x ke.gate_net, 2 x ke.gated_conv_2d" in capsys.readouterr().out
    assert (folder / "tiny.tflite").stat().st_size > 0


def test_export_int8(folder, capsys):
    words = ["--int8", "--data", str(folder / "tiny.npz"), "--out", str(folder / "int8.tflite")]
    assert main(["export", str(folder / "tiny.keras"), *words]) == 0
    assert "int8 ops" in capsys.readouterr().out


def test_inspect_names_ops_exits_and_sizes(folder, capsys):
    assert main(["inspect", str(folder / "tiny.tflite")]) == 0
    printed = capsys.readouterr().out
    for word in ("ke.gated_conv_2d", "composite", "exit 1", "exit 2", "dense MACs", "exit_index", "IF"):
        assert word in printed
    assert main(["inspect", str(folder / "tiny.tflite"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ops"] == [
        {"name": name, "form": "composite", "version": 1, "count": 2} for name in ("ke.gate_net", "ke.gated_conv_2d")
    ]
    assert found["bytes"] == (folder / "tiny.tflite").stat().st_size
    assert len(found["metadata"]["exits"]) == 2


def test_inspect_a_file_of_somebody_else(tmp_path, capsys):
    import tensorflow as tf

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    (tmp_path / "plain.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    assert main(["inspect", str(tmp_path / "plain.tflite")]) == 0
    assert "not written by keras-efficient" in capsys.readouterr().out


def test_benchmark_measures_stock_and_delegate(folder, capsys):
    assert (
        main(["benchmark", str(folder / "tiny.tflite"), "--runs", "8", "--data", str(folder / "tiny.npz"), "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["rows"]["stock"]["mean_us"] > 0
    assert found["rows"]["stock"]["p95_us"] >= found["rows"]["stock"]["p50_us"]
    assert sum(found["rows"]["stock"]["exits"]) == pytest.approx(1)
    assert "delegate" in found["rows"] or found["notes"]
    assert main(["benchmark", str(folder / "tiny.tflite"), "--runs", "2", "--delegate", "none"]) == 0
    assert "stock" in capsys.readouterr().out


def test_a_sentence_for_every_bad_file(folder, tmp_path, capsys):
    for command in ("inspect", "benchmark"):
        assert "There is no file" in fails(capsys, command, tmp_path / "none.tflite")
        assert "ends in .tflite" in fails(capsys, command, folder / "tiny.keras")
        for name, content in {
            "text.tflite": b"no flatbuffer at all",
            "cut.tflite": (folder / "tiny.tflite").read_bytes()[:400],
            "empty.tflite": b"",
        }.items():
            (tmp_path / name).write_bytes(content)
            assert ".tflite content" in fails(capsys, command, tmp_path / name)
    assert "There is no file" in fails(capsys, "export", tmp_path / "none.keras")
    (tmp_path / "bad.keras").write_bytes(b"no archive")
    assert "Keras cannot load" in fails(capsys, "export", tmp_path / "bad.keras")
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    assert "Expected an .npz file" in fails(capsys, "export", folder / "tiny.keras", "--data", tmp_path / "bad.npz")
    np.savez(tmp_path / "wrong.npz", x=np.zeros((3, 5, 5, 1)))
    for command in ("export", "benchmark"):
        file = folder / ("tiny.keras" if command == "export" else "tiny.tflite")
        assert "shape" in fails(capsys, command, file, "--data", tmp_path / "wrong.npz")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        ["text.tflite", "cut.tflite", "empty.tflite", "bad.keras", "bad.npz", "wrong.npz"]
    )


def test_a_sentence_for_every_bad_argument(folder, tmp_path, capsys):
    assert "--data" in fails(capsys, "export", folder / "tiny.keras", "--int8")
    assert "ends in .tflite" in fails(capsys, "export", folder / "tiny.keras", "--out", tmp_path / "x.bin")
    assert "writable" in fails(capsys, "export", folder / "tiny.keras", "--out", tmp_path / "no" / "x.tflite")
    assert "no_such_module" in fails(capsys, "export", folder / "tiny.keras", "--import", "no_such_module")
    assert "positive integer" in fails(capsys, "benchmark", folder / "tiny.tflite", "--runs", "0")
    assert "delegate" in fails(capsys, "benchmark", folder / "tiny.tflite", "--delegate", tmp_path / "no.so")
    assert "invalid choice" in fails(capsys, "demo", "--out", tmp_path / "out", "--data", "nothing")
    assert "--out" in fails(capsys, "demo")
    assert "mnist.npz" in fails(capsys, "demo", "--out", tmp_path / "out", "--data", "mnist", "--data-dir", tmp_path)
    (tmp_path / "file").write_text("")
    assert "Expected a directory" in fails(capsys, "demo", "--out", tmp_path / "file")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_model_that_was_compiled_with_a_function_of_the_users(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", lambda y, found: keras.ops.mean(found))
    model.fit(np.zeros((2, 4)), np.zeros((2, 2)), verbose=0)
    model.save("compiled.keras")
    assert main(["export", "compiled.keras"]) == 0


def test_a_model_with_layers_of_a_module_of_the_users(tmp_path, capsys, monkeypatch):
    (tmp_path / "my_layers.py").write_text(
        "import keras\n\n@keras.saving.register_keras_serializable(package='mine')\n"
        "class Twice(keras.layers.Layer):\n    def call(self, x):\n        return 2 * x\n"
    )
    program = "import keras, my_layers\nkeras.Sequential([keras.Input((4,)), my_layers.Twice()]).save('mine.keras')\n"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    assert "--import MODULE" in fails(capsys, "export", "mine.keras")
    assert not pathlib.Path("mine.tflite").exists()
    assert main(["export", "mine.keras", "--import", "my_layers"]) == 0
    assert pathlib.Path("mine.tflite").exists()


def test_the_program_in_a_process_of_its_own(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "keras_efficient", "inspect", "none.tflite"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert (
        done.stderr.splitlines()[-1]
        == "keras-efficient: error: There is no file 'none.tflite'. Expected an existing .tflite file."
    )
