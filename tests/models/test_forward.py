import pytest
import torch

from olmo_stages.errors import ModelError, NonFiniteError
from olmo_stages.models import forward
from olmo_stages.models.captures import Capture, Key
from olmo_stages.models.discovery import find_decoder
from olmo_stages.models.forward import Item, batches, pool, pooled

POST = Capture("resid_post", "last")


def item(length, seed=0, name=None):
    generator = torch.Generator().manual_seed(seed)
    ids = tuple(torch.randint(2, 97, (length,), generator=generator).tolist())
    mean = tuple(range(1, length)) or (0,)
    return Item(name or f"e{seed}", ids, {"last": (length - 1,), "mean": mean})


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("family", ["olmo3", "olmo2", "llama", "gpt2"])
@pytest.mark.parametrize("n_pads", [1, 5, 20])
def test_padding_changes_nothing(models, family, n_pads):
    decoder = find_decoder(models(family))
    layers = tuple(range(-1, len(decoder.blocks)))
    captures = [POST, Capture("attn_out", "mean")]
    short, long = item(9, 1), item(9 + n_pads, 2)
    alone = pooled(decoder, [short], captures, layers, token_budget=1)
    together = pooled(decoder, [short, long], captures, layers, token_budget=1000)
    for key, values in alone.items():
        # fp32 rounding; a model that saw the padding would be off by about 1.
        assert relative(together[key][:1], values) < 1e-5
        assert relative(together[key][1:], values) > 0.01


def test_padding_would_matter_without_mask_and_positions(models):
    """Twin of the test above: padding on the left, unannounced, moves the activations."""
    decoder = find_decoder(models("olmo3"))
    short = item(9, 1)
    padded = Item("p", (0,) * 5 + short.token_ids, {"last": (13,)})
    layers = (len(decoder.blocks) - 1,)
    key = Key("resid_post", "last", layers[0])
    alone = pooled(decoder, [short], [POST], layers, token_budget=64)[key]
    assert relative(pooled(decoder, [padded], [POST], layers, token_budget=64)[key], alone) > 0.01


def test_shape_and_rows_of_a_batch(models):
    decoder = find_decoder(models("olmo3"))
    found = pooled(decoder, [item(6, s) for s in range(3)], [POST], (0, 7), token_budget=64)
    for values in found.values():
        assert values.shape == (3, 32)
        assert not torch.equal(values[0], values[1])
        assert not torch.equal(values[1], values[2])


def test_blocks_that_return_tuples_are_read_whole(fresh_model):
    """Control for the block's return value: the same rows, whether a Tensor or a tuple."""
    model = fresh_model("olmo3")
    decoder = find_decoder(model)
    items = [item(6, s) for s in range(3)]
    key = Key("resid_post", "last", 7)
    expected = pooled(decoder, items, [POST], (7,), token_budget=64)[key]
    block = model.model.layers[7]
    handle = block.register_forward_hook(lambda _m, _a, output: (output, None))
    found = pooled(decoder, items, [POST], (7,), token_budget=64)[key]
    handle.remove()
    assert torch.equal(found, expected)


def test_positions_pick_their_tokens(models):
    decoder = find_decoder(models("olmo3"))
    ids = item(6).token_ids
    one = Item("a", ids, {"first_content": (2,), "last": (5,), "mean": (2, 5)})
    captures = [Capture("resid_post", p) for p in ("first_content", "last", "mean")]
    found = pooled(decoder, [one], captures, (3,), token_budget=64)
    third, sixth = found[Key("resid_post", "first_content", 3)], found[Key("resid_post", "last", 3)]
    mean = found[Key("resid_post", "mean", 3)]
    torch.testing.assert_close(mean, (third + sixth) / 2, rtol=1e-6, atol=1e-6)
    assert relative(third, sixth) > 0.01


def test_means_are_summed_in_float32():
    hidden = torch.full((1, 4096, 2), 300.0, dtype=torch.bfloat16)
    chosen = torch.ones(1, 4096, dtype=torch.bool)
    mean = pool(hidden, chosen, mean=True)
    assert mean.dtype == torch.float32
    assert torch.equal(mean, torch.full((1, 2), 300.0))
    # Twin: the same sum in bfloat16 is far off.
    total = torch.zeros(2, dtype=torch.bfloat16)
    for token in hidden[0]:
        total = total + token
    assert float((total / 4096 - 300).abs().max()) > 100


