"""The tests of what runs on every backend, once more on JAX, each room in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

TESTS = Path(__file__).parent
PORTABLE = (
    "ops",
    "bases",
    "layers",
    "models",
    "callbacks",
    "quantization",
    "cost/test_profile.py",
    "cost/test_dynamic.py",
)


@pytest.fixture(scope="module")
def compilation(tmp_path_factory):
    """Keeps what JAX has compiled in one room for the next ones, and optimizes little: most of the time goes there."""
    return {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("jax")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="this run is on JAX already")
@pytest.mark.parametrize("room", PORTABLE)
def test_on_jax(room, compilation):
    pytest.importorskip("jax", reason="jax is not installed")
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(TESTS / room)],
        cwd=TESTS.parent,
        env={**os.environ, **compilation, "KERAS_BACKEND": "jax", "PYTHONSAFEPATH": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout[-8000:] + finished.stderr[-2000:]
