"""The figures in the README are those of the benchmark's results, and its example runs as it stands."""

import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def test_table_is_that_of_the_results():
    results = json.loads((ROOT / "benchmarks" / "results" / "main_job.json").read_text())
    table = re.findall(r"^\| `(\w+)`: [^|]+ \| (.+) \|$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert [name for name, _ in table] == [row["name"] for row in results["rows"]]
    for (name, cells), row in zip(table, results["rows"], strict=True):
        figures = [float(cell.replace(",", "").replace("%", "")) for cell in cells.split("|")]
        measured = [100 * row["accuracy"], row["expected_macs"], row["latency_us"], row["latency_p95_us"], row["bytes"]]
        assert figures == pytest.approx(measured, abs=0.5, rel=5e-3), name
        assert figures[0] == pytest.approx(measured[0], abs=0.006), name


def test_example_runs(tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert", reason="the example exports, which needs the extra tflite")
    (code,) = re.findall(r"```python\nimport keras\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec("import keras\n" + code.replace("epochs=15", "epochs=2, verbose=0"), scope)
    result = scope["result"]
    assert result.output.shape == (len(scope["digits"].x_test), 10)
    assert result.executed_macs.min() > 0
    assert (tmp_path / "digits.tflite").is_file()
