"""The TFLite runtimes that can be installed, behind one face."""

import dataclasses
import importlib
import importlib.metadata
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

MODULES = {
    "ai_edge_litert": ("ai_edge_litert.interpreter", "ai-edge-litert"),
    "tflite_runtime": ("tflite_runtime.interpreter", "tflite-runtime"),
    "tensorflow": ("tensorflow.lite", "tensorflow"),
}
COMPOSITE_SIGNS = ("STABLEHLO_COMPOSITE", "builtin_code out of range: 206")
COMPOSITE_NEEDS = "LiteRT (ai-edge-litert), or TFLite 2.18.1 or newer"


@dataclasses.dataclass(frozen=True)
class Runtime:
    """An installed runtime: its module with `Interpreter` and `load_delegate`, its name and version."""

    name: str
    version: str
    module: Any

    def load_delegate(self, library: pathlib.Path, options: dict[str, str]) -> Any:
        """Loads a delegate library.

        Raises:
            ValueError: If the runtime cannot load it; the runtime's reason is part of the message.
        """
        load = self.module.experimental.load_delegate if self.name == "tensorflow" else self.module.load_delegate
        try:
            return load(str(library), options)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"The delegate {library} could not be loaded by {self.name} {self.version}: {error}"
            ) from error

    def interpreter(self, content: bytes, delegates: Sequence[Any], num_threads: int, metadata: dict[str, Any]) -> Any:
        """An interpreter with its tensors allocated.

        For a file with branches it keeps the memory of their subgraphs. By default an IF gives it back after each run
        and plans it anew in the next, some microseconds for each branch that is entered.

        Raises:
            ValueError: If the runtime refuses the file; says which version is needed where that is the reason.
        """
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
                interpreter = self.module.Interpreter(
                    model_content=content,
                    experimental_delegates=list(delegates) or None,
                    num_threads=num_threads,
                    experimental_preserve_all_tensors=bool(metadata.get("branches")),
                )
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            form = metadata.get("form")
            hint = ""
            if form == "custom" and not delegates:
                hint = " A file with ops='custom' needs the delegate."
            elif not runs_composites(self.name, self.version) and (
                form == "composite" or any(sign in str(error) for sign in COMPOSITE_SIGNS)
            ):
                hint = (
                    f" A file with ops='composite' needs {COMPOSITE_NEEDS}; "
                    "ops='custom' runs on older runtimes with the delegate."
                )
            raise ValueError(
                f"{self.name} {self.version} cannot run this file.{hint} The runtime says: {error}"
            ) from error
        return interpreter


def runs_composites(name: str, version: str) -> bool:
    """Whether a runtime of that version runs `STABLEHLO_COMPOSITE`."""
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    return name == "ai_edge_litert" or numbers >= (2, 18, 1)


def find_runtime(name: str | None = None) -> Runtime:
    """The runtime of that name, or the first one that is installed.

    Raises:
        ValueError: If the name is unknown.
        ImportError: If it is not installed, with the pip command.
    """
    if name is not None and name not in MODULES:
        raise ValueError(f"Invalid value for argument `runtime`. Expected one of {sorted(MODULES)}. Received: {name!r}")
    for key in [name] if name is not None else MODULES:
        module, package = MODULES[key]
        try:
            return Runtime(key, importlib.metadata.version(package), importlib.import_module(module))
        except (ModuleNotFoundError, importlib.metadata.PackageNotFoundError):
            continue
    wanted = MODULES[name][1] if name is not None else "ai-edge-litert"
    raise ImportError(
        f'No TFLite runtime is installed: {wanted!r} is needed here: pip install "keras-efficient[tflite]"', name=wanted
    )
