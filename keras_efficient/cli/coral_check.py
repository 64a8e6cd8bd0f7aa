"""`keras-efficient coral-check`: what the Edge TPU compiler would make of a `.tflite` file."""

import argparse
import json

from keras_efficient.cli.files import existing


def run(options: argparse.Namespace) -> None:
    """Checks the file, prints the report, or JSON with `--json`."""
    file = existing(options.file, ".tflite")
    from keras_efficient.tflite_export import coral_check

    report = coral_check(file)
    print(json.dumps(report.to_dict(), indent=2) if options.json else report)
