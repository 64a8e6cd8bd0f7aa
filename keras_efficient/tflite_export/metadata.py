"""What a file says of itself: one JSON object in the metadata buffer `keras_efficient`."""

import json
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

import keras_efficient
from keras_efficient.tflite_export import flatbuffer
from keras_efficient.tflite_export.staged import stage_costs

if TYPE_CHECKING:
    from keras_efficient.tflite_export.trace import Trace

NAME = "keras_efficient"
FORMAT = 1


def encode(entries: dict[str, Any]) -> bytes:
    """The JSON object, with the format and this package's version in front."""
    whole = {"format": FORMAT, "version": keras_efficient.__version__, **entries}
    return json.dumps(whole, separators=(",", ":")).encode()


def read(model: Any) -> dict[str, Any]:
    """The metadata of a parsed file; an empty dictionary for files of somebody else.

    Raises:
        ValueError: If the metadata is no JSON object, or newer than this package understands.
    """
    content = flatbuffer.get_metadata(model, NAME)
    if content is None:
        return {}
    try:
        entries = json.loads(content)
    except ValueError as error:
        raise ValueError(f"Invalid metadata {NAME!r} in the .tflite file. Expected a JSON object: {error}") from error
    if not isinstance(entries, dict) or int(entries.get("format", 0)) > FORMAT:
        raise ValueError(
            f"Invalid metadata {NAME!r}. Expected a JSON object of format {FORMAT} or older. Received: {entries!r:.200}"
        )
    return entries


def network_entries(model: keras.Model, traced: "Trace", *, staged: bool, budget_inputs: bool) -> dict[str, Any]:
    """What the metadata says of the network: multiply-adds, branches, exits, stages, budgets."""
    entries: dict[str, Any] = {"branches": traced.branches, "macs": macs_entry(traced.dense_macs)}
    if not (staged or any("exit_index" in part.outputs for part in traced.parts.values())):
        return entries
    policy = model.policy
    costs = stage_costs(model, passing=not (staged or budget_inputs))
    entries["exits"] = [{"macs": float(macs)} for macs in np.cumsum([stage.macs for stage in costs])]
    entries["stages"] = [stage.entry() for stage in costs]
    if staged:
        entries["staged"] = True
    if budget_inputs:
        entries["budget_inputs"] = True
    if policy.takes_trade_off and (staged or budget_inputs):
        low, high = policy.trade_off_range
        entries["trade_off"] = {"min": float(low), "max": float(high), "default": float(policy.default_trade_off)}
    return entries


def macs_entry(dense_macs: tuple[float, float]) -> dict[str, float]:
    """Multiply-adds of builtin ops and of ours, and both together."""
    builtin, own = dense_macs
    return {"builtin": builtin, "ops": own, "dense": builtin + own}
