import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient.policies import exact_backward_induction


def test_by_hand():
    # Exit 2 is worth .7 and .1 in its states, exit 1 .5 and .3, exit 0 .35.
    # Exit 1, state 0 goes to both states of exit 2 equally often: .4 < .5, leave.
    # Exit 1, state 1: .7 * .75 + .1 * .25 = .55 > .3, go on.
    # Exit 0 goes to state 0 once in five: .2 * .5 + .8 * .55 = .54 > .35.
    solution = exact_backward_induction([[0.35], [0.5, 0.3], [0.7, 0.1]], [[[1, 4]], [[2, 2], [3, 1]]])
    np.testing.assert_allclose(solution.values[0], [0.54])
    np.testing.assert_allclose(solution.values[1], [0.5, 0.55])
    np.testing.assert_allclose(solution.values[2], [0.7, 0.1])
    np.testing.assert_allclose(solution.continue_values[1], [0.4, 0.55])
    assert [leave.tolist() for leave in solution.leave] == [[False], [True, False], [True, True]]


def test_a_state_that_was_never_left_leaves():
    solution = exact_backward_induction([[0.1, 0.2], [0.9]], [[[0], [5]]])
    assert solution.leave[0].tolist() == [True, False]
    assert solution.continue_values[0].tolist() == [-np.inf, 0.9]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_no_policy_is_better(sizes, seed):
    random = np.random.default_rng(seed)
    rewards = [random.uniform(-1, 1, size) for size in sizes]
    transitions = [random.dirichlet(np.ones(there), here) for here, there in itertools.pairwise(sizes)]
    start = random.dirichlet(np.ones(sizes[0]))

    def earned(leaves):
        """Pushes the probability of each state forward through the chain."""
        total, arriving = 0.0, start
        for k, reward in enumerate(rewards):
            leaving = arriving * (leaves[k] if k < len(transitions) else 1)
            total += leaving @ reward
            if k < len(transitions):
                arriving = (arriving - leaving) @ transitions[k]
        return total

    per_exit = [list(itertools.product([0, 1], repeat=size)) for size in sizes[:-1]]
    best = max(earned([np.array(leave) for leave in policy]) for policy in itertools.product(*per_exit))
    solution = exact_backward_induction(rewards, transitions)
    assert start @ solution.values[0] == pytest.approx(best)
    assert earned([leave.astype(int) for leave in solution.leave[:-1]]) == pytest.approx(best)


@pytest.mark.parametrize(
    ("rewards", "transitions", "argument"),
    [
        ([], [], "exit_rewards"),
        ([[[1.0]]], [], "exit_rewards"),
        ([[1.0], [1.0, 2.0]], [], "transitions"),
        ([[1.0], [1.0, 2.0]], [[[1.0]]], "transitions"),
        ([[1.0], [1.0]], [[[-1.0]]], "transitions"),
        ([[1.0], [1.0]], [[[np.inf]]], "transitions"),
    ],
)
def test_bad_arguments(rewards, transitions, argument):
    with pytest.raises(ValueError, match=f"`{argument}`.*Expected.*Received"):
        exact_backward_induction(rewards, transitions)