def test_single_tokens_keep_the_models_dtype(fresh_model):
    decoder = find_decoder(fresh_model("olmo3").to(torch.bfloat16))
    found = pooled(decoder, [item(6)], [POST, Capture("resid_post", "mean")], (3,), token_budget=64)
    assert found[Key("resid_post", "last", 3)].dtype == torch.bfloat16
    assert found[Key("resid_post", "mean", 3)].dtype == torch.float32


def test_padding_that_holds_nan_does_not_reach_a_mean():
    hidden = torch.ones(1, 3, 2)
    hidden[0, 2] = float("nan")
    chosen = torch.tensor([[True, True, False]])
    assert torch.equal(pool(hidden, chosen, mean=True), torch.ones(1, 2))


@pytest.mark.parametrize("budget", [1, 7, 12, 30, 1000])
def test_batches_stay_within_the_budget(budget):
    lengths = [12, 9, 9, 5, 4, 4, 3, 1]
    slices = list(batches(lengths, budget))
    assert [length for chunk in slices for length in lengths[chunk]] == lengths
    for chunk in slices:
        group = lengths[chunk]
        assert len(group) == 1 or len(group) * max(group) <= budget


def test_the_token_budget_changes_no_number(models):
    decoder = find_decoder(models("olmo3"))
    items = [item(3 + s, s) for s in range(8)]
    key = Key("resid_post", "last", 7)
    big = pooled(decoder, items, [POST], (7,), token_budget=10_000)[key]
    small = pooled(decoder, items, [POST], (7,), token_budget=1)[key]
    assert relative(small, big) < 1e-5


def count_calls(modules):
    calls = dict.fromkeys(modules, 0)

    def counter(name):
        def hook(*_):
            calls[name] += 1

        return hook

    handles = [m.register_forward_pre_hook(counter(name)) for name, m in modules.items()]
    return calls, handles


@pytest.mark.parametrize(("layers", "n_called"), [((-1,), 0), ((0,), 1), ((1, 4), 5), ((7,), 8)])
def test_nothing_runs_beyond_the_last_layer(models, layers, n_called):
    model = models("olmo3")
    decoder = find_decoder(model)
    modules = {i: block.self_attn for i, block in enumerate(model.model.layers)}
    calls, handles = count_calls(modules | {"head": model.lm_head, "norm": model.model.norm})
    pooled(decoder, [item(5)], [POST], layers, token_budget=64)
    for handle in handles:
        handle.remove()
    assert [calls[i] for i in range(8)] == [1] * n_called + [0] * (8 - n_called)
    assert calls["head"] == 0
    assert calls["norm"] == 0


def test_the_head_counter_counts(models):
    """Twin: the same counter does see a full forward pass."""
    model = models("olmo3")
    calls, handles = count_calls({"head": model.lm_head})
    with torch.no_grad():
        model(torch.tensor([[1, 2]]))
    handles[0].remove()
    assert calls["head"] == 1


