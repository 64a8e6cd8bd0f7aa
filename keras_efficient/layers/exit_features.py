"""What an exit policy sees: four numbers made from the logits of one exit.

There is one definition, used when a policy is tuned, when a model predicts and when it is exported.
"""

import math
from typing import Any

from keras import ops

EXIT_FEATURES = ("confidence", "entropy", "margin", "depth")
"""Names of the columns of `exit_features`, in order."""


def exit_features(logits: Any, exit_index: int, num_exits: int) -> Any:
    """Features of the decision to leave a network at one of its exits.

    With `p = softmax(logits)` over `n` classes, the columns are

    1. `confidence`: the largest probability, `p_(1)`;
    2. `entropy`: `-sum p log p / log n`, between 0 (sure) and 1 (uniform);
    3. `margin`: `p_(1) - p_(2)`, the largest minus the second largest probability;
    4. `depth`: `(exit_index + 1) / num_exits`.

    They are the controller's inputs of an EPNet-style multi-exit network (Dai, Kong and Guo, CIKM 2020).
    Computed in float32 whatever the dtype of the logits, since decisions compare close numbers.

    Args:
        logits: Tensor `[B, n]`, scores before the softmax, `n >= 2`.
        exit_index: Python integer, 0 for the first exit.
        num_exits: Number of exits of the network.

    Returns:
        Float32 tensor `[B, 4]`.

    Raises:
        ValueError: If `logits` does not have two axes with at least two classes, or if `exit_index` is not in
            `[0, num_exits)`.
    """
    shape = tuple(logits.shape)
    if len(shape) != 2 or shape[1] is None or shape[1] < 2:
        raise ValueError(
            "Invalid value for argument `logits`. Expected shape [batch, classes] with at least two classes. "
            f"Received: shape {shape}"
        )
    if not 0 <= exit_index < num_exits:
        raise ValueError(
            f"Invalid value for argument `exit_index`. Expected an integer in [0, {num_exits}). Received: {exit_index}"
        )
    # Written out: in int8 files the converter gives what SOFTMAX returns 8 bits, too few for decisions near 1.
    values = ops.cast(logits, "float32")
    largest = ops.max(values, axis=-1, keepdims=True)
    shifted = values - largest
    exponentials = ops.exp(shifted)
    total = ops.sum(exponentials, axis=-1, keepdims=True)
    confidence = ops.reciprocal(total)
    margin = confidence * (1.0 - ops.exp(ops.top_k(values, 2)[0][:, 1:2] - largest))
    surprise = ops.log(total) - ops.sum(exponentials * shifted, axis=-1, keepdims=True) * confidence
    entropy = surprise * (1.0 / math.log(shape[1]))
    depth = ops.full_like(confidence, (exit_index + 1) / num_exits)
    return ops.concatenate([confidence, entropy, margin, depth], axis=-1)
