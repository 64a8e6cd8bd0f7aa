"""The pure mathematics of filter sharing: which stored filter each task uses in a slot, and how gradients pass it.

A *slot* is an output channel, a *source* a stored filter that may fill it. Every function takes probabilities or scores
of sources and works on any number of slots.
"""

from typing import Any

from keras import ops

Tensor = Any
LARGEST_LOGIT = 6.0  # a logit further out has no gradient left in float32


def share_probability(logits: Tensor) -> Tensor:
    """`sigmoid(a)` with `a` kept in [-6, 6], where it still has a gradient."""
    return ops.sigmoid(ops.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT))


def sampled_share(logits: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
    """Straight-through binary concrete decisions: 1 where a slot is shared, else 0.

        y = sigmoid((a + log u - log(1 - u)) / temperature),   m = 1[y > 1/2], with the gradient of y

    Args:
        logits: `a`, any shape.
        noise: `u`, uniform in (0, 1), of the same shape.
        temperature: Above 0; at most 1 for decisions that converge.

    Reference: Maddison et al., "The Concrete Distribution", ICLR 2017; Jang et al., "Categorical Reparameterization
    with Gumbel-Softmax", ICLR 2017.
    """
    logits = ops.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT)
    soft = ops.sigmoid((logits + ops.log(noise) - ops.log(1.0 - noise)) / temperature)
    return _straight_through(ops.cast(soft > 0.5, soft.dtype), soft)


def sampled_source(logits: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
    """Straight-through Gumbel-softmax over the sources: exactly one of them is 1 in each slot.

    Args:
        logits: Scores `[..., sources, slots]`.
        noise: Uniform in (0, 1), of the same shape.
        temperature: Above 0.
    """
    gumbel = -ops.log(-ops.log(noise))
    soft = ops.softmax((ops.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT) + gumbel) / temperature, axis=-2)
    return _straight_through(best_source(soft), soft)


def best_source(scores: Tensor) -> Tensor:
    """One-hot over the sources of scores `[..., sources, slots]`, the first of equals where they tie."""
    chosen = ops.one_hot(ops.argmax(scores, axis=-2), scores.shape[-2], dtype="float32")
    return ops.stop_gradient(ops.swapaxes(chosen, -1, -2))


def filters_per_slot(selected: Tensor) -> Tensor:
    """How many different filters a layer stores, a mean over its slots.

        E = mean_j sum_s (1 - prod_t (1 - z[t, s, j]))

    Args:
        selected: `[tasks, sources, slots]`, 1 where task `t` fills slot `j` with source `s`, or the probability of it;
            sums to 1 over sources.

    Returns:
        Scalar in [1, tasks]; the expected number where decisions are drawn independently.
    """
    unused = ops.prod(1.0 - selected, axis=0)
    return ops.mean(ops.sum(1.0 - unused, axis=0))


def share_rate(filters: Tensor, tasks: int) -> Tensor:
    """`(T - E) / (T - 1)`: 1 where all tasks use the same filters, 0 where each has its own; 1 for a single task."""
    return (tasks - filters) / (tasks - 1) if tasks > 1 else ops.ones_like(filters)


def _straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The number `hard`, exactly, with the gradient of `soft`."""
    return ops.stop_gradient(hard) + (soft - ops.stop_gradient(soft))
