"""Where a model goes that one GPU does not hold, decided and computed with GPUs that are pretended.

What only real GPUs show, copies between them and memory that runs out on one of them, is not.
"""

import pytest
import torch
from safetensors.torch import load_file, save_file

from olmo_stages.activations import held_model
from olmo_stages.activations.request import describe
from olmo_stages.data.dataset import Dataset
from olmo_stages.errors import ModelError
from olmo_stages.models import families, fitting, memory, placement
from olmo_stages.models.captures import Capture
from olmo_stages.models.checkpoints import Checkpoint
from olmo_stages.models.compute import Compute
from olmo_stages.models.discovery import find_decoder
from olmo_stages.models.fitting import SHARE, weights_of
from olmo_stages.models.forward import Item, pooled
from olmo_stages.models.generation import Asked, Writing, write
from olmo_stages.models.loading import Loaded, load, places
from olmo_stages.models.sites import devices_of
from olmo_stages.types import Example, Stage
from tests.models.pretended import Gpus, spread

SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
CAPTURES = [Capture(site, position) for site in SITES for position in ("last", "mean", "tokens")]
ITEMS = [
    Item("a", (5, 6, 7, 8), {"last": (3,), "mean": (1, 2, 3), "tokens": (1, 2)}),
    Item("b", (9, 10, 11), {"last": (2,), "mean": (1, 2), "tokens": (0, 2)}),
]
ASKED = [Asked("a", (5, 6, 7, 8), 6), Asked("b", (9, 10, 11), 9)]
FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)


@pytest.fixture
def visible(monkeypatch):
    """Lets torch see GPUs with so many bytes free; None = one that cannot be used."""

    def see(*free):
        def info(index):
            if free[index] is None:
                raise RuntimeError("CUDA-capable device(s) is/are busy or unavailable")
            return int(free[index]), int(2 * max(it or 0 for it in free))

        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "mem_get_info", info)

    return see


def decide(path, *, device="cuda", dtype="bfloat16", quantisation="none"):
    """Where a checkpoint goes, and what is said of it."""
    said = []
    stage = Stage("mine", "custom", str(path))
    where = {"dtype": dtype, "device": device, "quantisation": quantisation}
    found = places(stage, Checkpoint(path, None), say=said.append, **where)
    return found, said


def size(path, dtype="bfloat16", quantisation="none"):
    return weights_of(families.native_config(path), dtype, quantisation).n_bytes


def test_the_size_is_that_of_the_weights_in_memory(released):
    path = released()
    stage = Stage("mine", "custom", str(path))
    for dtype in ("float32", "bfloat16"):
        model = load(stage, Checkpoint(path, None), dtype=dtype, device="cpu").model
        weights = sum(it.numel() * it.element_size() for it in model.parameters())
        assert 0 <= size(path, dtype) - weights < 1000  # and the frequencies of rotary embeddings
    head = model.lm_head.weight.numel() * 2
    matrices = sum(it.numel() for name, it in model.named_parameters() if "_proj" in name)
    small = size(path, quantisation="int8")
    assert size(path) - small == matrices
    assert size(path) - size(path, quantisation="int4") == pytest.approx(1.5 * matrices)
    assert small > head


def test_tied_embeddings_count_once(released):
    path = released(tie_word_embeddings=True)
    assert size(path) < weights_of(untied(path), "bfloat16", "none").n_bytes


def untied(path):
    config = families.native_config(path)
    config.tie_word_embeddings = False
    return config


def test_a_model_that_fits_on_one_gpu_stays_on_it(released, visible):
    path = released()
    visible(1.2 * size(path), 100 * size(path))
    assert decide(path) == (None, [])


def test_a_model_that_one_gpu_does_not_hold_is_spread_over_two(released, visible):
    path = released()
    needed = size(path)
    visible(0.9 * needed, 0.9 * needed, 0.9 * needed, 0.9 * needed)
    found, said = decide(path)
    assert set(found.values()) == {0, 1}
    # In order: hidden states go from one to the other once.
    blocks = [found[f"model.layers.{i}"] for i in range(4)]
    assert blocks == sorted(blocks)
    assert found["model.embed_tokens"] == 0
    (line,) = said
    assert "mine: weights of" in line
    assert line.endswith("spread over cuda:0 and cuda:1")


def test_three_are_taken_where_two_are_too_small(released, visible):
    path = released(num_hidden_layers=8, layer_types=["full_attention"] * 8)
    visible(*[0.5 * size(path)] * 4)
    assert set(decide(path)[0].values()) == {0, 1, 2}


def test_no_gpu_gets_more_than_it_has(released, visible):
    path = released(num_hidden_layers=8, layer_types=["full_attention"] * 8)
    free = [0.35 * size(path), 1.05 * size(path), 0]
    visible(*free)
    weights = weights_of(families.native_config(path), "bfloat16", "none")
    found, _said = decide(path)
    from accelerate.utils import compute_module_sizes

    sizes = compute_module_sizes(weights.model)
    for index, room in enumerate(free):
        assert sum(sizes[name] for name, gpu in found.items() if gpu == index) <= SHARE * room


