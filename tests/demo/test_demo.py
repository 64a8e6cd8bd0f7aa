"""The whole demo on few images and one epoch: what it writes, and that it does without what is not installed."""

import json
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_efficient import tflite_export
from keras_efficient.demo import deciding, pictures
from keras_efficient.demo import run as demo
from keras_efficient.demo.data import load
from keras_efficient.demo.measure import measure
from keras_efficient.demo.settings import Settings

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or find_spec("ai_edge_litert") is None,
    reason="the demo needs the extra tflite, and Keras on the TensorFlow backend",
)
ROWS = ["static", "static_small", "static_int8", "dynamic_stock", "dynamic_delegate", "dynamic_int8"]
QUANTITIES = {"name", "accuracy", "expected_macs", "latency_us", "latency_p50_us", "latency_p95_us", "bytes"}


def no_agents(*_, **__):
    raise ImportError('pip install "keras-efficient[agents]"')


def no_library():
    raise FileNotFoundError("no native library here")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A run without TF-Agents and matplotlib: its directory, what it printed."""
    out = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch, (out.parent / "printed").open("w") as printed:
        patch.setattr(deciding.ExitPolicyTrainer, "fit", no_agents)
        patch.setattr(pictures, "available", lambda: False)
        demo.run(Settings(out, epochs=1, images=48), Console(file=printed, width=150))
    return out, (out.parent / "printed").read_text()


def test_everything_is_written_and_nothing_else(result):
    out, _ = result
    names = {file.name for file in out.iterdir()}
    assert {"model.keras", "model.tflite", "report.json", "report.html"} <= names
    assert [file.name for file in out.parent.iterdir() if file.name.startswith(".")] == []
    assert all(file.stat().st_size > 0 for file in out.iterdir())


def test_the_report_has_its_parts(result):
    report = json.loads((result[0] / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == ROWS
    assert all(set(row) == QUANTITIES for row in report["rows"])
    assert all(row["latency_p95_us"] > 0 and row["bytes"] > 0 for row in report["rows"])
    assert sum(report["exits"].values()) == pytest.approx(1)
    assert set(report["policies"]) == {"threshold", "backward_induction"}
    assert all({"accuracy", "cost"} <= set(policy) for policy in report["policies"].values())
    assert {"cpu", "cores", "versions"} <= set(report["machine"])


def test_keras_stock_and_delegate_agree(result):
    parity = json.loads((result[0] / "report.json").read_text())["parity"]
    assert parity["keras_vs_stock"] < 1e-4
    assert parity["coverage"]["inputs"] >= 100
    assert sum(parity["coverage"]["exits"]) == parity["coverage"]["inputs"]


def test_what_is_missing_is_said_in_words(result):
    out, printed = result
    report = json.loads((out / "report.json").read_text())
    assert any("keras-efficient[agents]" in sentence for sentence in report["losses"])
    assert "keras-efficient[plots]" in printed
    assert "keras-efficient[plots]" in (out / "report.html").read_text()
    for row in ROWS:
        assert row in printed


def test_the_file_runs_by_itself(result):
    out, _ = result
    model = keras.saving.load_model(out / "model.keras")
    images = np.random.default_rng(0).random((8, 8, 8, 1)).astype("float32")
    logits, taken = model.predict_exits(images, verbose=0)
    ran = tflite_export.load(out / "model.tflite", delegate="none")(images)
    same = ran.exit_index == taken
    assert same.sum() >= 7
    np.testing.assert_allclose(ran.output[same], logits[same], atol=1e-4)


def test_without_the_native_library_every_row_runs_stock(result):
    settings = Settings(result[0], images=48)
    measured = measure(result[0], load(settings), {}, threads=2, with_delegate=False)
    assert measured.row("dynamic_delegate").expected_macs == measured.row("dynamic_stock").expected_macs
    np.testing.assert_array_equal(measured.predictions["dynamic_delegate"], measured.predictions["dynamic_stock"])


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "train_networks", no_library)
    with pytest.raises(TypeError):
        demo.run(Settings(tmp_path / "out", images=48), Console(quiet=True))
    assert list(tmp_path.iterdir()) == []


def test_another_backend_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
        demo.run(Settings(tmp_path / "out"), Console(quiet=True))


def test_pictures_are_drawn_from_numbers():
    pytest.importorskip("matplotlib")
    curve = (np.linspace(4e6, 1e5, 20), np.linspace(0.99, 0.95, 20))
    policies = dict.fromkeys(("threshold", "backward_induction", "tf_agents"), (200000.0, 0.98))
    one = pictures.accuracy_against_compute(
        curve, policies, "threshold", [(1e5, 0.95), (4e6, 0.99)], {"static": (4e6, 0.99), "static_small": (3e5, 0.97)}
    )
    images = np.random.default_rng(0).random((30, 8, 8, 1))
    two = pictures.exits_taken(images, np.arange(30) % 3, 4, np.arange(30) % 5 > 0)
    layer = {"reached": 0.5, "open": 0.4, "lowest": 0.1, "highest": 0.9}
    three = pictures.open_gates({"gated": layer, "another": layer})
    assert all(picture.startswith(b"\x89PNG") for picture in (one, two, three))
