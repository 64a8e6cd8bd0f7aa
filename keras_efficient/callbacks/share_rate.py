"""Decisions of tasks that arrive at a given share rate, changed as little as can be."""

from collections.abc import Sequence

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient.layers.filter_sharing import FilterSharing
from keras_efficient.layers.filter_sharing_decisions import share_rate

Sources = NDArray[np.int64]


def meet_share_rate(layers: Sequence[FilterSharing], target: float) -> None:
    """Turns the decisions that are nearest to undecided, so that the share rate is just not below `target`; hardens.

    Where too much is shared, tasks go over to filters of their own; where too little, to the filter that the tasks like
    best in that slot (in a pool the shared one). All layers are taken together; decisions that are equal turn in the
    order of layers, tasks and slots. Those of frozen tasks stay, so the rate may not get down to the target.
    """
    layers = [layer for layer in layers if layer.logits is not None]
    if not layers:
        return
    tasks, decided = layers[0].num_tasks, [layer.sources() for layer in layers]
    single = sum(layer.parameters_per_slot * layer.slots for layer in layers)

    def rate(sources: Sequence[Sources]) -> float:
        stored = sum(
            layer.parameters_per_slot * _distinct(found, layer.num_sources)
            for layer, found in zip(layers, sources, strict=True)
        )
        return float(share_rate(stored / single, tasks))

    shares_enough = rate(decided) >= target
    wanted = [layer.own_sources() if shares_enough else _liked(layer) for layer in layers]
    costs = np.concatenate([_cost(*each).ravel() for each in zip(layers, decided, wanted, strict=True)])
    rank = np.empty(len(costs), "int64")
    rank[np.argsort(costs, kind="stable")] = np.arange(len(costs))
    parts = np.cumsum([found.size for found in decided])[:-1]

    def turned(count: int) -> list[Sources]:
        chosen = np.split(rank < count, parts)
        return [
            np.where(flags.reshape(found.shape), goal, found)
            for flags, found, goal in zip(chosen, decided, wanted, strict=True)
        ]

    low, high = 0, int(np.isfinite(costs).sum()) + 1  # `low` may turn; for `high` it is too many, or just enough
    while high - low > 1:
        middle = (low + high) // 2
        keeps_on = (rate(turned(middle)) >= target) == shares_enough
        low, high = (middle, high) if keeps_on else (low, middle)
    for layer, found in zip(layers, turned(low if shares_enough else high), strict=True):
        layer.set_sources(found)


def _liked(layer: FilterSharing) -> Sources:
    """`[tasks, slots]`, in each slot the filter that most of the tasks' scores are for."""
    if layer.sharing == "pool":
        return np.zeros((layer.num_tasks, layer.slots), "int64")
    scores = np.exp(ops.convert_to_numpy(layer.logits))
    liked = (scores / scores.sum(axis=1, keepdims=True)).sum(axis=0)
    for row in layer.sources()[: layer.frozen_tasks]:  # filters that are stored anyway
        liked[row, np.arange(layer.slots)] += 1.0
    return np.repeat(liked.argmax(axis=0)[None], layer.num_tasks, axis=0)


def _cost(layer: FilterSharing, decided: Sources, wanted: Sources) -> NDArray[np.float64]:
    """`[tasks, slots]`, by how much a decision stands against what is wanted; infinite where it cannot turn to it."""
    learned = ops.convert_to_numpy(layer.logits)
    if layer.sharing == "pool":
        against = np.where(decided[layer.frozen_tasks :] == 0, learned, -learned)
    else:
        rows = slice(layer.frozen_tasks, None)
        score = [np.take_along_axis(learned, found[rows][:, None], axis=1)[:, 0] for found in (decided, wanted)]
        against = score[0] - score[1]
    fixed = np.full((layer.frozen_tasks, layer.slots), np.inf)
    return np.where(decided == wanted, np.inf, np.concatenate([fixed, against]))


def _distinct(sources: Sources, count: int) -> int:
    """How many filters are in use, over all slots."""
    return int((sources[:, None] == np.arange(count)[:, None]).any(axis=0).sum())