def test_a_gpu_that_cannot_be_used_is_left_out(released, visible):
    path = released()
    needed = size(path)
    visible(0.8 * needed, None, 0.9 * needed)
    assert set(decide(path)[0].values()) == {0, 2}


def test_dtype_and_quantisation_decide_too(released, visible):
    path = released()
    visible(*[1.2 * size(path)] * 3)
    assert decide(path)[0] is None
    assert decide(path, dtype="float32")[0] is not None
    visible(0.8 * size(path), 0.8 * size(path))
    assert decide(path, quantisation="int8")[0] is None
    assert decide(path)[0] is not None


@pytest.mark.parametrize("quantisation", ["int8", "int4"])
def test_quantised_weights_are_spread_by_their_own_size(released, visible, quantisation):
    path = released()
    visible(*[0.9 * size(path, quantisation=quantisation)] * 2)
    assert set(decide(path, quantisation=quantisation)[0].values()) == {0, 1}


def test_tied_embeddings_lie_on_one_gpu(released, visible):
    path = released(tie_word_embeddings=True)
    visible(*[0.8 * size(path)] * 3)
    found, _said = decide(path)
    assert found["lm_head"] == found["model.embed_tokens"]
    assert len(set(found.values())) > 1


def test_what_barely_fits_on_one_gpu_is_tried_where_there_is_no_other(released, visible):
    path = released()
    visible(1.02 * size(path))
    assert decide(path) == (None, [])


@pytest.mark.parametrize("n", [1, 3])
def test_what_fits_nowhere_is_one_line_with_the_options(released, visible, n):
    path = released()
    visible(*[0.2 * size(path)] * n)
    with pytest.raises(ModelError, match="do not fit on the visible") as caught:
        decide(path)
    text = str(caught.value)
    options = ("compute=streamed", "compute=int8", "compute=int4", "more GPUs", "device_map=auto")
    for option in options:
        assert option in text
    assert ("3 GPUs" in text) == (n == 3)
    assert "cuda:0 has" in text
    assert "\n" not in text


def test_what_is_quantised_already_is_not_told_to_be(released, visible):
    path = released()
    visible(100)
    with pytest.raises(ModelError) as caught:
        decide(path, quantisation="int8")
    assert "compute=int4" in str(caught.value)
    assert "compute=int8" not in str(caught.value)


def test_the_memory_of_the_machine_counts_where_there_is_no_gpu(released, monkeypatch):
    path = released()
    assert decide(path, device="cpu") == (None, [])
    monkeypatch.setattr(fitting, "total_bytes", lambda: 1000)
    with pytest.raises(ModelError, match=r"memory of this machine .* use compute=streamed"):
        decide(path, device="cpu")
    monkeypatch.setattr(fitting, "total_bytes", lambda: None)
    assert decide(path, device="cpu") == (None, [])


def test_the_memory_of_this_machine_is_known():
    total = memory.total_bytes()
    assert total is None or total > 2**28


@pytest.fixture
def held(checkpoints, tmp_path, monkeypatch):
    """What a job's model is loaded with, on a machine that is said to have GPUs."""

    def hold(**options):
        compute = Compute(
            **{"device": "auto", "dtype": "bfloat16", "token_budget": 64, "threads": None} | options
        )
        monkeypatch.setattr(Compute, "resolve_device", lambda _self: "cuda")
        loaded = []
        monkeypatch.setattr(
            "olmo_stages.models.loading.load", lambda *_args, **given: loaded.append(given)
        )
        stage = Stage("mine", "custom", str(checkpoints[0]))
        data = Dataset("d", tuple(Example(f"e{i}", f"g{i}", i % 2, f"text {i}") for i in range(4)))
        work = describe(stage, data, compute, tmp_path, max_length=None)
        model = held_model.HeldModel(compute)
        model.of(work)
        return loaded[0]["device_map"], size(checkpoints[0])

    return hold


def test_a_job_is_spread_by_itself_and_says_so(held, visible, capsys):
    visible(10**6, 10**6)
    _none, needed = held()
    visible(0.8 * needed, 0.8 * needed)
    device_map, _needed = held()
    assert set(device_map.values()) == {0, 1}
    assert "spread over cuda:0 and cuda:1" in capsys.readouterr().err


def test_a_job_that_asks_for_a_map_gets_that_map(held, visible):
    visible(100)
    assert held(device_map="auto")[0] == "auto"


def on_two(model, monkeypatch):
    """The model in halves on two GPUs, as `places` would lay it."""
    weights = fitting.Weights(model, "none")
    found = weights.over(dict.fromkeys((0, 1), int(0.8 * weights.n_bytes)))
    assert set(found.values()) == {0, 1}
    return spread(model, found, monkeypatch)


