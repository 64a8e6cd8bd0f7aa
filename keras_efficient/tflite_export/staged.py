"""A multi-exit network as signatures of its stages and policies: the host runs them one by one and decides.

`stage_0` takes the model's inputs, every later stage the `features` that the stage before gave, and the running
`summary` where the exits have one (not the last stage, which has no exit unit behind it); `output` is the logits of the
exit behind the stage. `policy_k` takes `output` (and `summary`, `trade_off`, where the policy reads them) and gives
`score`; an input leaves where it is above 0.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_efficient import cost, ops
from keras_efficient.cost.inputs import zero_inputs
from keras_efficient.layers.exit_features import EXIT_FEATURES
from keras_efficient.tflite_export.signatures import InputSpec, Signature, model_inputs

Tensor = Any


def check_staged(model: Any, batch_size: int | None) -> None:
    """Raises a `ValueError` of one sentence unless the model has stages, exits and a policy."""
    if not hasattr(model, "run_stage"):
        raise ValueError(
            "Invalid value for argument `staged`. Expected False for a model without exits; `models.MultiExit` has "
            f"stages. Received: True for {model.name!r} of {type(model).__name__}"
        )
    if model.policy is None:
        raise ValueError(
            "Invalid value for argument `staged`. Expected a model with an exit policy, which decides between the "
            "stages. Received: True for a model whose `policy` is None"
        )
    if batch_size != 1:
        raise ValueError(
            "Invalid value for argument `batch_size`. Expected 1 for staged files, whose inputs leave one by one. "
            f"Received: {batch_size!r}"
        )


def stage_signatures(model: Any, specs: Sequence[InputSpec], skips: bool = True) -> list[Signature]:
    """`stage_0` to `stage_{K-1}` of a `MultiExit`.

    Args:
        model: The network.
        specs: Its inputs with the batch size in front.
        skips: Whether layer gates inside the stages become branches.
    """
    carried = carry_specs(model)
    made = []
    for k in range(model.num_exits):
        stage_inputs = tuple(specs) if k == 0 else carried[k - 1]
        if k + 1 == model.num_exits and k > 0:  # no exit unit behind it that would read a summary
            stage_inputs = tuple(spec for spec in stage_inputs if spec.name == "features")
        made.append(Signature(f"stage_{k}", stage_inputs, _stage(model, k, stage_inputs), skips))
    return made


def policy_signatures(model: Any) -> list[Signature]:
    """`policy_0` to `policy_{K-2}` of a `MultiExit` with a policy."""
    classes = model.exits[0].num_classes
    carried = carry_specs(model)
    made = []
    for k in range(model.num_exits - 1):
        inputs = [InputSpec("output", (1, classes), "float32")]
        if model.policy.num_features > len(EXIT_FEATURES):
            inputs += [spec for spec in carried[k] if spec.name == "summary"]
        if model.policy.takes_trade_off:
            inputs.append(InputSpec("trade_off", (1,), "float32"))
        made.append(Signature(f"policy_{k}", tuple(inputs), _policy(model, k, tuple(inputs))))
    return made


def carry_specs(model: Any) -> list[tuple[InputSpec, ...]]:
    """What each stage but the last hands on, for a batch of one.

    Raises:
        ValueError: If a stage gives several tensors.
    """
    carry: dict[str, Tensor] = {
        "features": keras.tree.map_structure(keras.ops.convert_to_tensor, zero_inputs(model, 1))
    }
    found = []
    for k in range(model.num_exits - 1):
        carry, _ = model.run_stage(k, carry, training=False)
        if not keras.ops.is_tensor(carry["features"]):
            raise ValueError(
                "Invalid value for argument `model`. Expected stages that give one tensor each. "
                f"Received: stage {k} with {len(keras.tree.flatten(carry['features']))}"
            )
        found.append(
            tuple(
                InputSpec(name, tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype))
                for name, tensor in carry.items()
            )
        )
    return found


@dataclasses.dataclass(frozen=True)
class StageCost:
    """Multiply-adds of one stage and of the policy behind it, everything open.

    Attributes:
        builtin: Of builtin ops, the label unit's included.
        ops: Of ops of ours.
        policy: Of the policy's decision behind the stage.
        branches: Whether layer gates inside make it cost less for some inputs.
    """

    builtin: float
    ops: float
    policy: float
    branches: bool

    @property
    def macs(self) -> float:
        """All of them."""
        return self.builtin + self.ops + self.policy

    def entry(self) -> dict[str, Any]:
        """What the metadata says of it."""
        macs = {"builtin": self.builtin, "ops": self.ops}
        return {"macs": macs, "branches": self.branches, "policy_macs": self.policy}


def stage_costs(model: Any, passing: bool = False) -> list[StageCost]:
    """The cost of each stage of a `MultiExit` with a policy.

    Args:
        model: The network.
        passing: Whether exits at which the policy never leaves are passed by, without label unit and decision.
    """
    carry = {"features": keras.tree.map_structure(keras.ops.convert_to_tensor, zero_inputs(model, 1))}
    found = []
    for k in range(model.num_exits):
        passed = passing and model.passes_by(k)

        def run(k: int = k, carry: dict[str, Tensor] = carry, passed: bool = passed) -> tuple[dict[str, Tensor], Any]:
            return (model.pass_stage(k, carry), None) if passed else model.run_stage(k, carry, training=False)

        with ops.skipping(), cost.counting(model) as taken:
            run()
        with cost.counting(model) as events:
            carry, logits = run()
        with cost.counting(model) as decision:
            if k + 1 < model.num_exits and not passed:
                model.exit_score(k, logits, carry)
        sums = [float(sum(event.dense for event in events if event.by_op is kind)) for kind in (False, True)]
        policy = float(sum(event.dense for event in decision))
        found.append(StageCost(sums[0], sums[1], policy, any(event.name == "branch" for event in taken)))
    return found


def _stage(model: Any, k: int, specs: tuple[InputSpec, ...]) -> Any:
    def run(*tensors: Tensor) -> dict[str, Tensor]:
        if k == 0:
            carry = {"features": model_inputs(model, specs, tensors)}
        else:
            carry = {spec.name: tensor for spec, tensor in zip(specs, tensors, strict=True)}
        carry, logits = model.run_stage(k, carry, training=False)
        logits = keras.ops.cast(logits, "float32")
        return {"output": logits} if k + 1 == model.num_exits else {"output": logits, **carry}

    return run


def _policy(model: Any, k: int, specs: tuple[InputSpec, ...]) -> Any:
    def run(*tensors: Tensor) -> dict[str, Tensor]:
        given = {spec.name: tensor for spec, tensor in zip(specs, tensors, strict=True)}
        carry = {"summary": given["summary"]} if "summary" in given else {}
        return {"score": model.exit_score(k, given["output"], carry, given.get("trade_off"))}

    return run


def sample_trade_offs(policy: Any, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """`[count]` trade-offs that cover the policy's range, for verification."""
    low, high = policy.trade_off_range
    return np.resize(np.asarray([policy.default_trade_off, low, high], "float32"), count)
