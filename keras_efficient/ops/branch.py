"""The one conditional of the package: `keras.ops.cond`, with the costs of the branch that ran brought out of it."""

from collections.abc import Callable
from typing import Any

import keras

from keras_efficient.ops import context

Tensor = Any


def branch(predicate: Tensor, when_true: Callable[[], Any], when_false: Callable[[], Any]) -> Any:
    """`when_true()` or `when_false()`, of which only one runs; both return the same structure of tensors.

    Args:
        predicate: Boolean scalar tensor.

    Under `recording()` each branch's multiply-adds come out as one event: `dense` is that of `when_true` and
    `when_false` together, `executed` (`[1]`) that of the branch taken. Without it this is `keras.ops.cond`.
    """
    if not context.is_recording():
        return keras.ops.cond(predicate, when_true, when_false)
    dense = [0.0, 0.0]

    def counted(function: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with context.recording() as events:
                result = function()
            sums = [
                sum((keras.ops.sum(e.executed) for e in events if e.by_op is kind), keras.ops.zeros((1,)))
                for kind in (False, True)
            ]
            for event in events:
                dense[event.by_op] += event.dense
            return result, sums

        return run

    result, macs = keras.ops.cond(predicate, counted(when_true), counted(when_false))
    for kind in (False, True):
        context.record("branch", dense[kind], macs[kind], by_op=kind)
    return result
