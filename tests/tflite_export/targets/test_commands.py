"""`coral-check`, and what `export` and `inspect` do with folders."""

import json

import numpy as np

from keras_efficient.cli import main


def test_coral_check_prints_a_table_or_json(clean, tmp_path, capsys):
    path = tmp_path / "clean.tflite"
    path.write_bytes(clean)
    assert main(["coral-check", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "CONV_2D" in printed
    assert "operators on the Edge TPU" in printed
    assert main(["coral-check", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["maps_fully"]
    assert found["operators"][0]["status"] == "edge tpu"
    (tmp_path / "bad.tflite").write_bytes(b"no flatbuffer")
    assert main(["coral-check", str(tmp_path / "bad.tflite")]) == 2
    assert "TFL3" in capsys.readouterr().err
    assert main(["coral-check", str(tmp_path / "none.tflite")]) == 2
    assert "There is no file" in capsys.readouterr().err


def test_a_folder_for_coral(exits, images, tmp_path, capsys):
    exits.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=images)
    words = ["export", str(tmp_path / "model.keras"), "--target", "coral", "--out", str(tmp_path / "folder")]
    assert main(words) == 2
    assert "Expected real inputs for target='coral'" in capsys.readouterr().err
    assert main([*words, "--data", str(tmp_path / "data.npz")]) == 0
    assert "stage_2.tflite" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "folder")]) == 0
    printed = capsys.readouterr().out
    assert "policy.tflite" in printed
    assert "stage_0.tflite" in printed
    assert main(["inspect", str(tmp_path / "folder"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4
    (tmp_path / "empty").mkdir()
    assert main(["inspect", str(tmp_path / "empty")]) == 2
    assert "no .tflite file" in capsys.readouterr().err
