"""The app's model, opened by the app's own class in the runtime of Android, against the Python runner."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

APP = pathlib.Path(__file__).resolve().parents[2] / "android" / "app"
JAVA = "java/io/github/kerasefficient/app"
CLASSES = ("BudgetScale", "ModelInput", "ModelRecognizer", "Picture", "Recognition", "Recognizer")
TESTS = ("ModelRecognizerTest", "PictureTest")


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """The folder of the app's assets after two epochs, with what the Python runner makes of the samples."""
    pytest.importorskip("tensorflow", reason="the exporter needs the extra tflite")
    pytest.importorskip("ai_edge_litert", reason="the exporter needs the extra tflite")
    folder = tmp_path_factory.mktemp("app") / "assets"
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, str(APP / "make_assets.py"), str(folder), "2"]
    done = subprocess.run(command, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-4000:]
    (folder / "cases.json").write_text(json.dumps(cases(folder / "model.tflite")))
    return folder


def cases(model):
    """What the runner says of the first test image of each digit, at both ends of the trade-off and in the middle."""
    from keras_efficient import datasets, tflite_export

    digits = datasets.load("digits")
    first = [np.flatnonzero(digits.y_test == label)[0] for label in range(10)]
    x = np.rint(255 * digits.x_test[first]).astype("float32") / 255  # as PNG files hold them
    runner = tflite_export.load(model)
    macs = [entry["macs"] for entry in runner.metadata["exits"]]
    found = []
    for trade_off in (runner.metadata["trade_off"][key] for key in ("min", "default", "max")):
        result = runner(x, trade_off=trade_off)
        shifted = np.exp(result.output - result.output.max(axis=1, keepdims=True))
        confidence = (shifted / shifted.sum(axis=1, keepdims=True)).max(axis=1)
        for row, exit_index in enumerate(result.exit_index):
            found.append(
                {
                    "sample": f"samples/{row}.png",
                    "trade_off": float(trade_off),
                    "label": digits.class_names[result.output[row].argmax()],
                    "confidence": float(confidence[row]),
                    "exit": int(exit_index) + 1,
                    "share": float(result.executed_macs[row] / macs[-1]),
                }
            )
    return found


def test_the_app_recognizes_what_python_does(classes, host_library, runtime, assets, tmp_path):
    from apk import tools

    files = [APP / f"src/main/{JAVA}/{name}.java" for name in CLASSES]
    files += [APP / f"src/test/{JAVA}/{name}.java" for name in TESTS]
    path = [classes.main, *classes.jars]
    options = ["--release", "11", "-encoding", "UTF-8", "-d", tmp_path]
    tools.run("javac", *options, "-cp", os.pathsep.join(map(str, path)), *files)
    given = {**runtime, "io.github.kerasefficient.library": host_library, "tests.assets": assets}
    properties = [f"-D{name}={value}" for name, value in given.items()]
    names = [f"io.github.kerasefficient.app.{name}" for name in TESTS]
    path = os.pathsep.join(map(str, [tmp_path, *path]))
    said = tools.run(
        "java", "-Xmx256m", "-XX:+UseSerialGC", *properties, "-cp", path, "org.junit.runner.JUnitCore", *names
    )
    found = re.search(r"^OK \((\d+) tests\)$", said, re.MULTILINE)
    assert found, said
    assert int(found[1]) == 14
