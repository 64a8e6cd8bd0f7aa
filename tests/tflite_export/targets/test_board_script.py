"""The board's script in an environment with tflite-runtime 2.14 and nothing of ours: same labels as here."""

import json
import os
import pathlib
import subprocess
import sys
import sysconfig
import venv

import numpy as np
import pytest

from keras_efficient import tflite_export

SCRIPT = pathlib.Path(__file__).parents[3] / "examples" / "coral" / "run_on_board.py"


@pytest.fixture(scope="module")
def board_python(tmp_path_factory):
    """A Python with tflite-runtime 2.14: that of the variable KERAS_EFFICIENT_RT214, else a new environment's."""
    known = os.environ.get("KERAS_EFFICIENT_RT214")
    if known:
        return known
    if sys.version_info[:2] > (3, 11):
        pytest.skip("tflite-runtime 2.14 has wheels up to Python 3.11")
    folder = tmp_path_factory.mktemp("board")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "tflite-runtime==2.14.0", "numpy<2"], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"tflite-runtime 2.14.0 cannot be had for {sysconfig.get_platform()}: {done.stderr.strip()[-200:]}")
    return str(python)


def run(python, *arguments):
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run([python, SCRIPT, *map(str, arguments)], env=environment, capture_output=True, text=True)


def test_same_labels_and_exits_as_here(board_python, coral, images, clear, tmp_path):
    """Of the images that do not hang on one step of 8 bits, in which kernels of different years may differ."""
    folder, _ = coral
    images = images[clear]
    np.save(tmp_path / "x.npy", images)
    done = run(board_python, folder, tmp_path / "x.npy", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    result = tflite_export.load_coral(folder)(images)
    assert [line["exit"] - 1 for line in lines] == list(result.exit_index)
    assert [line["index"] for line in lines] == list(result.output.argmax(-1))
    assert lines[0]["label"] == f"class {lines[0]['index']}"
    assert all(line["ms"] > 0 for line in lines)
    warnings = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert len(warnings) == 1, "one line, where no Edge TPU is there"
    assert warnings[0].startswith("No Edge TPU")


def test_raw_bytes_are_normalised(board_python, coral, tmp_path):
    """`(raw - 128) / 64`, as model.json says, from a file of plain bytes and from uint8 in `.npy`."""
    folder, _ = coral
    raw = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 1), dtype="uint8")
    raw.tofile(tmp_path / "raw.bin")
    np.save(tmp_path / "raw.npy", raw)
    np.save(tmp_path / "float.npy", ((raw - 128.0) / 64.0).astype("float32"))
    answers = []
    for name in ("raw.bin", "raw.npy", "float.npy"):
        done = run(board_python, folder, tmp_path / name, "--cpu", "--json")
        assert done.returncode == 0, done.stderr
        assert "No Edge TPU" not in done.stderr
        answers.append([(line["index"], line["exit"]) for line in map(json.loads, done.stdout.splitlines())])
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0]) == 4


def test_a_cap_and_words_for_people(board_python, coral, images, tmp_path):
    np.save(tmp_path / "x.npy", images[0])
    done = run(board_python, coral[0], tmp_path / "x.npy", "--max-exit", 1, "--cpu")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert "class" in line
    assert "exit 1" in line
    assert line.endswith("ms")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}", "missing.npy"], "missing.npy"),
        (["{empty}", "{x}"], "model.json"),
        (["{folder}", "{wrong}"], "does not hold inputs of shape [8, 8, 1]"),
        (["{folder}", "{x}", "--max-exit", "0"], "--max-exit"),
    ],
)
def test_bad_input_is_one_sentence(board_python, coral, images, arguments, words, tmp_path):
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "x.npy", images[:2])
    np.save(tmp_path / "wrong.npy", images[:2, :4])
    places = {
        "folder": coral[0],
        "empty": tmp_path / "empty",
        "x": tmp_path / "x.npy",
        "wrong": tmp_path / "wrong.npy",
    }
    done = run(board_python, *[argument.format(**places) for argument in arguments], "--cpu")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("run_on_board.py: error")]) == 1


def test_it_needs_nothing_but_numpy_and_the_runtime():
    imported = {
        line.split()[1].partition(".")[0]
        for line in SCRIPT.read_text().splitlines()
        if line.startswith(("import ", "from "))
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "tflite_runtime"}
