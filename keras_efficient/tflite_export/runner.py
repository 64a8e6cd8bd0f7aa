"""Running a file: stock or with the delegate, with what each call executed."""

import dataclasses
import os
import pathlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient import _native
from keras_efficient.tflite_export.budgets import Budget, budget
from keras_efficient.tflite_export.inputs import checked_inputs
from keras_efficient.tflite_export.runtime import Runtime, find_runtime
from keras_efficient.tflite_export.session import Session, file_metadata
from keras_efficient.tflite_export.task_folding import one_task

Array = NDArray[Any]
BUDGET_INPUTS = ("trade_off", "max_exit")


@dataclasses.dataclass(frozen=True)
class Result:
    """What one call of a `Runner` or `StagedRunner` gave.

    Attributes:
        outputs: Arrays by output name, first dimension N.
        exit_index: `[N]` index of the exit taken, None for a model without an exit policy.
        executed_macs: `[N]` multiply-adds that really ran: the builtin ops of the branches or stages taken, and the
            ops' kernels by their own counters (without the delegate: the ops in full, since their decomposition
            computes everything).
    """

    outputs: dict[str, Array]
    exit_index: NDArray[np.int32] | None
    executed_macs: NDArray[np.float64]

    @property
    def output(self) -> Array:
        """The only output, or the one called `output`."""
        return self.outputs["output"] if "output" in self.outputs else next(iter(self.outputs.values()))


def delegate_path() -> pathlib.Path:
    """The shared library with the delegate, for anybody's own interpreter.

    Raises:
        FileNotFoundError: One sentence, where the package was installed without a C compiler.
    """
    return _native.library_path()


def opened(
    path: str | os.PathLike[str],
    *,
    delegate: str = "auto",
    num_threads: int = 1,
    runtime: str | None = None,
    plugins: list[str] | None = None,
    task: str | None = None,
) -> Session:
    """A `.tflite` file in an interpreter; arguments and errors as for `load`."""
    if num_threads < 1:
        raise ValueError(f"Invalid value for argument `num_threads`. Expected at least 1. Received: {num_threads}")
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"Invalid value for argument `path`. Expected a .tflite file. Received: {file} (not there)"
        )
    content = file.read_bytes()
    if task is not None or "tasks" in file_metadata(content):
        content = one_task(content, task)
    return Session(content, find_runtime(runtime), delegate_library(delegate), num_threads, plugins)


def delegate_library(delegate: str) -> pathlib.Path | None:
    """The library that `load`'s argument means, None for a stock runtime.

    Raises:
        FileNotFoundError: If there is no such library.
    """
    if delegate == "none":
        return None
    if delegate == "auto":
        try:
            return delegate_path()
        except FileNotFoundError as error:
            warnings.warn(str(error), stacklevel=4)
            return None
    library = pathlib.Path(delegate)
    if not library.is_file():
        raise FileNotFoundError(
            "Invalid value for argument `delegate`. Expected 'auto', 'none' or the path of a library. "
            f"Received: {delegate!r}"
        )
    return library


