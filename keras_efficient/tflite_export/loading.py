"""`load`: a file in an interpreter, behind the runner that fits it."""

import os

from keras_efficient.tflite_export.runner import Runner, opened
from keras_efficient.tflite_export.staged_runner import StagedRunner


def load(
    path: str | os.PathLike[str],
    *,
    delegate: str = "auto",
    num_threads: int = 1,
    runtime: str | None = None,
    plugins: list[str] | None = None,
    task: str | None = None,
) -> Runner | StagedRunner:
    """Loads a `.tflite` file.

    Args:
        path: The file.
        delegate: `"auto"` (our kernels where the library is installed), `"none"` (stock), or the path of a library.
        num_threads: Threads of builtin ops and kernels.
        runtime: `"ai_edge_litert"`, `"tensorflow"` or `"tflite_runtime"`; the first one that is installed where None.
        plugins: Paths of further kernel libraries; those of installed plugin packages are found by themselves.
        task: Of a file with all tasks of a `MultiTask` network, the one to load; its kernels are put together first,
            so that it runs as fast as a plain network and takes as much memory.

    Returns:
        A `Runner`, or a `StagedRunner` for a file exported with `staged=True`; both are called alike.

    Raises:
        ValueError: If the file is no TFLite file, or the runtime is too old for it; one sentence that names the
            version.
        FileNotFoundError: If the file or the library does not exist.
        ImportError: If no runtime is installed.
    """
    session = opened(path, delegate=delegate, num_threads=num_threads, runtime=runtime, plugins=plugins, task=task)
    return StagedRunner(session) if session.metadata.get("staged") else Runner(session)
