import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from keras_efficient.policies import ExitData, ExitPolicyTrainer, LearnedPolicy, best_fixed_exit, evaluate
from keras_efficient.policies import agents_process as process
from keras_efficient.policies import exit_policy_trainer as trainer_module

needs_agents = pytest.mark.skipif(
    importlib.util.find_spec("tf_agents") is None, reason="the extra `agents` is not installed"
)


@needs_agents
def test_default_agent_beats_the_best_fixed_exit(chain, capsys):
    held_out, test = chain
    before = dict(os.environ)
    trainer = ExitPolicyTrainer(trade_off=0.3, iterations=25)
    policy = trainer.fit(held_out)
    assert dict(os.environ) == before
    assert "tf_agents" not in sys.modules
    assert "25/25" in capsys.readouterr().out  # the progress bar
    assert list(trainer.history) == ["reward"]
    assert len(trainer.history["reward"]) == 25
    assert trainer.history["reward"][-1] == pytest.approx(evaluate(policy, held_out, 0.3).reward, abs=1e-6)
    assert isinstance(policy, LearnedPolicy)
    assert evaluate(policy, test, 0.3).reward > best_fixed_exit(test, 0.3)[1].reward


@needs_agents
@pytest.mark.filterwarnings("ignore:The learned policy earns")
@pytest.mark.parametrize("agent", ["dqn", "reinforce"])
def test_other_agents_run(make_chain, agent, capsys):
    data = make_chain(80, exits=2)
    trainer = ExitPolicyTrainer(agent, trade_off=0.3, iterations=2, hidden_units=[8, 8], batch_size=16, verbose=0)
    policy = trainer.fit(data, validation=make_chain(40, exits=2, seed=1))
    assert capsys.readouterr().out == ""
    assert (policy.num_exits, policy.hidden_units) == (2, (8, 8))
    assert [len(values) for values in trainer.history.values()] == [2, 2]


@needs_agents
def test_a_policy_for_any_trade_off(make_chain):
    data = make_chain(300, exits=3)
    policy = ExitPolicyTrainer(trade_off_range=(0.05, 2.0), iterations=20, verbose=0).fit(data)
    assert (policy.takes_trade_off, policy.trade_off_range, policy.num_features) == (True, (0.05, 2.0), 4)
    costs = [evaluate(policy, data, price).cost for price in (0.05, 0.3, 2.0)]
    assert costs[0] > costs[1] > costs[2]


def test_missing_extra_is_named(monkeypatch, tiny):
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda name: None if name == "tf_agents" else True)
    monkeypatch.setattr(process.sys, "version_info", (3, 11, 0))
    with pytest.raises(
        ImportError, match=r'tf_agents is not installed: run pip install "keras-efficient\[agents\]"\.$'
    ):
        ExitPolicyTrainer(trade_off=0.3).fit(tiny)
    monkeypatch.setattr(process.sys, "version_info", (3, 13, 0))
    with pytest.raises(ImportError, match="in Python 3.11; TF-Agents does not support Python 3.13"):
        ExitPolicyTrainer(trade_off=0.3).fit(tiny)


@pytest.fixture
def fake_worker(monkeypatch):
    """Runs a few lines of Python where the worker would run."""
    monkeypatch.setattr(process, "check_agents_installed", lambda: None)

    def use(program):
        monkeypatch.setattr(process, "_PROGRAM", program)

    return use


def test_a_crash_quotes_the_log(fake_worker):
    fake_worker("import sys; print('x' * 9000, file=sys.stderr); sys.exit('out of luck')")
    with pytest.raises(RuntimeError, match="ended with exit code 1.*\n(.*\n)*out of luck"):
        process.run_agents_worker({}, {}, print)


def test_a_worker_that_returns_nothing_is_an_error(fake_worker):
    fake_worker("pass")
    with pytest.raises(RuntimeError, match="without a result"):
        process.run_agents_worker({}, {}, print)


def test_an_interrupt_kills_the_worker(fake_worker, monkeypatch):
    fake_worker("import time; print('{}', flush=True); time.sleep(600)")
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(process.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[0])

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.run_agents_worker({}, {}, interrupt)
    assert started[0].returncode is not None


def test_a_useless_policy_is_reported(monkeypatch, tiny):
    def leave_at_once(config, arrays, on_progress):
        on_progress({"iteration": 1, "reward": 0.0, "validation_reward": 0.0})
        layers = {"kernel_0": np.zeros((4, 2)), "bias_0": np.zeros((2, 2))}
        return {**layers, "kernel_1": np.zeros((2, 1)), "bias_1": np.ones(1), "leaves": np.ones((1, 4, 2), dtype=bool)}

    monkeypatch.setattr(trainer_module, "check_agents_installed", lambda: None)
    monkeypatch.setattr(trainer_module, "run_agents_worker", leave_at_once)
    trainer = ExitPolicyTrainer(trade_off=0.1, hidden_units=[2], iterations=1, verbose=0)
    with pytest.warns(UserWarning, match=r"earns 0.4750 .* less than the 0.6500 of always leaving at exit 2"):
        trainer.fit(tiny, validation=tiny)


def test_a_layer_that_decides_otherwise_is_an_error(monkeypatch, tiny):
    def disagree(config, arrays, on_progress):
        layers = {"kernel_0": np.zeros((4, 2)), "bias_0": np.zeros((2, 2))}
        return {**layers, "kernel_1": np.zeros((2, 1)), "bias_1": np.ones(1), "leaves": np.zeros((1, 4, 2), dtype=bool)}

    monkeypatch.setattr(trainer_module, "check_agents_installed", lambda: None)
    monkeypatch.setattr(trainer_module, "run_agents_worker", disagree)
    with pytest.raises(RuntimeError, match="decides differently on 4 of 4 inputs at exit 0"):
        ExitPolicyTrainer(trade_off=0.1, hidden_units=[2], verbose=0).fit(tiny, validation=tiny)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("agent", "sarsa"),
        ("trade_off", -0.1),
        ("trade_off", "low"),
        ("iterations", 0),
        ("seed", -1),
        ("hidden_units", ()),
        ("learning_rate", 0),
        ("batch_size", 1.5),
        ("exploring_starts", 2),
    ],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`.*Expected.*Received"):
        ExitPolicyTrainer(**{"trade_off": 0.3, argument: value})


def test_bad_range():
    with pytest.raises(ValueError, match="`trade_off_range`.*Expected two positive numbers.*Received"):
        ExitPolicyTrainer(trade_off_range=(1.0, 0.1))
    assert ExitPolicyTrainer().trade_off_range == (0.02, 1.0)


def test_validation_must_have_the_same_exits(monkeypatch, tiny):
    monkeypatch.setattr(trainer_module, "check_agents_installed", lambda: None)
    other = ExitData(tiny.logits, tiny.labels, np.array([0.1, 0.2, 1.0]))
    with pytest.raises(ValueError, match="`validation`.*0.25, 0.5, 1.0.*0.1, 0.2, 1.0"):
        ExitPolicyTrainer(trade_off=0.3).fit(tiny, validation=other)
