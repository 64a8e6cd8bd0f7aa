"""The compiler is closed and x86-64 only: a script on the PATH prints what logs of version 16 look like."""

import os

import pytest
import tensorflow as tf

from keras_efficient import tflite_export
from keras_efficient.tflite_export.targets import edge_tpu_compiler

COMPILED = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 42 ms.

Input model: model.tflite
Number of Edge TPU subgraphs: 1
Total number of operations: 3

Operator                       Count      Status

CONV_2D                        1          Mapped to Edge TPU
CONV_2D                        1          More than one subgraph is not supported
LEAKY_RELU                     1          Operation not supported
Compilation child process completed within timeout period.
Compilation succeeded!
"""
REFUSED = """Edge TPU Compiler version 16.0.384591198
ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'. An older version of this builtin might be supported.

ERROR: Registration failed.

Invalid model: model.tflite
Model could not be parsed
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Puts an `edgetpu_compiler` on the PATH that prints a log and ends with a status."""

    def install(log, status=0):
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "edgetpu_compiler"
        program.write_text(f"#!/bin/sh\ncat <<'LOG'\n{log}\nLOG\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return install


def network(x):
    kernel = tf.ones((3, 3, 4, 4))
    return tf.nn.conv2d(tf.nn.leaky_relu(tf.nn.conv2d(x, kernel, 1, "SAME")), kernel, 1, "SAME")


def test_its_verdict_stands_beside_ours(compiler, converted, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(converted(network))
    compiler(COMPILED)
    report = tflite_export.coral_check(path)
    assert report.compiler.version == "16.0.384591198"
    assert report.compiler.compiled
    assert report.compiler.operators[1] == ("CONV_2D", 1, "More than one subgraph is not supported")
    assert report.compiler.mapped == {"CONV_2D": 1, "LEAKY_RELU": 0}
    assert report.disagreements == ()
    assert "1 of 3 operators mapped" in str(report)
    assert tflite_export.coral_check(path, compile=False).compiler is None


def test_where_it_says_something_else(compiler, clean, tmp_path):
    path = tmp_path / "clean.tflite"
    path.write_bytes(clean)
    compiler(COMPILED)
    (sentence,) = [s for s in tflite_export.coral_check(path).disagreements if s.startswith("SOFTMAX")]
    assert sentence == "SOFTMAX: 1 on the Edge TPU by the table, 0 by edgetpu_compiler."


def test_a_refusal(compiler, clean, tmp_path):
    path = tmp_path / "clean.tflite"
    path.write_bytes(clean)
    compiler(REFUSED, status=1)
    report = tflite_export.coral_check(path)
    assert not report.compiler.compiled
    assert "CONV_2D' version '6'" in report.compiler.message
    assert report.disagreements[0].startswith("By the table the file compiles, by edgetpu_compiler it is refused")


def test_a_compiler_that_says_nothing():
    verdict = edge_tpu_compiler.read_log("", succeeded=True)
    assert (verdict.compiled, verdict.version) == (False, "?")
    assert verdict.message == "It wrote no file and gave no reason."
