"""Numbers as people read them: nothing is shown as 0 or 1 that is not."""

import pytest

from olmo_stages.figures.wording import as_in, shared, written


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (-0.0003, 0.008, "0.001 [-0.0003, 0.008]"),
        (0.0003, 0.008, "0.001 [0.0003, 0.008]"),
        (-2e-6, 0.008, "0.001 [-2e-06, 0.008]"),
        (0.0, 0.008, "0.001 [0.000, 0.008]"),
        (-0.0, 0.008, "0.001 [0.000, 0.008]"),
        (-0.006, -0.0002, "-0.001 [-0.006, -0.0002]"),
        (-0.004, 0.008, "0.001 [-0.004, 0.008]"),
    ],
)
def test_an_end_shows_on_which_side_of_zero_it_is(low, high, shown):
    assert written(-0.001 if high < 0 else 0.001, low, high) == shown


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ((0.99964,), "0.9996"),
        ((1.0,), "1.000"),
        ((0.0,), "0.000"),
        ((-0.0,), "0.000"),
        ((-0.00042,), "-4.2e-04"),
        ((0.0004, 0.0, 0.008), "4.0e-04 [0, 8.0e-03]"),
        ((0.0, -0.0001, 0.0001), "0.0000 [-0.0001, 0.0001]"),
        ((0.0, 0.0, 0.0), "0.000 [0.000, 0.000]"),
        ((0.9, 0.8, 0.9999), "0.900 [0.800, 1.000]"),
        ((0.998, 0.99, 0.9999), "0.9980 [0.9900, 0.9999]"),
    ],
)
def test_numbers_have_the_decimals_that_they_need(numbers, shown):
    assert written(*numbers) == shown


def test_differences_have_their_sign():
    assert written(0.01, -0.0004, 0.02, sign="+") == "+0.010 [-0.0004, +0.020]"
    assert written(0.0, sign="+") == "0.000"
    assert written(0.0002, sign="+") == "+2.0e-04"
    assert as_in(0.00002, "+.2f") == "+2e-05"


@pytest.mark.parametrize(
    ("values", "same", "digits"),
    [
        ([0.9946, 0.996], 1.0, 3),
        ([0.9946, 0.996, 0.9993], 1.0, 3),
        ([0.9946, 0.996, 0.9996], 1.0, 4),
        ([0.9946, 1.0], 1.0, 3),
        ([0.9946, 0.99996], 1.0, 5),
        ([0.9946, 0.99999999], 1.0, 5),
        ([0.2, -0.0002], 0.0, 4),
        ([0.2, -0.0002], 1.0, 3),
        ([float("nan")], 1.0, 3),
    ],
)
def test_numbers_beside_one_another_have_as_many_decimals(values, same, digits):
    assert shared(values, same) == digits
