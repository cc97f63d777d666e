import json
import math

import pytest

from olmo_stages.headlines import restored, stored
from olmo_stages.types import Measurement

ROW = Measurement(
    "auroc", 0.9, "think_sft", "base", layer=0, trait="a", ci_low=0.8, ci_high=0.95, n=9, note="x"
)


def through(headline):
    return restored(json.loads(json.dumps(stored(headline), allow_nan=False)))


def test_a_measurement_comes_back_whole_and_in_its_place():
    given = {"best layer": 0, "auroc": ROW, "note": "x", "nothing": None, "plain": 0.5}
    found = through(given)
    assert found == given
    assert list(found) == list(given)


def test_an_undefined_measurement_comes_back_undefined_with_its_note():
    found = through({"auroc": Measurement("auroc", math.nan, "base", note="one class")})["auroc"]
    assert math.isnan(found.value)
    assert (found.note, found.ci_low) == ("one class", None)


def test_plain_values_are_what_they_were():
    assert restored({"auroc": 0.5, "95 % interval": "0.4-0.6", "p": None}) == {
        "auroc": 0.5,
        "95 % interval": "0.4-0.6",
        "p": None,
    }


def test_what_is_no_measurement_is_refused():
    with pytest.raises(TypeError):
        restored({"auroc": {"value": 0.5, "colour": "red"}})
