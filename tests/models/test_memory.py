"""Running out of memory, with the error injected where torch would raise it."""

import pytest
import torch

from olmo_stages.errors import ModelError
from olmo_stages.models import forward
from olmo_stages.models.captures import Capture, Key
from olmo_stages.models.discovery import find_decoder
from olmo_stages.models.forward import Item, pooled
from olmo_stages.models.memory import TokenBudget, is_exhausted

POST = Capture("resid_post", "last")
KEY = Key("resid_post", "last", 7)
CPU = torch.device("cpu")
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
]


def items(n, length=6):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(2, 97, (n, length), generator=generator).tolist()
    return [Item(f"e{i}", tuple(row), {"last": (length - 1,)}) for i, row in enumerate(rows)]


def limit(monkeypatch, largest, error):
    """Let batches of more than `largest` tokens run out of memory halfway; lists what ran."""
    ran, run = [], forward._run

    def limited(decoder, batch, captures, layers):
        found = run(decoder, batch, captures, layers)
        size = len(batch) * max(len(item.token_ids) for item in batch)
        ran.append([item.id for item in batch])
        if size > largest:
            raise error
        return found

    monkeypatch.setattr(forward, "_run", limited)
    return ran


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_failed_batch_is_redone_in_halves_with_the_same_rows(models, monkeypatch, error):
    decoder = find_decoder(models("olmo3"))
    whole = pooled(decoder, items(11), [POST], (7,), token_budget=12)[KEY]
    ran = limit(monkeypatch, 12, error)
    budget, told = TokenBudget(48), []
    found = pooled(decoder, items(11), [POST], (7,), token_budget=budget, on_batch=told.append)
    # The batches that succeed are those of a budget of 12, so not even rounding differs.
    assert torch.equal(found[KEY], whole)
    assert [len(batch) for batch in ran] == [8, 4, 2, 2, 2, 2, 2, 1]
    assert told == [2, 2, 2, 2, 2, 1]
    assert budget.tokens == 12


def test_an_error_in_the_middle_loses_and_doubles_no_row(models, monkeypatch):
    decoder = find_decoder(models("olmo3"))
    whole = pooled(decoder, items(10), [POST], (7,), token_budget=24)[KEY]
    run, calls = forward._run, []

    def second_fails(*args):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run(*args)

    monkeypatch.setattr(forward, "_run", second_fails)
    found = pooled(decoder, items(10), [POST], (7,), token_budget=24)[KEY]
    assert found.shape == whole.shape
    # Batches of other sizes: rounding of float32.
    assert float((found - whole).norm() / whole.norm()) < 1e-5


def test_each_halving_is_one_line_and_lasts(models, monkeypatch):
    decoder = find_decoder(models("olmo3"))
    limit(monkeypatch, 24, MemoryError())
    lines = []
    budget = TokenBudget(48, lines.append)
    for _ in range(2):
        pooled(decoder, items(8), [POST], (7,), token_budget=budget)
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert "8 x 6 tokens" in lines[0]
    assert "48 -> 24" in lines[0]


def test_a_budget_above_what_a_batch_held_still_shrinks_the_batch():
    budget = TokenBudget(10_000)
    budget.halve(4, 6, [CPU])
    assert budget.tokens == 12


def test_one_example_that_does_not_fit_stops_with_the_numbers(models, monkeypatch):
    decoder = find_decoder(models("olmo3"))
    limit(monkeypatch, 5, MemoryError())
    with pytest.raises(ModelError, match="one example of 6 tokens") as caught:
        pooled(decoder, items(4), [POST], (7,), token_budget=12)
    text = str(caught.value)
    assert "token budget 6" in text
    for remedy in ("compute=int8", "compute.device_map=auto", "max_length"):
        assert remedy in text
    assert "\n" not in text


def test_the_memory_of_the_machine_is_named_where_it_is_known(monkeypatch):
    monkeypatch.setattr(
        "olmo_stages.models.memory.free_bytes", lambda _device: (1_200_000_000, 80_000_000_000)
    )
    with pytest.raises(ModelError, match=r"1\.2 of 80\.0 GB free on cpu"):
        TokenBudget(6).halve(1, 6, [CPU])


def test_other_errors_are_not_taken_for_exhausted_memory(models, monkeypatch):
    decoder = find_decoder(models("olmo3"))
    limit(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        pooled(decoder, items(2), [POST], (7,), token_budget=12)
    assert not is_exhausted(ModelError("example 'out of memory' is not finite"))
