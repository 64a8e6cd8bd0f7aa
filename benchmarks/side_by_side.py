"""Trainings at the same time, each a process of its own: small networks do not fill a GPU, nor many cores."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@dataclasses.dataclass(frozen=True)
class Training:
    """One process.

    Attributes:
        name: For the log and the progress bar.
        arguments: Of `python`.
        needs: Files that must be there before it starts.
    """

    name: str
    arguments: tuple[str, ...]
    needs: tuple[pathlib.Path, ...] = ()


def train(trainings: Sequence[Training], processes: int, logs: pathlib.Path) -> None:
    """Runs all trainings, up to `processes` at once, in their order as far as what they need is there.

    They share a GPU's memory instead of each taking most of it, and what JAX compiles. What a process prints goes to
    `logs/<name>.log`.

    Raises:
        RuntimeError: If a training fails, or waits for a file that none of those left makes; the others are ended.
    """
    logs.mkdir(parents=True, exist_ok=True)
    environment = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(logs / "compiled"),
        **os.environ,
    }
    waiting, running = list(trainings), dict[str, subprocess.Popen[bytes]]()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns) as progress:
            bar = progress.add_task("trainings", total=len(waiting))
            while waiting or running:
                for name, process in list(running.items()):
                    if process.poll() is None:
                        continue
                    if process.returncode:
                        raise RuntimeError(f"Training {name} failed, see {logs / name}.log")
                    del running[name]
                    progress.advance(bar)
                for training in [one for one in waiting if all(path.exists() for path in one.needs)]:
                    if len(running) < processes:
                        running[training.name] = _started(training, logs, environment)
                        waiting.remove(training)
                if waiting and not running:
                    raise RuntimeError(f"Nothing makes {waiting[0].needs}, which training {waiting[0].name} needs")
                progress.update(bar, description=", ".join(running))
                time.sleep(0.2)
    finally:
        for process in running.values():
            process.terminate()


def _started(training: Training, logs: pathlib.Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with open(logs / f"{training.name}.log", "ab") as log:
        command = [sys.executable, *training.arguments]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
