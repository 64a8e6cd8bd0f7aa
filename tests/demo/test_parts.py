"""The pieces of the demo that need no training."""

import dataclasses

import numpy as np
import pytest

from keras_efficient import cost
from keras_efficient.demo import folder, html, timing
from keras_efficient.demo.data import augmented
from keras_efficient.demo.deciding import choose, threshold_for_budget
from keras_efficient.demo.losses import losses
from keras_efficient.demo.measure import Row
from keras_efficient.demo.networks import Topology, macs_of, narrowed_to, static_network
from keras_efficient.demo.settings import RECIPES
from keras_efficient.policies import ExitData, evaluate


def row(name, accuracy=0.99, macs=100.0, mean=10.0, p95=12.0, size=1000):
    return Row(name, accuracy, macs, mean, p95, size)


def test_every_lost_comparison_becomes_a_sentence():
    rows = [
        row("static", macs=1000.0, mean=50.0, p95=60.0, size=2000),
        row("static_int8", mean=5.0, p95=6.0, size=500),
        row("dynamic_delegate", accuracy=0.98, macs=600.0, p95=70.0),
    ]
    found = "\n".join(losses(rows, ["A note."]))
    assert found.startswith("A note.")
    assert "less accurate than static: 98.00% against 99.00% (1.00 percentage points less)" in found
    assert "needs more than half of the multiply-adds of static: 600 against 1,000" in found
    assert "slower than static at the 95th percentile: 70.0 us against 60.0 us" in found
    assert "slower than static_int8 on average: 10.0 us against 5.0 us per image (2.00 times)" in found
    assert "larger than that of static_int8: 1,000 against 500 bytes" in found
    assert "slower than static on average" not in found
    assert "larger than that of static:" not in found


def test_a_win_everywhere_is_no_loss():
    assert losses([row("static", macs=1000.0), row("dynamic_delegate", macs=100.0)]) == []


@pytest.mark.parametrize("share", [0.03, 0.2, 0.7])
def test_the_small_network_is_never_cheaper_than_asked_for_and_hardly_dearer(share):
    topology = Topology((8, 8, 1), 10, RECIPES["digits"].convolutions)
    wanted = share * macs_of(topology)
    narrow = macs_of(narrowed_to(topology, wanted))
    assert wanted <= narrow < 1.25 * wanted


def test_the_formula_of_a_topology_is_what_profile_counts():
    topology = Topology((9, 7, 3), 5, ((4, 2, True), (6, 1, False)))
    assert macs_of(topology) == cost.profile(static_network(topology)).macs


def test_augmented_images_are_shifts_of_the_image():
    recipe = dataclasses.replace(RECIPES["digits"], noise=0.0)
    image = np.arange(64, dtype="float32").reshape(1, 8, 8, 1)
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = {padded[:, y : y + 8, x : x + 8].tobytes() for y in range(3) for x in range(3)}
    found = augmented(np.repeat(image, 100, axis=0), recipe, np.random.default_rng(0))
    assert {one[None].tobytes() for one in found} == shifts


def test_mirrored_images_are_mirrored():
    recipe = dataclasses.replace(RECIPES["cifar10"], noise=0.0, shift=0)
    images = np.random.default_rng(0).random((1, 4, 5, 3)).astype("float32").repeat(20, axis=0)
    found = augmented(images, recipe, np.random.default_rng(0))
    assert {one.tobytes() for one in found} == {images[0].tobytes(), np.ascontiguousarray(images[0, :, ::-1]).tobytes()}


class FakeTimer:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def run(self, arrays):
        self.log.append((self.name, arrays[0]))
        return float(arrays[0])


def test_timers_take_turns_and_every_sample_is_timed_once_in_order(monkeypatch):
    monkeypatch.setattr(timing, "interruptions", lambda: 0)
    log = []
    timers = {name: FakeTimer(name, log) for name in "ab"}
    times = timing.in_turns(timers, [[number] for number in range(5)], block=2)
    assert times["a"].tolist() == times["b"].tolist() == [0, 1, 2, 3, 4]
    after_warm_up = log[10:]
    assert [name for name, _ in after_warm_up] == list("aaabbbbbbaaaaabb")
    assert [number for name, number in after_warm_up if name == "a"] == [0, 0, 1, 2, 2, 3, 4, 4]


