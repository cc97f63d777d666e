"""Scores of tokens: which token is whose, the means of parts, and the table."""

import numpy as np
import pytest

from olmo_stages.errors import PairingError
from olmo_stages.types import Activations, Example, Reading, Stage
from olmo_stages.vectors.readout import Readout

STAGE = Stage("mine", "custom", "dir")
READINGS = (
    Reading(
        "a",
        (1, 2, 3, 4, 5, 6),
        ("<|s|>", "hi", "<think>", " hm", " oh", "yes"),
        ("special", "user", "response", "think", "think", "answer"),
    ),
    Reading("b", (1, 2, 7), ("<|s|>", "hi", " é"), ("special", "user", "user")),
)
EXAMPLES = (Example("a", "g", 1, text="x"), Example("b", "h", 0, text="y"))
OWNERS = np.array([0, 0, 0, 0, 0, 1, 1])
INDEX = np.array([1, 2, 3, 4, 5, 1, 2])
SCORES = np.array([1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0])


def activations(**changes):
    given = {
        "ids": ("a", "b"),
        "token_ids": tuple(it.token_ids for it in READINGS),
        "owners": OWNERS,
        "token_index": INDEX,
        "position": "tokens",
    } | changes
    n = len(given["ids"] if given["owners"] is None else given["owners"])
    return Activations(
        stage=STAGE,
        site="resid_post",
        layers=(3,),
        layer_types=("full_attention",),
        values=np.zeros((1, n, 2), np.float32),
        n_truncated=0,
        model_digest="",
        key="",
        **given,
    )


@pytest.fixture
def readout():
    found = Readout.of(activations(), READINGS)
    found.add(3, SCORES)
    found.add(7, -SCORES)
    return found


def test_means_of_parts_by_hand(readout):
    nan = np.nan
    expected = {
        "user": [1, 17],
        "think": [4, nan],
        "answer": [8, nan],
        "response": [4.5, nan],  # of 2, 3, 5, 8: the tag, the reasoning and the answer
    }
    assert readout.means.keys() == expected.keys()
    for part, means in expected.items():
        np.testing.assert_array_equal(readout.means[part][0], means)
        np.testing.assert_array_equal(readout.means[part][1], -np.array(means))


def test_parts_sum_to_the_whole(readout):
    total = sum(
        np.where(readout.counts[part] > 0, readout.counts[part] * readout.means[part][0], 0)
        for part in ("user", "response")
    )
    np.testing.assert_allclose(total, np.bincount(OWNERS, weights=SCORES))
    inner = sum(readout.counts[part] for part in ("think", "answer"))
    assert (readout.counts["response"] - inner).tolist() == [1, 0]  # the tag


def test_the_table_has_a_row_a_token_and_a_column_a_layer(readout):
    table = readout.table(EXAMPLES)
    assert table["example"] == ["a"] * 5 + ["b"] * 2
    assert table["label"].tolist() == [1] * 5 + [0] * 2
    assert table["index"].tolist() == INDEX.tolist()
    assert table["token_id"].tolist() == [2, 3, 4, 5, 6, 2, 7]
    assert table["text"] == ["hi", "<think>", " hm", " oh", "yes", "hi", " é"]
    assert table["part"] == ["user", "response", "think", "think", "answer", "user", "user"]
    assert table["layer_3"].dtype == np.float32
    assert table["layer_7"].tolist() == (-SCORES).tolist()


def test_the_matrix_of_an_example(readout):
    assert readout.matrix(1).tolist() == [[13, 21], [-13, -21]]
    assert readout.tokens(1) == [(1, "hi", "user"), (2, " é", "user")]


def test_special_tokens_are_no_part_that_is_summarised():
    acts = activations(owners=np.array([0, 1]), token_index=np.array([0, 0]))
    found = Readout.of(acts, READINGS)
    found.add(3, np.array([1.0, 2.0]))
    assert found.means == {}


def test_activations_of_other_tokens_are_refused():
    other = ((1, 2, 3, 4, 5, 9), READINGS[1].token_ids)
    with pytest.raises(PairingError, match="of other examples or tokens than its prompts"):
        Readout.of(activations(token_ids=other), READINGS)
    with pytest.raises(PairingError, match="2 and 1 examples, 9 and 6 tokens"):
        Readout.of(activations(), READINGS[:1])


def test_pooled_activations_are_refused():
    with pytest.raises(PairingError, match="position mean are not of single tokens"):
        Readout.of(activations(position="mean", owners=None, token_index=None), READINGS)
