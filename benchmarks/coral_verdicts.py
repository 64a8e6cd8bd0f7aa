"""What `coral_check` says of int8 networks from `keras.applications`: rows for docs/coral.md.

    python -m benchmarks.coral_verdicts [NETWORK ...]

The networks have random weights (`weights=None`), since only operators, versions, types and shapes matter, and are
converted by TensorFlow's own post-training quantisation. Writes `benchmarks/results/coral_verdicts.json`.
"""

import collections
import json
import pathlib
import sys
import tempfile
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_efficient.tflite_export import CoralReport, coral_check

NETWORKS = ("MobileNetV2", "ResNet50", "EfficientNetB0")
RESULTS = pathlib.Path(__file__).parent / "results" / "coral_verdicts.json"


def quantized(name: str) -> bytes:
    """The network as TensorFlow quantises it: int8 inputs and outputs, calibrated on noise, batch of one."""
    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, name)(weights=None)
    traced = tf.function(
        lambda x: network(x, training=False), input_signature=[tf.TensorSpec((1, *network.input_shape[1:]), tf.float32)]
    )
    rng = np.random.default_rng(0)
    concrete = traced.get_concrete_function()
    holder = tf.Module()
    holder.values = list(concrete.graph.variables)  # tracked one by one, or the converter does not freeze them
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [rng.uniform(0, 255, (1, *network.input_shape[1:])).astype("float32")] for _ in range(4)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def rows(report: CoralReport) -> list[dict[str, Any]]:
    """One row per operator, version and fate."""
    counts = collections.Counter(
        (v.operator, v.version, v.status.value, v.cut, tuple(f.rule for f in v.findings)) for v in report.operators
    )
    return [
        {"operator": operator, "version": version, "count": count, "runs on": status, "cut": cut, "rules": list(rules)}
        for (operator, version, status, cut, rules), count in sorted(counts.items())
    ]


def main() -> None:
    """Checks the networks named on the command line, or all, and adds them to the results."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["versions"] = {"tensorflow": tf.__version__, "keras": keras.__version__}
    for name in sys.argv[1:] or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / f"{name}.tflite"
            file.write_bytes(quantized(name))
            report = coral_check(file)
        results[name] = {
            "compiles": report.compiles,
            "mapped": report.mapped,
            "operators": len(report.operators),
            "refusals": [finding.reason for finding in report.refusals],
            "rows": rows(report),
        }
        print(report, flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
