"""Running a staged file: stage, policy, next stage, decided on the host, as an Android or Coral program does it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient.tflite_export.budgets import budget
from keras_efficient.tflite_export.inputs import checked_inputs
from keras_efficient.tflite_export.runner import Result
from keras_efficient.tflite_export.session import Session

Array = NDArray[Any]


class StagedRunner:
    """A loaded staged file, called like a `Runner`; see `load`.

    For each input,

        for k in 0..K-1:
            run stage_k on what the stage before left
            leave if k >= max_exit, or if k < K-1 and policy_k gives a score above 0

    A runner belongs to one thread at a time; load one per thread.
    """

    def __init__(self, session: Session):
        self._session = session
        self.interpreter = session.interpreter
        self.metadata = session.metadata
        exits = len(self.metadata["exits"])
        self._stages = [self.interpreter.get_signature_runner(f"stage_{k}") for k in range(exits)]
        self._policies = [self.interpreter.get_signature_runner(f"policy_{k}") for k in range(exits - 1)]
        self._policy_inputs = [set(policy.get_input_details()) for policy in self._policies]
        self._stage_inputs = [set(stage.get_input_details()) for stage in self._stages]
        self._inputs = self._stages[0].get_input_details()

    @property
    def num_exits(self) -> int:
        """Number of exits, the end of the network included."""
        return len(self._stages)

    @property
    def delegated_ops(self) -> int:
        """How many ops our kernels took over."""
        return self._session.delegated_ops

    @property
    def batch_size(self) -> int:
        """Rows that the file takes at a time."""
        return 1

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes by input name of the first stage."""
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
        """Runs a batch `[N, ...]` input by input. Arguments, result and errors as for `Runner`."""
        arrays = checked_inputs(x, inputs, self._inputs)
        count = len(next(iter(arrays.values())))
        budgets = budget(
            self.metadata,
            count,
            trade_off=trade_off,
            max_exit=max_exit,
            deadline_macs=deadline_macs,
            deadline_us=deadline_us,
        )
        logits, exits, macs = [], [], []
        for i in range(count):
            one = {name: array[i : i + 1] for name, array in arrays.items()}
            trade_off = None if budgets.trade_off is None else budgets.trade_off[i : i + 1]
            output, exit_index, executed = self._run(one, trade_off, int(budgets.max_exit[i]))
            logits.append(output)
            exits.append(exit_index)
            macs.append(executed)
        outputs = {"output": np.concatenate(logits)}
        return Result(outputs, np.asarray(exits, "int32"), np.asarray(macs, "float64"))

    def _run(self, carry: dict[str, Array], trade_off: Array | None, max_exit: int) -> tuple[Array, int, float]:
        """Logits `[1, n]`, exit and multiply-adds of one input."""
        self._session.start_count()
        builtin, own = 0.0, 0.0
        for k, stage in enumerate(self._stages):
            outputs = stage(**carry)
            said = self.metadata["stages"][k]
            here = outputs["macs"] if said["branches"] else (said["macs"]["builtin"], said["macs"]["ops"])
            builtin, own = builtin + float(here[0]), own + float(here[1])
            if k >= max_exit or k + 1 == self.num_exits:
                break
            builtin += said["policy_macs"]
            if self._score(k, outputs, trade_off) > 0:
                break
            carry = {name: outputs[name] for name in self._stage_inputs[k + 1]}
        return outputs["output"], k, self._session.executed_macs(builtin, own)

    def _score(self, k: int, outputs: dict[str, Array], trade_off: Array | None) -> float:
        offered = {**outputs, "trade_off": trade_off}
        scored = self._policies[k](**{name: offered[name] for name in self._policy_inputs[k]})
        return float(scored["score"][0])
