"""What an export writes and how it is verified: one network with branches, or its stages one by one."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_efficient.tflite_export import staged, verify, verify_staged
from keras_efficient.tflite_export.runner import Runner
from keras_efficient.tflite_export.session import Session
from keras_efficient.tflite_export.signatures import InputSpec, Signature, call_model
from keras_efficient.tflite_export.trace import reference_function

Array = NDArray[Any]
Tensor = Any


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one export writes.

    Attributes:
        signatures: What to trace.
        staged: Whether they are the stages and policies of a network.
        budget_inputs: Whether the signature takes a trade-off and a cap.
        compare: Runs the finished file and Keras on the same inputs.
    """

    signatures: list[Signature]
    staged: bool
    budget_inputs: bool
    compare: Callable[[Session, dict[str, Array]], verify.Parity]


def whole(model: keras.Model, specs: Sequence[InputSpec], key: str, budget_inputs: bool | None) -> Plan:
    """One signature: the model's own inference, with the budgets as further inputs where asked for."""
    policy = getattr(model, "policy", None)
    with_budgets = bool(getattr(policy, "takes_trade_off", False) if budget_inputs is None else budget_inputs)
    budgets = _budget_specs(policy) if with_budgets else []
    clash = {spec.name for spec in specs} & {spec.name for spec in budgets}
    if clash:
        raise ValueError(
            "Invalid value for argument `budget_inputs`. Expected a model without an input called "
            f"{sorted(clash)[0]!r}. Received: inputs {[spec.name for spec in specs]}"
        )

    def serve(*tensors: Tensor) -> dict[str, Tensor]:
        further = {spec.name: tensor for spec, tensor in zip(budgets, tensors[len(specs) :], strict=True)}
        return call_model(model, specs, tensors[: len(specs)], **further)

    signature = Signature(key, (*specs, *budgets), serve, known_macs=_known_macs(model, passing=not with_budgets))

    def compare(session: Session, inputs: dict[str, Array]) -> verify.Parity:
        count = len(next(iter(inputs.values())))
        further: dict[str, Array] = {}
        if with_budgets:
            # The last exit for half of the inputs, each exit in turn for the others.
            exits = len(session.metadata["exits"])
            caps = np.where(np.arange(count) % 2, np.arange(count) // 2 % exits, exits - 1)
            further["max_exit"] = caps.astype("int32")
            if policy is not None and policy.takes_trade_off:
                further["trade_off"] = staged.sample_trade_offs(policy, count)
        return verify.compare(reference_function(signature), Runner(session), {**inputs, **further})

    return Plan([signature], False, with_budgets, compare)


def stages(model: keras.Model, specs: Sequence[InputSpec]) -> Plan:
    """A signature per stage and per policy."""
    parts = staged.stage_signatures(model, specs)
    policies = staged.policy_signatures(model)

    def compare(session: Session, inputs: dict[str, Array]) -> verify.Parity:
        count = len(next(iter(inputs.values())))
        trade_offs = staged.sample_trade_offs(model.policy, count) if model.policy.takes_trade_off else None
        return verify_staged.compare_signatures(parts, policies, session, inputs, trade_offs)

    return Plan([*parts, *policies], True, False, compare)


def _known_macs(model: Any, passing: bool) -> tuple[float, float] | None:
    """What a network that branches at its exits and nowhere else costs when it leaves at the last one."""
    if not hasattr(model, "run_stage") or model.policy is None:
        return None
    costs = staged.stage_costs(model, passing)
    if any(stage.branches for stage in costs):
        return None
    return sum(stage.builtin + stage.policy for stage in costs), sum(stage.ops for stage in costs)


def _budget_specs(policy: Any) -> list[InputSpec]:
    trade_off = [InputSpec("trade_off", (1,), "float32")] if policy.takes_trade_off else []
    return [*trade_off, InputSpec("max_exit", (1,), "int32")]
