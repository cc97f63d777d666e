"""Tokens along a vector on a real model: against pooled positions, and cut from the left."""

import numpy as np
import pytest

from olmo_stages.activations.extraction import Source
from olmo_stages.activations.store import Store
from olmo_stages.data.dataset import Dataset
from olmo_stages.models.compute import Compute
from olmo_stages.types import Example, Message, Stage
from olmo_stages.vectors.files import TraitVector
from tests.analyses.test_projection import projection
from tests.chat_tokenizers import THINK, byte_level, small_model

CLOSE = 2e-6
"""Of scores of size 1 to 3: sums of float32, in another order."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    path = small_model(tmp_path_factory.mktemp("model") / "think", byte_level(THINK))
    return Stage("think", "custom", str(path))


@pytest.fixture(scope="module")
def vector(tmp_path_factory):
    path = tmp_path_factory.mktemp("vector") / "v.safetensors"
    directions = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)
    TraitVector(
        trait="curt",
        vectors=dict(enumerate(directions)),
        layer_types={0: "sliding_attention", 1: "full_attention"},
        site="resid_post",
        position="mean",
        kind="mean_difference",
        midpoint={0: 0.3, 1: -0.2},
        separation={0: 1.5, 1: 2.5},
    ).save(path)
    return str(path)


def chats():
    words = ["say é now", "what is 2", "hi 🙂 there", "go on then please"]
    return tuple(
        Example(
            id=f"e{i}",
            group=f"g{i // 2}",
            label=i % 2,
            messages=(
                Message("user", words[i % 4] + "?" * (i % 5)),
                Message("assistant", f"<think>\nhm {i} {'so ' * (i % 3)}é\n</think>\nno {i}"),
            ),
        )
        for i in range(12)
    )


@pytest.fixture
def make(tmp_path):
    def source(max_length=None):
        compute = Compute(device="cpu", dtype="float32", token_budget=200, threads=None)
        data = Dataset("chats", chats(), "chat_native")
        store = Store(tmp_path / "store")
        return Source(data, compute, tmp_path / "cache", store=store, max_length=max_length)

    return source


def analyse(source, stage, vector, **options):
    quick = {"vector": vector, "tokens": True, "n_resamples": 100, "n_permutations": 0}
    return projection(**quick | options)(stage, None, source, seed=0)


@pytest.mark.parametrize(
    ("position", "parts"),
    [
        ("think_mean", {"think"}),
        ("answer_mean", {"answer"}),
        ("response_mean", {"think", "answer", "response"}),
        ("mean", {"think", "answer", "response", "user", "template"}),
    ],
)
@pytest.mark.parametrize("max_length", [None, 28])
def test_means_of_tokens_are_the_scores_of_pooled_positions(
    make, stage, vector, position, parts, max_length
):
    result = analyse(make(max_length), stage, vector, position=position)
    tokens, pooled = result.tables["tokens"], result.tables["examples"]
    assert any("longer than the context" in it for it in result.warnings) is bool(max_length)
    inside = np.isin(tokens["part"], list(parts))
    for layer in ("layer_0", "layer_1"):
        for name, expected in zip(pooled["example"], pooled[layer], strict=True):
            own = inside & (np.array(tokens["example"]) == name)
            assert tokens[layer][own].astype(np.float64).mean() == pytest.approx(
                expected, abs=CLOSE
            )
    name = position.removesuffix("_mean")
    if name in {"think", "answer", "response"}:
        (row,) = [
            it
            for it in result.measurements
            if (it.metric, it.variant, it.layer) == ("projection_part", name, 1)
        ]
        assert row.value == pytest.approx(float(pooled["layer_1"].mean()), abs=CLOSE)
        assert row.n == 12


def test_part_means_of_another_part_differ(make, stage, vector):
    result = analyse(make(), stage, vector, position="think_mean")
    tokens, pooled = result.tables["tokens"], result.tables["examples"]
    answer = np.array(tokens["part"]) == "answer"
    own = answer & (np.array(tokens["example"]) == "e0")
    assert abs(tokens["layer_1"][own].mean() - pooled["layer_1"][0]) > 100 * CLOSE


@pytest.mark.parametrize("max_length", [None, 28])
def test_texts_are_those_of_the_tokens(make, stage, vector, max_length):
    tokens = analyse(make(max_length), stage, vector).tables["tokens"]
    decode = byte_level(THINK).decode
    for name in ("e0", "e2", "e11"):
        own = [i for i, it in enumerate(tokens["example"]) if it == name]
        for run in ("think", "answer"):
            part = [i for i in own if tokens["part"][i] == run]
            said = "".join(tokens["text"][i] for i in part)
            assert said == decode(tokens["token_id"][part])
    assert "hm 0 é" in "".join(tokens["text"])


def test_tokens_take_nothing_from_the_scores_of_examples(make, stage, vector):
    whole, plain = (analyse(make(), stage, vector, tokens=it) for it in (True, False))
    assert set(plain.tables) == {"examples"}
    assert np.array_equal(whole.tables["examples"]["layer_1"], plain.tables["examples"]["layer_1"])
    metrics = {it.metric for it in plain.measurements}
    assert {"projection", "projection_raw", "projection_auroc", "projection_separation"} == metrics
