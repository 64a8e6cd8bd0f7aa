"""Does each signature of a staged file compute what Keras computes? Every stage starts from the Keras features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient.tflite_export.session import Session
from keras_efficient.tflite_export.signatures import Signature
from keras_efficient.tflite_export.trace import MACS_OUTPUT, reference_function
from keras_efficient.tflite_export.verify import Parity

Array = NDArray[Any]


def compare_signatures(
    stages: Sequence[Signature],
    policies: Sequence[Signature],
    session: Session,
    inputs: dict[str, Array],
    trade_offs: Array | None,
) -> Parity:
    """Largest difference per output of each signature, `"stage_0.output"` and so on.

    Args:
        stages: The stages' signatures, in order.
        policies: The policies' signatures, in order.
        session: The file.
        inputs: Arrays of the first stage by input name.
        trade_offs: `[N]`, or None for policies that take none.
    """
    count = len(next(iter(inputs.values())))
    runs = {
        s.key: (reference_function(s), session.interpreter.get_signature_runner(s.key)) for s in [*stages, *policies]
    }
    differences: dict[str, float] = {}

    def run(signature: Signature, offered: dict[str, Array]) -> dict[str, Array]:
        arrays = {spec.name: offered[spec.name] for spec in signature.specs}
        reference, runner = runs[signature.key]
        expected, found = reference(**arrays), runner(**arrays)
        for name in expected.keys() - {MACS_OUTPUT}:
            gap = float(np.abs(found[name].astype("float64") - expected[name]).max())
            key = f"{signature.key}.{name}"
            differences[key] = float(np.maximum(differences.get(key, 0.0), gap))  # NaN stays
        return expected

    for row in range(count):
        carry = {name: array[row : row + 1] for name, array in inputs.items()}
        for k, stage in enumerate(stages):
            carry = run(stage, carry)
            if k < len(policies):
                run(policies[k], carry if trade_offs is None else {**carry, "trade_off": trade_offs[row : row + 1]})
    return Parity(differences, count, 0)
