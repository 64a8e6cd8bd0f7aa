import numpy as np
import pytest

from keras_efficient.policies import check_disjoint
from keras_efficient.policies.overlap import row_hashes


def make_rows(count=20, seed=0):
    return np.random.default_rng(seed).integers(0, 255, size=(count, 3, 2)).astype("uint8")


def test_disjoint_rows_pass():
    rows = make_rows()
    check_disjoint(rows[:10], rows[10:])
    check_disjoint(rows)  # nothing to compare with
    check_disjoint(rows[:10], None, row_hashes(rows[10:]))


def test_equal_rows_are_counted():
    rows = make_rows()
    with pytest.raises(ValueError, match="`x`. Expected held-out inputs.*Received: 3 of 10 different rows"):
        check_disjoint(rows[:10], rows[7:])
    with pytest.raises(ValueError, match="Received: 2 of 9 different rows"):
        check_disjoint(rows[:9], rows[8:12], row_hashes(rows[:1]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_the_dtype_does_not_hide_a_row(dtype):
    rows = make_rows()
    with pytest.raises(ValueError, match="20 of 20"):
        check_disjoint(rows, rows.astype(dtype)[..., None])


def test_zeros_of_both_signs_are_equal():
    with pytest.raises(ValueError, match="1 of 1"):
        check_disjoint(np.zeros((1, 4)), -np.zeros((1, 4)))


def test_rows_of_several_arrays_are_equal_only_together():
    first, second = make_rows(), make_rows(seed=1)
    both = {"image": first, "text": second}
    check_disjoint(both, {"image": first, "text": second[::-1]})
    with pytest.raises(ValueError, match="20 of 20"):
        check_disjoint(both, {"text": second[::-1], "image": first[::-1]})
    with pytest.raises(ValueError, match="1 of 2"):
        check_disjoint(np.array([["a"], ["b"]]), np.array([["b"]]))
