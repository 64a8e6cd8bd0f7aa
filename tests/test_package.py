"""What importing and installing the package does, each looked at in a fresh process."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import keras_efficient
from keras_efficient import _native

PUBLIC_MODULES = ("callbacks", "cost", "datasets", "layers", "models", "ops", "policies", "testing", "tflite_export")


def run_python(code, tmp_path, **environment):
    """Standard output of `python -c code`, away from the source tree."""
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_jax_backend_leaves_tensorflow_out(tmp_path):
    code = f"""
import importlib, json, sys
import keras_efficient
print(json.dumps(sorted(sys.modules)))
import keras
of_keras = set(sys.modules)
for name in {PUBLIC_MODULES!r}:
    importlib.import_module("keras_efficient." + name)
print(json.dumps(sorted(sys.modules)))
print(json.dumps(sorted(set(sys.modules) - of_keras)))
"""
    package, everything, ours = (
        {name.partition(".")[0] for name in json.loads(line)}
        for line in run_python(code, tmp_path, KERAS_BACKEND="jax").splitlines()[-3:]
    )
    assert not {"tensorflow", "tf_keras"} & (package | everything)
    assert not {"tf_agents", "ai_edge_litert", "matplotlib", "sklearn"} & ours


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_import_sets_no_environment_variable(tmp_path, backend):
    # Keras and the backend set some of their own, so those are imported first.
    code = f"""
import os, keras, {backend}
before = dict(os.environ)
import importlib, keras_efficient
for name in {PUBLIC_MODULES!r}:
    importlib.import_module("keras_efficient." + name)
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
"""
    run_python(code, tmp_path, KERAS_BACKEND=backend)


def test_private_keras_is_not_imported():
    root = Path(keras_efficient.__file__).parent
    offenders = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if "import keras.src" in path.read_text() or "from keras.src" in path.read_text()
    ]
    assert offenders == []


def test_version_is_that_of_the_distribution():
    assert keras_efficient.__version__ == importlib.metadata.version("keras-efficient")


def test_extras_and_console_script():
    metadata = importlib.metadata.metadata("keras-efficient")
    assert set(metadata.get_all("Provides-Extra")) == {"tflite", "agents", "qat", "plots", "cross", "all", "test"}
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="keras-efficient")
    assert script.value == "keras_efficient.cli:main"


def test_package_is_typed():
    assert (Path(keras_efficient.__file__).parent / "py.typed").is_file()


def test_missing_library_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(_native, "LIBRARY_NAME", "libabsent.so")
    with pytest.raises(FileNotFoundError, match="portable decomposition") as caught:
        _native.library_path()
    assert "\n" not in str(caught.value)
