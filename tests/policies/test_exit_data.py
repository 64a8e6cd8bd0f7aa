import numpy as np
import pytest

from keras_efficient.layers.exit_features import exit_features
from keras_efficient.policies import ExitData


def test_properties(tiny):
    assert (len(tiny), tiny.num_exits) == (4, 3)
    np.testing.assert_array_equal(tiny.correct, [[1, 1, 1], [0, 1, 1], [0, 0, 1], [1, 0, 0]])
    np.testing.assert_allclose(tiny.features[:, :, 0], [[0.9, 0.6, 0.9], [0.6, 0.8, 0.9], [0.7] * 3, [0.8, 0.9, 0.6]])
    np.testing.assert_allclose(tiny.features[:, 1], np.asarray(exit_features(tiny.logits[:, 1], 1, 3)))
    np.testing.assert_allclose(tiny.rewards(0.4)[1], [0 - 0.1, 1 - 0.2, 1 - 0.4])


def test_from_predictions_divides_costs_and_keeps_the_order():
    early, late = np.zeros((3, 2)), np.ones((3, 2))
    data = ExitData.from_predictions({"b": early, "a": late}, [0, 1, 0], [30, 120])
    np.testing.assert_array_equal(data.logits[:, 1], late)
    np.testing.assert_allclose(data.costs, [0.25, 1.0])
    assert ExitData.from_predictions([early, late], [0, 1, 0], [1, 2]).num_exits == 2


def test_split_is_disjoint_complete_and_seeded(make_chain):
    data = make_chain(50)
    first, second = data.split(0.6, seed=3)
    assert (len(first), len(second)) == (30, 20)
    joined = np.concatenate([first.logits, second.logits])
    np.testing.assert_array_equal(np.sort(joined.ravel()), np.sort(data.logits.ravel()))
    np.testing.assert_array_equal(data.split(0.6, seed=3)[0].logits, first.logits)
    assert not np.array_equal(data.split(0.6, seed=4)[0].labels, first.labels)


def test_is_frozen(tiny):
    with pytest.raises(AttributeError):
        tiny.labels = np.zeros(4)


GOOD = {"logits": np.zeros((4, 2, 3)), "labels": np.array([0, 1, 2, 0]), "costs": np.array([0.5, 1.0])}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("logits", np.zeros((4, 3))),
        ("logits", np.zeros((4, 1, 3))),
        ("logits", np.full((4, 2, 3), np.nan)),
        ("labels", np.array([0, 1, 2])),
        ("labels", np.array([0.0, 1.0, 2.0, 0.0])),
        ("labels", np.array([0, 1, 3, 0])),
        ("labels", np.array([0, -1, 2, 0])),
        ("labels", np.eye(4, 3, dtype=int)),
        ("costs", np.array([0.5, np.inf])),
        ("costs", np.array([1.0, 1.0])),
        ("costs", np.array([0.0, 1.0])),
        ("costs", np.array([0.3, 0.6, 1.0])),
        ("costs", np.array([np.nan, 1.0])),
        ("summary", np.zeros((4, 3, 2))),
        ("summary", np.zeros((4, 2, 0))),
        ("summary", np.full((4, 2, 1), np.inf)),
    ],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`.*Expected.*Received"):
        ExitData(**{**GOOD, argument: value})


def test_costs_in_any_unit(tiny):
    measured = tiny.with_costs([10.0, 30.0, 40.0])
    np.testing.assert_allclose(measured.costs, [0.25, 0.75, 1.0])
    assert (measured.total_cost, tiny.total_cost) == (40.0, 1.0)
    np.testing.assert_array_equal(measured.features, tiny.features)
    np.testing.assert_allclose(measured.rewards(0.4)[1], [0 - 0.1, 1 - 0.3, 1 - 0.4])
    np.testing.assert_allclose(tiny.costs, [0.25, 0.5, 1.0])  # as it was
    part = measured.take([2, 0])
    np.testing.assert_array_equal(part.costs, measured.costs)
    assert part.total_cost == 40.0
    with pytest.raises(ValueError, match="`costs`.*strictly increasing.*Received: \\[10.0, 40.0, 30.0\\]"):
        tiny.with_costs([10, 40, 30])


def test_summary_is_part_of_the_features_and_stays_with_its_input(tiny):
    summary = np.arange(4 * 3 * 2, dtype="float32").reshape(4, 3, 2)
    data = ExitData(tiny.logits, tiny.labels, tiny.costs, summary)
    assert (data.num_features, tiny.num_features) == (6, 4)
    np.testing.assert_array_equal(data.features[..., :4], tiny.features)
    np.testing.assert_array_equal(data.features[..., 4:], summary)
    np.testing.assert_array_equal(data.take([3, 1]).summary, summary[[3, 1]])
    first, second = data.split(0.5, seed=1)
    joined = np.concatenate([first.features, second.features])
    assert set(map(tuple, joined[:, 0, 4:])) == {(0, 1), (6, 7), (12, 13), (18, 19)}
    np.testing.assert_array_equal(data.with_costs([1, 2, 3]).summary, summary)


def test_bad_predictions_macs_and_fractions(tiny):
    with pytest.raises(ValueError, match="`predictions`.*Received: shapes"):
        ExitData.from_predictions([np.zeros((3, 2)), np.zeros((3, 4))], [0, 1, 0], [1, 2])
    with pytest.raises(ValueError, match="`costs`"):
        ExitData.from_predictions([np.zeros((3, 2)), np.zeros((3, 2))], [0, 1, 0], [1, 0])
    for fraction in (0.0, 1.0, 0.01, -1):
        with pytest.raises(ValueError, match="`fraction`"):
            tiny.split(fraction)
    with pytest.raises(ValueError, match="`trade_off`.*at least 0.*-1"):
        tiny.rewards(-1)
