"""A file with custom ops in tflite-runtime 2.14, the one that Coral boards run, through the same shared library."""

import os
import subprocess
import sys
import sysconfig
import venv

import numpy as np
import pytest

from keras_efficient import tflite_export

CODE = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter, load_delegate
library, path = sys.argv[1:]
with open(path, "rb") as file:
    content = file.read()
run = Interpreter(model_content=content, experimental_delegates=[load_delegate(library)]).get_signature_runner()
x = np.load("x.npy")
results = [run(image=x[i:i + 1]) for i in range(len(x))]
np.savez("y.npz", **{name: np.concatenate([r[name] for r in results]) for name in ("output", "exit_index")})
assert not [name for name in sys.modules if name.startswith(("keras", "tensorflow"))]
"""


@pytest.fixture(scope="session")
def old_python(tmp_path_factory):
    """The interpreter of an environment with tflite-runtime 2.14 and nothing of ours."""
    if sys.version_info[:2] > (3, 11):
        pytest.skip("tflite-runtime 2.14 has wheels up to Python 3.11")
    folder = tmp_path_factory.mktemp("old")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "tflite-runtime==2.14.0", "numpy<2"], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"tflite-runtime 2.14.0 cannot be had for {sysconfig.get_platform()}: {done.stderr.strip()[-200:]}")
    return python


def run_old(python, code, arguments, folder):
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run([python, "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_custom_ops_run_there(old_python, model, x, files, tmp_path):
    np.save(tmp_path / "x.npy", x)
    done = run_old(old_python, CODE, [str(tflite_export.delegate_path()), str(files["custom"][0])], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    logits, exit_index = model.predict_exits(x, verbose=0)
    with np.load(tmp_path / "y.npz") as y:
        np.testing.assert_array_equal(y["exit_index"], exit_index)
        np.testing.assert_allclose(y["output"], logits, atol=1e-4)


def test_builtin_ops_run_there_without_the_library(old_python, model, x, files, tmp_path):
    np.save(tmp_path / "x.npy", x[:32])
    code = CODE.replace("experimental_delegates=[load_delegate(library)]", "experimental_delegates=None")
    done = run_old(old_python, code, ["unused", str(files["builtin"][0])], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "y.npz") as y:
        np.testing.assert_allclose(y["output"], model.predict(x[:32], verbose=0), atol=1e-4)


def test_composites_are_refused_there(old_python, x, files, tmp_path):
    np.save(tmp_path / "x.npy", x[:1])
    done = run_old(old_python, CODE, [str(tflite_export.delegate_path()), str(files["composite"][0])], tmp_path)
    assert done.returncode != 0
    assert "builtin_code out of range: 206" in done.stderr
