"""How probable each exit's answer is, when the label is judged by all exits together."""

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1024  # inputs at a time, which bounds the memory of many classes
_PRIOR = 1.0  # inputs' worth of belief in the last exit alone
_STEPS = 30

Array = NDArray[np.float64]


def expected_correct(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Array:
    """The probability that each exit is right, as far as the logits of all exits tell.

    The label's distribution is a logarithmic opinion pool of the exits, `log p(c) = sum_k w_k log p_kc - log Z`
    (in the manner of Heskes, 1998), whose `K` weights maximise the likelihood of the labels. Where that is calibrated,
    its probability of exit `k`'s answer has, given anything that exit `k` shows, the same mean as whether the exit is
    right, and much less variance: the chance in the single label is gone.

    Args:
        logits: `[N, K, C]`.
        labels: `[N]` integers in `[0, C)`.

    Returns:
        `[N, K]` probabilities.
    """
    weights = _pool_weights(logits, labels)
    answers = logits.argmax(axis=-1)
    chunks = range(0, len(labels), _CHUNK)
    parts = [_pooled(_log_softmax(logits[start : start + _CHUNK]), weights)[1] for start in chunks]
    return np.take_along_axis(np.concatenate(parts), answers, axis=1)


def _pool_weights(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Array:
    """`[K]`, by Newton's method: the negative log-likelihood is convex in them."""
    prior = np.zeros(logits.shape[1])
    prior[-1] = 1.0
    weights = prior
    loss, gradient, curvature = _likelihood(logits, labels, weights, prior)
    for _ in range(_STEPS):
        step = np.linalg.solve(curvature, gradient)
        share = 1.0
        while share > 1e-4:
            tried = weights - share * step
            found = _likelihood(logits, labels, tried, prior)
            if found[0] <= loss:
                break
            share /= 2
        else:
            break
        gained = loss - found[0]
        weights, (loss, gradient, curvature) = tried, found
        if gained < 1e-9 * len(labels):
            break
    return weights


def _likelihood(
    logits: NDArray[np.float32], labels: NDArray[np.int64], weights: Array, prior: Array
) -> tuple[float, Array, Array]:
    """Negative log-likelihood with its Gaussian prior, its gradient `[K]` and its second derivative `[K, K]`."""
    away = weights - prior
    loss, gradient, curvature = _PRIOR * float(away @ away) / 2, _PRIOR * away, _PRIOR * np.eye(len(weights))
    for start in range(0, len(labels), _CHUNK):
        logs = _log_softmax(logits[start : start + _CHUNK])
        known = labels[start : start + _CHUNK]
        log_pool, pool = _pooled(logs, weights)
        each = np.arange(len(known))
        mean = np.einsum("nkc,nc->nk", logs, pool)
        loss -= float(log_pool[each, known].sum())
        gradient = gradient - (logs[each, :, known] - mean).sum(axis=0)
        spread = (logs - mean[:, :, None]) * np.sqrt(pool)[:, None]
        flat = np.moveaxis(spread, 1, 0).reshape(len(weights), -1)
        curvature = curvature + flat @ flat.T
    return loss, gradient, curvature


def _pooled(logs: Array, weights: Array) -> tuple[Array, Array]:
    """Logarithm of the pool and the pool, `[N, C]`."""
    log_pool = _log_softmax(np.einsum("nkc,k->nc", logs, weights))
    return log_pool, np.exp(log_pool)


def _log_softmax(logits: NDArray[np.floating]) -> Array:
    high = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return high - np.log(np.exp(high).sum(axis=-1, keepdims=True))
