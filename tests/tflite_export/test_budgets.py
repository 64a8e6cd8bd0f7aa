import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient import cli, policies, tflite_export
from keras_efficient.tflite_export import budgets, flatbuffer, metadata


@pytest.fixture(scope="module")
def budget_files(budgeted, x, tmp_path_factory):
    """Kind -> path of the file with branches, of the int8 one, and of the staged one."""
    folder = tmp_path_factory.mktemp("budgets")
    reports = {
        "float": tflite_export.export(budgeted, folder / "float.tflite", representative_data=x),
        "int8": tflite_export.export(budgeted, folder / "int8.tflite", representative_data=x, quantize="int8"),
        "staged": tflite_export.export(budgeted, folder / "staged.tflite", representative_data=x, staged=True),
    }
    return {kind: (folder / f"{kind}.tflite", report) for kind, report in reports.items()}


@pytest.fixture(scope="module")
def runners(budget_files):
    return {kind: tflite_export.load(path, delegate="none") for kind, (path, _) in budget_files.items()}


def test_the_command_times_files_with_budgets_and_refuses_stages(budget_files, capsys):
    words = ["--runs", "2", "--delegate", "none", "--json"]
    assert cli.main(["benchmark", str(budget_files["float"][0]), *words]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["stock"]["mean_us"] > 0
    assert cli.main(["benchmark", str(budget_files["staged"][0]), *words]) == 2
    assert "measure_stages" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["float", "staged"])
@pytest.mark.parametrize("trade_off", [0.01, 0.05, 0.1, 0.3, 1.0, 5.0])
def test_exits_are_those_of_decide(budgeted, x, runners, kind, trade_off):
    data = policies.ExitData(**budgeted.exit_data(x, np.zeros(len(x), int)))
    expected = policies.decide(budgeted.policy, data.features, trade_off=trade_off)
    result = runners[kind](x, trade_off=trade_off)
    np.testing.assert_array_equal(result.exit_index, expected)
    np.testing.assert_allclose(result.output, data.logits[np.arange(len(x)), expected], atol=1e-4)


def test_trade_offs_spread_the_exits(x, runners):
    means = [runners["float"](x, trade_off=t).exit_index.mean() for t in (0.01, 0.1, 1.0)]
    assert means[0] > means[1] > means[2]
    mixed = runners["float"](x[:6], trade_off=[0.01, 1.0] * 3)
    alone = [runners["float"](x[:6], trade_off=t).exit_index for t in (0.01, 1.0)]
    np.testing.assert_array_equal(mixed.exit_index, np.where(np.arange(6) % 2, alone[1], alone[0]))


@pytest.mark.parametrize("kind", ["float", "int8", "staged"])
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31), scale=st.sampled_from([0.0, 1.0, 100.0, 1e6]), cap=st.integers(0, 2), t=st.floats(0, 10)
)
def test_no_input_breaks_the_cap(runners, kind, seed, scale, cap, t):
    one = np.random.default_rng(seed).normal(0, 1, (1, 8, 8, 1)).astype("float32") * np.float32(scale)
    runner = runners[kind]
    result = runner(one, trade_off=t, max_exit=cap)
    assert result.exit_index[0] <= cap
    assert result.executed_macs[0] <= runner.metadata["exits"][cap]["macs"]
    deadline = runner.metadata["exits"][cap]["macs"]
    assert runner(one, trade_off=t, deadline_macs=deadline).exit_index[0] == result.exit_index[0]


def test_int8_decides_as_float_does(budgeted, x, budget_files, runners):
    path, report = budget_files["int8"]
    assert report.quantized == 1.0
    assert report.notes == ()
    for trade_off in (0.03, 0.1, 0.3):
        expected = runners["float"](x, trade_off=trade_off)
        found = runners["int8"](x, trade_off=trade_off)
        same = found.exit_index == expected.exit_index
        assert same.mean() > 0.95
        assert (found.output.argmax(-1) == expected.output.argmax(-1))[same].mean() > 0.95
    parsed = flatbuffer.parse(path.read_bytes())
    names = flatbuffer.builtin_names()
    borders = [
        subgraph.tensors[index].type
        for subgraph in parsed.subgraphs
        for operator in subgraph.operators
        for index in operator.inputs[1:]
        if names[flatbuffer.operator_code(parsed, operator)[0]] == "IF" and len(subgraph.tensors[index].shape) == 4
    ]
    assert borders == [9, 9]  # feature maps go into branches as int8


def test_branches_and_stages_agree(x, runners):
    whole, staged = (runners[kind](x, trade_off=0.1) for kind in ("float", "staged"))
    np.testing.assert_array_equal(whole.exit_index, staged.exit_index)
    np.testing.assert_allclose(whole.executed_macs, staged.executed_macs)


def test_metadata_and_inputs(budgeted, budget_files, runners):
    entries = metadata.read(flatbuffer.parse(budget_files["float"][0].read_bytes()))
    assert entries["budget_inputs"] is True
    assert entries["trade_off"] == {"min": 0.01, "max": 1.0, "default": pytest.approx(0.1)}
    decisions = np.cumsum([2 * 10 + 2, 2 * 10 + 2, 0])  # two hidden units on ten inputs, and two weights
    assert [entry["macs"] for entry in entries["exits"]] == (budgeted.exit_costs() + decisions).tolist()
    assert runners["float"].inputs == {"image": (1, 8, 8, 1)}


