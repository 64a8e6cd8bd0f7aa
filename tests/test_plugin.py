"""A third-party package with an op and a C kernel, from a wheel, in an environment of its own beside our wheel."""

import os
import pathlib
import subprocess
import sys
import sysconfig
import venv

import keras
import pytest

ROOT = pathlib.Path(__file__).parents[1]
CODE = """
import numpy as np
import keras
import keras_efficient, ke_tiny
from keras_efficient import ops, testing, tflite_export

op = ops.get_op("tiny.gated_scale")
assert op is ke_tiny.gated_scale
print(len(testing.check_op(op)), "checks of the op")
print(len(testing.check_layer(ke_tiny.GatedScale, input_shape=(6,))), "checks of the layer")
rng = np.random.default_rng(0)
x = rng.normal(size=(256, 6)).astype("float32")
model = keras.Sequential([keras.Input((6,)), ke_tiny.GatedScale(), keras.layers.Dense(1)])
model.compile(keras.optimizers.Adam(0.05), "mse")
history = model.fit(x, np.maximum(x, 0).sum(1), epochs=20, verbose=0).history["loss"]
assert history[-1] < 0.2 * history[0], history
report = tflite_export.export(model, "tiny.tflite", representative_data=x)
assert report.written == {"tiny.gated_scale": 1}
runner = tflite_export.load("tiny.tflite")
assert runner.delegated_ops == 1
result = runner(x)
assert np.abs(result.output - model.predict(x, verbose=0)).max() < 1e-5
assert (result.executed_macs == (x > 0).sum(1) + 6).all()
print("kernel ran")
"""


def run(command, folder):
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True, env=clean_environment()
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def clean_environment():
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="once is enough, on the TensorFlow backend")
def test_plugin_from_a_wheel(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="the plugin's op runs through the extra tflite")
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    # Keras, TensorFlow and LiteRT come from this environment; our package and the plugin from their wheels, found
    # first.
    site = pathlib.Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path).strip())
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    wheels = tmp_path / "wheels"
    build = ["-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels]
    run([sys.executable, *build, ROOT], tmp_path)
    run(
        [python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", *wheels.glob("keras_efficient-*.whl")],
        tmp_path,
    )
    source = tmp_path / "plugin"
    source.mkdir()
    run(["cp", "-r", *(ROOT / "tests" / "plugin_package").iterdir(), source], tmp_path)
    run([python, *build, "--no-build-isolation", source], tmp_path)
    run([python, "-m", "pip", "install", "-q", "--no-deps", *wheels.glob("ke_tiny-*.whl")], tmp_path)
    where = run([python, "-c", "import keras_efficient; print(keras_efficient.__file__)"], tmp_path)
    assert str(environment) in where
    output = run([python, "-c", CODE], tmp_path)
    assert "10 checks of the op" in output
    assert "10 checks of the layer" in output
    assert "kernel ran" in output
