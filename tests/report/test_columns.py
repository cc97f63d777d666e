"""Numbers that stand below one another have as many decimals."""

import math
from dataclasses import replace

from olmo_stages.document import Grid
from olmo_stages.report.columns import columns_of, digits_of
from tests.documents import row


def number(value, low, high, metric="m"):
    return replace(row(metric, value, "s"), ci_low=low, ci_high=high)


def shown(cells):
    digits = digits_of(cells)
    return [" ".join(digits.with_interval(it)) for it in cells]


def test_what_is_smaller_does_not_look_larger():
    cells = [number(0.99856, 0.99842, 0.99881), number(0.99869, 0.99864, 0.99892)]
    assert shown(cells) == ["0.9986 [0.9984, 0.9988]", "0.9987 [0.9986, 0.9989]"]


def test_columns_of_the_same_metric_are_alike_and_others_are_not():
    near, far = number(0.9997, 0.9996, 0.9998), number(0.5, 0.4, 0.6)
    other = number(0.5, 0.4, 0.6, "n")
    found = columns_of(Grid(("a", "b", "c", "d"), ((near, far, other, 0.5),)))
    assert [it.decimals for it in found] == [4, 4, 3, 3]


def test_no_number_looks_like_the_unchanged_value_of_its_column():
    grid = Grid(("a", "b"), ((0.2503, 0.2503),))
    found = columns_of(grid, [(0, 0.25)])
    assert [it.number(0.2503) for it in found] == ["0.2503", "0.250"]


def test_undefined_numbers_are_said_to_be():
    digits = digits_of([math.nan, 0.5, number(0.5, None, None)])
    assert digits.number(math.nan) == "undefined"
    assert digits.with_interval(number(math.nan, None, None)) == ("undefined", "")
    assert digits.with_interval(number(0.5, None, None)) == ("0.500", "")
