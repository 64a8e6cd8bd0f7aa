"""`ExitChain` as a batched TF-Agents environment."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from .exit_chain import ExitChain


class ExitEnvironment(py_environment.PyEnvironment):
    """Each place of the batch starts a new episode by itself in the step after its last one."""

    def __init__(self, chain: ExitChain) -> None:
        super().__init__()
        self._chain = chain

    @property
    def batched(self) -> bool:
        return True

    @property
    def batch_size(self) -> int:
        return self._chain.batch_size

    def observation_spec(self) -> Any:
        return array_spec.ArraySpec(self._chain.observed().shape[1:], np.float32, name="observation")

    def action_spec(self) -> Any:
        return array_spec.BoundedArraySpec((), np.int32, minimum=0, maximum=1, name="action")

    def should_reset(self, current_time_step: Any) -> bool:
        return False  # `_step` resets place by place

    def _reset(self) -> Any:
        return self._first(self._chain.reset())

    def _step(self, action: NDArray[Any]) -> Any:
        starts = self._chain.over.copy()
        observation, reward, over = self._chain.step(action)
        if starts.any():
            observation = self._chain.reset(starts)
            over = self._chain.over
        step_type = np.where(over, ts.StepType.LAST, ts.StepType.MID)
        step_type = np.where(starts, ts.StepType.FIRST, step_type).astype(np.int32)
        discount = np.where(over, 0, 1).astype(np.float32)
        return ts.TimeStep(step_type, reward, discount, observation)

    def _first(self, observation: NDArray[np.float32]) -> Any:
        size = self._chain.batch_size
        return ts.TimeStep(
            np.full(size, ts.StepType.FIRST, np.int32),
            np.zeros(size, np.float32),
            np.ones(size, np.float32),
            observation,
        )
