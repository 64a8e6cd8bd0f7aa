"""The tests of what runs on every backend, once more on JAX, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

TESTS = Path(__file__).parent
PORTABLE = ("ops", "layers", "models", "callbacks", "cost", "datasets")


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="this run is on JAX already")
@pytest.mark.parametrize("room", PORTABLE)
def test_on_jax(room):
    pytest.importorskip("jax", reason="jax is not installed")
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(TESTS / room)],
        cwd=TESTS.parent,
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout[-8000:] + finished.stderr[-2000:]