def test_an_interrupted_run_is_repeated(monkeypatch):
    counts = iter([0, 1, 1, 1])  # before and after each run: the first is interrupted, the second is not
    monkeypatch.setattr(timing, "interruptions", lambda: next(counts))
    log = []
    assert timing.undisturbed(FakeTimer("a", log), [7]) == 7
    assert len(log) == 2
    always = iter(range(1000))
    monkeypatch.setattr(timing, "interruptions", lambda: next(always))
    timing.undisturbed(FakeTimer("a", log), [7])
    assert len(log) == 2 + timing.ATTEMPTS


def test_runs_go_round_the_samples():
    times = timing.in_turns({"a": FakeTimer("a", [])}, [[0], [1], [2]], runs=7)
    assert times["a"].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_a_folder_appears_whole(tmp_path):
    out = tmp_path / "deep" / "out"
    with folder.whole(out) as partial:
        (partial / "one").write_text("1")
        assert not out.exists()
    assert [file.name for file in out.iterdir()] == ["one"]
    with folder.whole(out) as partial:
        (partial / "one").write_text("2")
    assert (out / "one").read_text() == "2"
    assert [file.name for file in out.parent.iterdir()] == ["out"]


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    def fail():
        with folder.whole(tmp_path / "deep" / "out") as partial:
            (partial / "one").write_text("1")
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file", "file/inside"):
        with pytest.raises(OSError, match=r"Invalid value for argument `out`. Expected a directory"):
            folder.check(tmp_path / name)


def test_the_page_needs_nothing_else_and_says_what_is_missing():
    report = {
        "data": "digits",
        "seed": 0,
        "epochs": 1,
        "seconds": 1.0,
        "threads": 1,
        "test_images": 3,
        "machine": {"cpu": "<cpu>", "cores": 2, "system": "Linux", "python": "3.11", "versions": {"keras": "3"}},
        "losses": ["slower & larger"],
        "rows": [{**vars(row("static"))}],
        "policies": {"threshold": {"accuracy": 0.9, "cost": 0.2, "exits": [0.5, 0.5], "validation_reward": 0.8}},
        "deployed": "threshold",
        "parity": {
            "keras_vs_stock": 1e-6,
            "stock_vs_delegate": None,
            "other_exit": {"keras_vs_stock": 0},
            "coverage": {"inputs": 3, "exits": [2, 1], "open_gates": 3, "shut_gates": 0, "complete": False},
        },
    }
    page = html.page(report, None)
    assert "pip install &quot;keras-efficient[plots]&quot;" in page
    assert "&lt;cpu&gt;" in page
    assert page.index("slower &amp; larger") < page.index("static</td>")
    assert "do not cover every exit" in page
    assert "src=" not in page
    assert 'src="data:image/png;base64,' in html.page(report, {"Exits": b"png"})


def test_the_threshold_stays_unless_another_policy_is_surely_better():
    rng = np.random.default_rng(0)
    threshold = rng.random(100)
    worse, little, much = threshold - 0.1, threshold + rng.normal(0.0, 1.0, 100) * 0.1, threshold + 0.1
    little += 0.005 - (little - threshold).mean()  # half a standard error
    every = dict.fromkeys(("threshold", "backward_induction", "tf_agents"), True)
    assert choose({"threshold": threshold, "backward_induction": worse, "tf_agents": little}, every) == "threshold"
    assert choose({"threshold": threshold, "backward_induction": worse, "tf_agents": much}, every) == "tf_agents"
    unused = {**every, "tf_agents": False}
    assert choose({"threshold": threshold, "backward_induction": worse, "tf_agents": much}, unused) == "threshold"
    nobody = dict.fromkeys(every, False)
    assert choose({"threshold": threshold, "tf_agents": much}, nobody) == "tf_agents"


def test_a_threshold_for_a_budget_spends_it():
    rng = np.random.default_rng(0)
    data = ExitData(rng.normal(0, 3, (500, 3, 4)), rng.integers(0, 4, 500), [0.1, 0.4, 1.0])
    for budget in (0.15, 0.5, 0.9):
        assert budget - 0.01 < evaluate(threshold_for_budget(data, budget), data).cost <= budget
