"""A small random model with a tokenizer on disk, a data set for it, and sources of activations."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import Olmo3Config, PreTrainedTokenizerFast
from transformers.models.olmo3 import Olmo3ForCausalLM

from olmo_stages.activations import extras
from olmo_stages.activations.extraction import Source
from olmo_stages.activations.store import Store
from olmo_stages.data.dataset import Dataset
from olmo_stages.models.compute import Compute
from olmo_stages.types import Example, Stage

WORDS = ("<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(40)))


def build_checkpoint(path, seed=0, n_layers=8):
    torch.manual_seed(seed)
    config = Olmo3Config(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        sliding_window=4,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    model = Olmo3ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(path)
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(path)
    return path


def build_examples(n=11):
    # Lengths in no order, with ties.
    lengths = [2 + (7 * i) % 9 for i in range(n)]
    texts = [
        " ".join(f"w{(5 * i + 3 * j * j + j) % 40}" for j in range(length))
        for i, length in enumerate(lengths)
    ]
    return tuple(
        Example(id=f"e{i}", group=f"g{i}", label=i % 2, text=text) for i, text in enumerate(texts)
    )


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    torch.set_num_threads(1)
    return build_checkpoint(tmp_path_factory.mktemp("model") / "olmo3")


@pytest.fixture
def thrifty(monkeypatch):
    """Passes keep what is asked for and nothing else."""
    monkeypatch.setattr(extras, "SHARE", 0.0)


@pytest.fixture
def stage(checkpoint):
    return Stage("mine", "custom", str(checkpoint))


@pytest.fixture
def dataset():
    return Dataset("toy", build_examples(), "raw")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", heartbeat_s=0.3, shard_examples=4)


@pytest.fixture
def make_source(tmp_path, dataset, store):
    def make(data=None, *, where=None, max_length=None, **options):
        defaults = {"device": "cpu", "dtype": "float32", "token_budget": 64, "threads": None}
        compute = Compute(**defaults | options)
        return Source(
            data or dataset,
            compute,
            tmp_path / "cache",
            store=where or store,
            max_length=max_length,
        )

    return make


@pytest.fixture
def make_checkpoint():
    return build_checkpoint
