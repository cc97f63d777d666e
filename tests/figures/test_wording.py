"""Numbers as people read them: nothing is shown as 0 or 1 that is not."""

import pytest

from olmo_stages.figures.wording import as_in, common_digits, shared, with_digits, written


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


@pytest.mark.parametrize(
    ("numbers", "digits"),
    [
        ([(0.99856, 0.99842, 0.99881), (0.99869, 0.99864, 0.99892)], 4),
        ([(0.5, None, None), (0.25, 0.2, 0.3)], 3),
        ([(0.5, 0.4, 0.6), (0.9997, 0.9996, 0.99998)], 5),
        ([(0.9, 0.8, 0.9999)], 4),
        ([(1.0, 1.0, 1.0)], 3),
        ([(0.0, -1e-9, 1e-9)], 3),
        ([(0.99999999, None, None)], 7),
        ([(float("nan"), None, None)], 3),
        ([], 3),
    ],
)
def test_a_column_has_the_decimals_of_its_closest_number(numbers, digits):
    assert common_digits(numbers) == digits


def test_a_column_has_no_more_decimals_than_its_unchanged_value_asks_for():
    number = (0.4996, 0.4, 0.6)
    assert common_digits([number], same=(0.5,)) == 4
    assert common_digits([number]) == 3
    near = (0.0007, -0.0003, 0.0081)
    assert common_digits([near], same=(0.0,)) == 4
    assert common_digits([near, (0.001, 1e-9, 0.002)], same=(0.0,)) == 4


@pytest.mark.parametrize(
    ("number", "digits", "shown"),
    [
        ((0.99, 0.98, 0.9946), 4, "0.9900 [0.9800, 0.9946]"),
        ((0.5,), 5, "0.50000"),
        ((0.001, -0.0003, 0.008), 3, "0.001 [-0.0003, 0.008]"),
        ((0.00012,), 3, "1.2e-04"),
        ((0.0, 0.0, 0.0), 4, "0.0000 [0.0000, 0.0000]"),
        ((1.0, 0.99999999, 1.00000001), 7, "1.0000000 [0.9999999, 1.0000001]"),
    ],
)
def test_a_number_of_a_column_never_looks_unchanged_where_it_is_not(number, digits, shown):
    assert with_digits(*number, digits=digits) == shown
