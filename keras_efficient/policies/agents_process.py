"""Runs the TF-Agents worker in a process of its own: arrays in, progress while it runs, arrays out.

TF-Agents needs Keras 2, which `TF_USE_LEGACY_KERAS=1` selects before TensorFlow is imported. The variable is set for
the worker alone, and the worker imports nothing of this package, so this process stays pure Keras 3 on any backend.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PROGRAM = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_module('agents_worker', run_name='__main__')"
_NEEDED = ("tensorflow", "tf_keras", "tensorflow_probability", "tf_agents")
_LOG_TAIL = 2000  # characters of the worker's log that an error quotes


def check_agents_installed() -> None:
    """Raises an `ImportError` of one sentence unless TF-Agents can be started."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        where = f" in Python 3.11; TF-Agents does not support Python {_python()}" if sys.version_info >= (3, 12) else ""
        raise ImportError(
            f"ExitPolicyTrainer needs TF-Agents, but {missing[0]} is not installed: "
            f'run pip install "keras-efficient[agents]"{where}.'
        )


def run_agents_worker(
    config: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    on_progress: Callable[[dict[str, float]], None],
) -> dict[str, NDArray[Any]]:
    """Starts the worker, waits for it and returns its arrays.

    The worker is killed when anything, such as Ctrl-C, interrupts the wait.

    Args:
        config: What `task.json` holds.
        arrays: What `task.npz` holds.
        on_progress: Called with every line of progress.

    Raises:
        ImportError: If TF-Agents is not installed.
        RuntimeError: If the worker fails, with the end of its log.
    """
    check_agents_installed()
    with tempfile.TemporaryDirectory(prefix="keras_efficient_agents_") as name:
        directory = Path(name)
        (directory / "task.json").write_text(json.dumps(dict(config)))
        np.savez(directory / "task.npz", **arrays)  # type: ignore[arg-type]
        log = directory / "log.txt"
        with log.open("wb") as errors:
            worker = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(Path(__file__).parent), str(directory)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(),
                text=True,
                start_new_session=True,  # Ctrl-C reaches us alone; we end the worker
            )
            try:
                assert worker.stdout is not None
                for line in worker.stdout:
                    on_progress(json.loads(line))
                code = worker.wait()
            finally:
                if worker.poll() is None:
                    worker.kill()
                    worker.wait()
                if worker.stdout is not None:
                    worker.stdout.close()
        result = directory / "result.npz"
        if code != 0 or not result.exists():
            end = f"with exit code {code}" if code else "without a result"
            tail = log.read_text(errors="replace")[-_LOG_TAIL:].strip()
            raise RuntimeError(f"The TF-Agents worker ended {end}. The end of its log:\n{tail}")
        with np.load(result) as loaded:
            return dict(loaded)


def _python() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _environment() -> dict[str, str]:
    """The worker's environment: legacy Keras, and no GPU, which networks this small would only wait for."""
    return {**os.environ, "TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
