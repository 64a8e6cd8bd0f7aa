"""A network run stage by stage, on batches that are filled up from the inputs that stay."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

Tensor = Any
Arrays = dict[str, Any]
Network = Any  # MultiExit, which is built on this module
CHUNK_BATCHES = 16  # batches whose features are in memory at a time


class _Stage(keras.Model):
    """One stage and its label unit: what `predict_on_batch` compiles, on every backend."""

    def __init__(self, network: Network, k: int) -> None:
        super().__init__(name=f"stage_{k + 1}_of_{network.name}")
        self.network = network
        self.k = k
        self.built = True

    def call(self, carry: dict[str, Tensor]) -> dict[str, Tensor]:
        carry, logits = self.network.run_stage(self.k, carry, training=False)
        return {"output": logits} if self.k + 1 == self.network.num_exits else {"output": logits, **carry}


class StagedPrediction:
    """Runs a network stage by stage on batches of a fixed size, which are filled up from the inputs that stay.

    Stages are compiled once for a network. Policies, which come and go, are not part of them.

    Args:
        network: The network.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.stages = [_Stage(network, k) for k in range(network.num_exits)]
        self.all_exits = _AllExits(network)

    def run(
        self,
        policy: keras.layers.Layer,
        x: Any,
        batch_size: int,
        trade_off: NDArray[np.float32] | None,
        max_exit: NDArray[np.int64],
        bar: Any,
    ) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """The logits `[N, n]` of the exit taken and its index `[N]`, for arrays `x` of `N` rows."""
        count = len(keras.tree.flatten(x)[0])
        logits: list[NDArray[Any]] = []
        taken = np.zeros(count, "int32")
        for rows in _chunks(count, CHUNK_BATCHES * batch_size):
            carry: Arrays = {"features": keras.tree.map_structure(lambda array, at=rows: np.asarray(array)[at], x)}
            prices = None if trade_off is None else trade_off[rows]
            left, exits = self._run_chunk(policy, carry, batch_size, prices, max_exit[rows])
            logits.append(left)
            taken[rows] = exits
            if bar is not None:
                bar.update(rows.stop)
        return np.concatenate(logits), taken

    def _run_chunk(
        self,
        policy: keras.layers.Layer,
        carry: Arrays,
        batch_size: int,
        trade_off: NDArray[np.float32] | None,
        max_exit: NDArray[np.int64],
    ) -> tuple[NDArray[Any], NDArray[np.int32]]:
        running = np.arange(len(max_exit))
        logits: NDArray[Any] | None = None
        taken = np.zeros(len(max_exit), "int32")
        for k, stage in enumerate(self.stages):
            carry = _in_batches(stage, carry, len(running), batch_size)
            output = carry.pop("output")
            leaves = max_exit[running] <= k
            if k + 1 < len(self.stages):
                price = None if trade_off is None else trade_off[running]
                score = self.network.exit_score(k, ops.convert_to_tensor(output), carry, price, policy)
                leaves |= ops.convert_to_numpy(score) > 0
            if logits is None:
                logits = np.zeros((len(max_exit), output.shape[-1]), output.dtype)
            logits[running[leaves]] = output[leaves]
            taken[running[leaves]] = k
            running = running[~leaves]
            if not len(running):
                break
            carry = {name: array[~leaves] for name, array in carry.items()}
        assert logits is not None
        return logits, taken


def _chunks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _in_batches(stage: _Stage, carry: Arrays, count: int, batch_size: int) -> dict[str, NDArray[Any]]:
    """The stage on all rows of `carry`, in batches of one size: the last one is filled up, so nothing compiles anew."""
    pieces: list[dict[str, Any]] = []
    for rows in _chunks(count, batch_size):
        missing = batch_size - (rows.stop - rows.start)

        def batch(array: NDArray[Any], rows: slice = rows, missing: int = missing) -> NDArray[Any]:
            part = array[rows]
            return np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part

        found = stage.predict_on_batch(keras.tree.map_structure(batch, carry))
        pieces.append({name: array[: rows.stop - rows.start] for name, array in found.items()})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


class _AllExits(keras.Model):
    """Logits and running summaries of every exit, `{"exit_k": [B, n], "summary_k": [B, S]}`, nothing skipped."""

    def __init__(self, network: Network) -> None:
        super().__init__(name=f"all_exits_of_{network.name}")
        self.network = network
        self.built = True

    def call(self, inputs: Any) -> dict[str, Tensor]:
        found = {}
        carry = {"features": inputs}
        for k in range(self.network.num_exits):
            carry, logits = self.network.run_stage(k, carry, training=False)
            found[f"exit_{k + 1}"] = logits
            if "summary" in carry:
                found[f"summary_{k + 1}"] = carry["summary"]
        return found


def is_arrays(x: Any) -> bool:
    """Whether `x` is one array or a structure of arrays, not a data set that yields batches."""
    return all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in keras.tree.flatten(x))


def inputs_of(batches: Any, steps: int | None) -> Iterator[Any]:
    """The inputs of the first `steps` batches of a data set whose batches may hold labels, too."""
    if isinstance(batches, keras.utils.PyDataset):
        source: Any = (batches[index] for index in range(len(batches)))
    else:
        source = batches
    for batch in itertools.islice(source, steps):
        yield keras.tree.map_structure(ops.convert_to_numpy, batch[0] if isinstance(batch, tuple) else batch)