@pytest.mark.parametrize("family", ["olmo3", "llama", "gemma2", "gpt2"])
def test_blocks_on_two_gpus_change_no_number(fresh_model, family, monkeypatch):
    """Every site and position, padding, tied embeddings (gemma2, gpt2); rows come to the CPU."""
    decoder = find_decoder(fresh_model(family))
    layers = tuple(range(-1, len(decoder.blocks)))
    expected = pooled(decoder, ITEMS, CAPTURES, layers, token_budget=64)
    with Gpus():
        decoder = find_decoder(on_two(fresh_model(family), monkeypatch))
        assert devices_of(decoder.model) == (FIRST, SECOND)
        found = pooled(decoder, ITEMS, CAPTURES, layers, token_budget=64)
        assert {it.device for it in found.values()} == {torch.device("cpu")}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_pretended_gpus_notice_what_real_ones_would(fresh_model, monkeypatch):
    """The control: without accelerate's hooks the same pass fails."""
    with Gpus():
        model = on_two(fresh_model("olmo3"), monkeypatch)
        for module in model.modules():
            if hasattr(module, "_hf_hook"):
                module._hf_hook.pre_forward = lambda _module, *args, **kwargs: (args, kwargs)
        with pytest.raises(RuntimeError, match="tensors on different devices, cuda:0, cuda:1"):
            find_decoder(model)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("family", ["olmo3", "gemma2"])
def test_responses_of_a_model_on_two_gpus_are_the_same(
    fresh_model, family, temperature, monkeypatch
):
    writing = Writing(frozenset({1}), 97, temperature, seed=3)

    def respond(model):
        loaded = Loaded(Stage("mine", "custom", "x"), model, find_decoder(model))
        return write(loaded, ASKED, writing, token_budget=64)

    expected = respond(fresh_model(family))
    assert any(it.token_ids for it in expected)
    with Gpus():
        assert respond(on_two(fresh_model(family), monkeypatch)) == expected


def test_memory_that_runs_out_on_one_of_two_gpus_halves_the_batch(fresh_model, monkeypatch):
    decoder = find_decoder(fresh_model("olmo3"))
    expected = pooled(decoder, ITEMS, CAPTURES, (7,), token_budget=4)
    lines, emptied = [], []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    monkeypatch.setattr(memory, "free_bytes", lambda device: (device.index * 10**9, 8 * 10**9))
    with Gpus():
        decoder = find_decoder(on_two(fresh_model("olmo3"), monkeypatch))
        full(decoder.blocks[6].module)
        budget = memory.TokenBudget(64, lines.append)
        found = pooled(decoder, ITEMS, CAPTURES, (7,), token_budget=budget)
    assert emptied
    assert "0.0 of 8.0 GB free on cuda:0, 1.0 of 8.0 GB free on cuda:1" in lines[0]
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def full(module):
    """Let a module run out of memory with more than one example."""
    forward = module.forward

    def limited(hidden_states, *args, **kwargs):
        if len(hidden_states) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. GPU 1 has a total capacity of")
        return forward(hidden_states, *args, **kwargs)

    module.forward = limited


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_is_loaded_part_by_part_to_where_it_belongs(released, tied):
    path = without_head(released(tie_word_embeddings=True)) if tied else released(shards=2)
    stage = Stage("mine", "custom", str(path))
    parts = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
    laid = dict.fromkeys(parts, "cpu") | {f"model.layers.{i}": "cpu" for i in range(4)}
    rows = []
    for device_map in (None, laid | {"model.layers.2": "disk"}):
        loaded = load(
            stage, Checkpoint(path, None), dtype="float32", device="cpu", device_map=device_map
        )
        rows.append(pooled(loaded.decoder, ITEMS, CAPTURES, (1, 3), token_budget=64))
    told = placement.where(loaded.model)
    assert {name: it.split(", ")[1] for name, it in told.items()} == {
        "cpu": "7 of 8 parts of the model",
        "disk": "1 of 8 parts of the model",
    }
    assert all(torch.equal(rows[1][key], rows[0][key]) for key in rows[0])


def without_head(path):
    """A checkpoint as tied models are saved."""
    weights = load_file(path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("tied", [False, True])
def test_two_real_gpus_hold_what_one_does_not(released, monkeypatch, tied):
    """One GPU computes it, then two that are said to be too small each."""
    path = without_head(released(tie_word_embeddings=True)) if tied else released()
    stage, checkpoint = Stage("mine", "custom", str(path)), Checkpoint(path, None)
    where = {"dtype": "bfloat16", "device": "cuda", "quantisation": "none"}
    one = load(stage, checkpoint, device_map=places(stage, checkpoint, say=print, **where), **where)
    small = int(0.8 * size(path))
    monkeypatch.setattr(fitting, "_gpu", lambda index: fitting.Gpu(index, small, small))
    two = load(stage, checkpoint, device_map=places(stage, checkpoint, say=print, **where), **where)
    assert {it.device.index for it in two.model.parameters()} == {0, 1}
    assert list(placement.where(two.model)) == ["cuda:0", "cuda:1"]
    expected, found = (
        pooled(it.decoder, ITEMS, CAPTURES, (-1, 0, 1, 2, 3), token_budget=64) for it in (one, two)
    )
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    writing = Writing(frozenset({1}), 97)
    assert write(two, ASKED, writing, token_budget=64) == write(
        one, ASKED, writing, token_budget=64
    )