class Runner:
    """A loaded file of one signature. Call it with one array, or with arrays by input name; see `load`.

    A file with exits or layer gates takes one sample at a time; batches are run sample by sample. A `Runner` belongs
    to one thread at a time; load one per thread.
    """

    def __init__(self, session: Session):
        self._session = session
        self.interpreter = session.interpreter
        self.metadata = session.metadata
        self._signature = self.interpreter.get_signature_runner()
        details = self.input_details = self._signature.get_input_details()
        self._budget_inputs = [n for n in BUDGET_INPUTS if n in details and self.metadata.get("budget_inputs", False)]
        self._inputs = {name: detail for name, detail in details.items() if name not in self._budget_inputs}
        # The outputs that the exporter added; by their names alone where the file's metadata cannot be read.
        said = {"macs": bool(self.metadata.get("branches")), "exit_index": "exits" in self.metadata}
        names = self._signature.get_output_details()
        self._own = {name for name, is_own in said.items() if name in names and (is_own or not self.metadata)}

    @classmethod
    def from_content(cls, content: bytes, runtime: Runtime, library: pathlib.Path | None) -> "Runner":
        """A runner of a file's bytes, with one thread."""
        return cls(Session(content, runtime, library, 1))

    @property
    def delegated_ops(self) -> int:
        """How many ops our kernels took over."""
        return self._session.delegated_ops

    @property
    def batch_size(self) -> int | None:
        """Rows that the file takes at a time, None where it takes any number."""
        size = int(next(iter(self._inputs.values()))["shape_signature"][0])
        return size if size > 0 else None

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes by input name, budgets left out; -1 is a free dimension."""
        return {name: tuple(int(size) for size in detail["shape_signature"]) for name, detail in self._inputs.items()}

    def __call__(
        self,
        x: Any = None,
        *,
        trade_off: Any = None,
        max_exit: Any = None,
        deadline_macs: Any = None,
        deadline_us: Any = None,
        **inputs: Any,
    ) -> Result:
        """Runs a batch `[N, ...]`, one array or arrays by input name.

        The budgets are for files exported with `budget_inputs`; each is one number or `[N]` numbers.

        Args:
            x: The input of a file with one.
            trade_off: Accuracy (1 is 100 %) that one is ready to give for the cost of one full network; the file's
                default where None.
            max_exit: Index of the last exit allowed, 0 for the first; no input goes beyond.
            deadline_macs: Multiply-adds that no input may exceed: `max_exit` by the costs in the file.
            deadline_us: Microseconds that no input may exceed, where the file says what its exits take.
            **inputs: Arrays by input name.

        Raises:
            ValueError: If an input is missing, unknown, or of the wrong shape or dtype, or a budget cannot be met.
        """
        arrays = checked_inputs(x, inputs, self._inputs)
        count = len(next(iter(arrays.values())))
        size = self.batch_size or count
        if count % size:
            raise ValueError(
                f"Invalid inputs. Expected a multiple of the file's batch size {size}. Received: {count} rows"
            )
        budgets = {
            "trade_off": trade_off,
            "max_exit": max_exit,
            "deadline_macs": deadline_macs,
            "deadline_us": deadline_us,
        }
        if any(value is not None for value in budgets.values()):
            arrays.update(self._budget_arrays(budget(self._budget_entries(), count, **budgets)))
        else:
            arrays.update(self.default_budgets(count))
        outputs: list[dict[str, Array]] = []
        macs: list[float] = []
        for start in range(0, count, size):
            self._session.start_count()
            one = self._signature(**{name: array[start : start + size] for name, array in arrays.items()})
            outputs.append(one)
            macs += [self._executed(one, size)] * size
        merged = {name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]}
        added = {name: merged.pop(name) for name in self._own}
        return Result(merged, added.get("exit_index"), np.asarray(macs, "float64"))

    def default_budgets(self, count: int) -> dict[str, Array]:
        """What the inputs for budgets get where none is given, `[count]` each; empty for a file without them."""
        return self._budget_arrays(budget(self.metadata, count)) if self._budget_inputs else {}

    def _budget_entries(self) -> dict[str, Any]:
        """The metadata that a budget is read from; none where the file has no inputs for it."""
        return self.metadata if self._budget_inputs else {}

    def _budget_arrays(self, found: Budget) -> dict[str, Array]:
        values = {"trade_off": found.trade_off, "max_exit": found.max_exit}
        return {name: value for name in self._budget_inputs if (value := values[name]) is not None}

    def _executed(self, outputs: dict[str, Array], samples: int) -> float:
        """Multiply-adds per sample of the call that just ended."""
        if "macs" in self._own:
            builtin, dense_ops = outputs["macs"]
        elif "exit_index" in self._own and "stages" in self.metadata:
            ran = self.metadata["stages"][: int(outputs["exit_index"][0]) + 1]
            builtin = sum(stage["macs"]["builtin"] + stage["policy_macs"] for stage in ran)
            dense_ops = sum(stage["macs"]["ops"] for stage in ran)
        else:
            known = self.metadata.get("macs", {})
            builtin, dense_ops = known.get("builtin", 0.0), known.get("ops", 0.0)
        return self._session.executed_macs(builtin, dense_ops, samples)