def test_budget_inputs_as_asked(model, budgeted, x, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, representative_data=x, budget_inputs=True)
    runner = tflite_export.load(path)
    assert runner(x, max_exit=0).exit_index.max() == 0
    assert runner(x).exit_index.max() == 2
    with pytest.raises(ValueError, match="policy in this file takes no trade-off"):
        runner(x, trade_off=0.1)
    tflite_export.export(budgeted, path, representative_data=x, budget_inputs=False)
    runner = tflite_export.load(path)
    np.testing.assert_array_equal(runner(x).exit_index, budgeted.predict_exits(x, verbose=0)[1])
    with pytest.raises(ValueError, match="budget_inputs=True"):
        runner(x, max_exit=1)


ENTRIES = {
    "exits": [
        {"macs": 10.0, "microseconds": 3.0},
        {"macs": 20.0, "microseconds": 9.0},
        {"macs": 40.0, "microseconds": 12.0},
    ],
    "trade_off": {"min": 0.1, "max": 1.0, "default": 0.5},
}


def test_deadlines_become_caps():
    assert budgets.budget(ENTRIES, 1, deadline_macs=39.9).max_exit.tolist() == [1]
    assert budgets.budget(ENTRIES, 3, deadline_us=[3, 8, 100]).max_exit.tolist() == [0, 0, 2]
    assert budgets.budget(ENTRIES, 2, deadline_macs=20, max_exit=[0, 2]).max_exit.tolist() == [0, 1]
    found = budgets.budget(ENTRIES, 2)
    assert found.max_exit.tolist() == [2, 2]
    assert found.trade_off.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"deadline_macs": 9}, "`deadline_macs`. Expected at least 10, what the first exit takes. Received: 9"),
        ({"max_exit": 3}, r"`max_exit`. Expected one integer in \[0, 2\]"),
        ({"max_exit": -1}, "`max_exit`"),
        ({"max_exit": 1.5}, "`max_exit`"),
        ({"max_exit": [0, 1, 2]}, "`max_exit`"),
        ({"trade_off": float("nan")}, "`trade_off`. Expected one finite number"),
        ({"trade_off": -1}, "`trade_off`. Expected numbers of at least 0"),
        ({"trade_off": "much"}, "`trade_off`"),
        ({"deadline_us": None, "deadline_macs": "soon"}, "`deadline_macs`"),
    ],
)
def test_bad_budgets(asked, message):
    with pytest.raises(ValueError, match=message) as caught:
        budgets.budget(ENTRIES, 2, **asked)
    assert "\n" not in str(caught.value)


def test_deadlines_need_latencies(x, runners):
    with pytest.raises(ValueError, match="`deadline_us`. Expected a file whose exits have 'microseconds'"):
        runners["float"](x[:1], deadline_us=100)


def test_latencies_make_deadlines(budget_files, x, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(budget_files["float"][0].read_bytes())
    tflite_export.set_latencies(path, [10.0, 20.0, 30.0])
    runner = tflite_export.load(path)
    assert runner(x[:32], trade_off=0.01, deadline_us=25).exit_index.max() == 1
    with pytest.raises(ValueError, match="`deadline_us`. Expected at least 10, what the first exit takes"):
        runner(x[:1], deadline_us=9)
    with pytest.raises(ValueError, match="`microseconds`. Expected 3 positive, increasing numbers"):
        tflite_export.set_latencies(path, [10.0, 20.0])


def test_stages_are_measured(budget_files, x):
    path, _ = budget_files["staged"]
    costs = tflite_export.measure_stages(path, x[:4], runs=5)
    assert costs.shape == (3,)
    assert (np.diff(costs) > 0).all()
    assert costs[0] > 0
    with pytest.raises(ValueError, match="`path`. Expected a file exported with `staged=True`"):
        tflite_export.measure_stages(budget_files["float"][0], x[:4])


FROM_JAX = """
import json
import numpy as np, keras
from keras_efficient import layers, models, policies, tflite_export
assert keras.backend.backend() == "jax"
x = np.load("x.npy")
network = keras.Sequential([
    keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, activation="relu"), layers.EarlyExit(3),
    keras.layers.Flatten(), keras.layers.Dense(3),
])
model = models.MultiExit.from_model(network)
model.policy = policies.LearnedPolicy(2, (4,), trade_off_range=(0.1, 1.0))
model.policy.build((None, 4))
for name, arguments in (("staged", {"staged": True}), ("budget", {}), ("plain", {"budget_inputs": False})):
    report = tflite_export.export(model, name + ".tflite", representative_data=x, **arguments)
    assert max(report.parity.values()) < 1e-4, report
logits, exit_index = model.predict_exits(x, verbose=0, trade_off=0.3)
np.savez("jax.npz", logits=logits, exit_index=exit_index)
"""


def test_from_jax(tmp_path, x):
    pytest.importorskip("jax", reason="jax is not installed")
    np.save(tmp_path / "x.npy", x[:16])
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", FROM_JAX], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(tmp_path / "jax.npz") as expected:
        for name in ("staged", "budget"):
            result = tflite_export.load(tmp_path / f"{name}.tflite")(x[:16], trade_off=0.3)
            np.testing.assert_array_equal(result.exit_index, expected["exit_index"])
    assert "max_exit" not in json.dumps(tflite_export.load(tmp_path / "plain.tflite").metadata)