def hooked(model):
    return [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_hooks_are_removed(models):
    model = models("olmo3")
    pooled(find_decoder(model), [item(5)], [POST], (2,), token_budget=64)
    assert hooked(model) == []


def test_hooks_are_removed_after_an_exception(models, monkeypatch):
    model = models("olmo3")
    decoder = find_decoder(model)
    seen = []

    def fail(*_args, **_kwargs):
        seen.append(len(hooked(model)))
        raise RuntimeError("in the middle")

    monkeypatch.setattr(forward, "pool", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        pooled(decoder, [item(5)], [POST], (2,), token_budget=64)
    assert seen == [1]  # the hooks were there
    assert hooked(model) == []


def test_non_finite_activations_name_layer_and_example(fresh_model):
    model = fresh_model("olmo3")
    decoder = find_decoder(model)
    with torch.no_grad():
        model.model.embed_tokens.weight[96] = float("nan")
    bad = Item("bad", (3, 96, 4), {"last": (2,)})
    items = [Item("good", (3, 5, 4, 6), {"last": (3,)}), bad]
    with pytest.raises(NonFiniteError, match="layer 0, resid_post: activations of example 'bad'"):
        pooled(decoder, items, [POST], (0, 3), token_budget=64)
    pooled(decoder, items[:1], [POST], (0, 3), token_budget=64)


def test_token_ids_without_embedding_are_refused(models):
    decoder = find_decoder(models("olmo3"))
    with pytest.raises(ModelError, match=r"example 'x'.*97 embeddings"):
        pooled(decoder, [Item("x", (3, 97), {"last": (1,)})], [POST], (0,), token_budget=64)


# Tokens as rows

TOKENS = Capture("resid_post", "tokens")


def with_tokens(length, seed):
    """An item whose tokens are every second one from 1 on, and whose mean is over the same."""
    some = tuple(range(1, length, 2))
    return Item(f"e{seed}", item(length, seed).token_ids, {"tokens": some, "mean": some})


def states_of(model, one, layer):
    """Hidden states by transformers itself: one sequence, no hooks, no padding."""
    with torch.no_grad():
        ids = torch.tensor([one.token_ids])
        return model.model(ids, output_hidden_states=True).hidden_states[layer + 1][0]


def test_token_rows_are_the_hidden_states_at_their_tokens(fresh_model):
    model = fresh_model("olmo3")  # transformers leaves hooks of its own behind
    items = [with_tokens(length, s) for s, length in enumerate((9, 4, 13))]
    found = pooled(find_decoder(model), items, [TOKENS], (-1, 3), token_budget=1000)
    for layer in (-1, 3):
        states = [states_of(model, one, layer) for one in items]
        pairs = list(zip(states, items, strict=True))
        expected = torch.cat([s[list(one.tokens["tokens"])] for s, one in pairs])
        rows = found[Key(*TOKENS, layer)]
        assert rows.shape == (4 + 2 + 6, 32)
        assert relative(rows, expected) < 1e-5  # fp32 rounding
        # Twin: the neighbouring tokens are other rows.
        neighbours = torch.cat([s[[i - 1 for i in one.tokens["tokens"]]] for s, one in pairs])
        assert relative(rows, neighbours) > 0.01


def test_the_mean_of_an_examples_rows_is_its_mean(models):
    items = [with_tokens(length, s) for s, length in enumerate((9, 4, 13))]
    captures = [TOKENS, Capture("resid_post", "mean")]
    found = pooled(find_decoder(models("olmo3")), items, captures, (5,), token_budget=1000)
    rows = found[Key(*TOKENS, 5)].split([4, 2, 6])
    for own, mean in zip(rows, found[Key("resid_post", "mean", 5)], strict=True):
        torch.testing.assert_close(own.mean(dim=0), mean, rtol=1e-5, atol=1e-5)
    assert relative(rows[0].mean(dim=0), found[Key("resid_post", "mean", 5)][1]) > 0.01


def test_the_token_budget_changes_no_token_row(models):
    decoder = find_decoder(models("olmo3"))
    items = [with_tokens(3 + s, s) for s in range(8)]
    key = Key(*TOKENS, 7)
    big = pooled(decoder, items, [TOKENS], (7,), token_budget=10_000)[key]
    small = pooled(decoder, items, [TOKENS], (7,), token_budget=1)[key]
    assert big.shape == small.shape
    assert relative(small, big) < 1e-5


def test_token_rows_keep_the_models_dtype(fresh_model):
    decoder = find_decoder(fresh_model("olmo3").to(torch.bfloat16))
    found = pooled(decoder, [with_tokens(6, 0)], [TOKENS], (3,), token_budget=64)
    assert found[Key(*TOKENS, 3)].dtype == torch.bfloat16


def test_a_non_finite_token_row_names_its_example(fresh_model):
    model = fresh_model("olmo3")
    with torch.no_grad():
        model.model.embed_tokens.weight[96] = float("nan")
    first = Item("first", (3, 5, 4, 6, 7), {"tokens": (1, 2, 3, 4)})
    bad = Item("bad", (3, 4, 96), {"tokens": (2,)})
    with pytest.raises(NonFiniteError, match="layer 0, resid_post: activations of example 'bad'"):
        pooled(find_decoder(model), [first, bad], [TOKENS], (0,), token_budget=64)


@pytest.mark.parametrize(("position", "tokens"), [("last", (1, 2)), ("tokens", ()), ("mean", ())])
def test_a_wrong_number_of_tokens_is_refused(models, position, tokens):
    one = Item("x", (3, 4, 5), {position: tokens})
    capture = Capture("resid_post", position)
    with pytest.raises(ModelError, match=f"position '{position}' must choose"):
        pooled(find_decoder(models("olmo3")), [one], [capture], (0,), token_budget=64)
