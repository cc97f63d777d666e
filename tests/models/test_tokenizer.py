"""A tokenizer that cuts texts elsewhere than in training is refused."""

import json
import shutil

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from olmo_stages.errors import ModelError
from olmo_stages.models import vocabulary
from olmo_stages.models.checkpoints import Checkpoint
from olmo_stages.models.tokenizer import (
    DOLMA2_IDS,
    PROBE,
    RARER,
    RARER_IDS,
    load_tokenizer,
)
from tests.models import dolma2
from tests.models.released import released_config


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("dolma2") / "tokenizer.json"
    dolma2.make().save(str(path))
    return path


@pytest.fixture(scope="session")
def made():
    return vocabulary.vocabulary_digest(dolma2.tokens())


@pytest.fixture(autouse=True)
def _digest_of_the_tests(monkeypatch, made):
    """The tokenizer of the tests has fillers in place of most tokens."""
    monkeypatch.setattr(vocabulary, "DOLMA2", made)


@pytest.fixture
def folder(file, tmp_path):
    """Writes config.json, tokenizer_config.json (GPT2Tokenizer, as released) and tokenizer.json."""

    def write(*, change=None, tokenizer_class="GPT2Tokenizer", **config):
        config = {"vocab_size": dolma2.SIZE} | config
        (tmp_path / "config.json").write_text(json.dumps(released_config(**config)))
        own = {"tokenizer_class": tokenizer_class, "eos_token": "<|endoftext|>"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(own))
        shutil.copy(file, tmp_path / "tokenizer.json")
        if change is not None:
            tokenizer = Tokenizer.from_file(str(file))
            change(tokenizer)
            tokenizer.save(str(tmp_path / "tokenizer.json"))
        return Checkpoint(tmp_path, None)

    return write


def cut_by_spaces(tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)


@pytest.mark.parametrize("model_type", ["olmo3", "olmo2", "olmo2-retrofit"])
def test_released_tokenizers_give_the_stored_ids(folder, model_type):
    window = None if model_type == "olmo2" else 4096
    types = None if model_type == "olmo2" else ["full_attention"] * 4
    tokenizer = load_tokenizer(
        folder(model_type=model_type, sliding_window=window, layer_types=types, architectures=None)
    )
    for text, ids in ((PROBE, DOLMA2_IDS), (RARER, RARER_IDS)):
        assert tuple(tokenizer(text)["input_ids"]) == ids
        assert tokenizer.decode(ids) == text


def test_of_a_retrofit_transformers_alone_would_cut_otherwise(folder):
    path = folder(model_type="olmo2-retrofit", rope_scaling=None).path
    alone = AutoTokenizer.from_pretrained(path, local_files_only=True)
    assert type(alone).__name__ == "GPT2Tokenizer"
    assert tuple(alone(PROBE)["input_ids"]) != DOLMA2_IDS


def test_a_class_that_cuts_otherwise_than_its_file_is_refused(folder):
    # A family whose tokenizer transformers takes from the tokenizer's own config.
    checkpoint = folder(model_type="gpt2", layer_types=None, sliding_window=None)
    with pytest.raises(ModelError, match=r"\(GPT2Tokenizer\) cuts .* and its tokenizer.json into"):
        load_tokenizer(checkpoint)


@pytest.mark.parametrize(
    "left",
    [
        lambda tokenizer: tokenizer.enable_truncation(4),
        lambda tokenizer: tokenizer.enable_padding(length=64, pad_id=100277, pad_token="<|pad|>"),
    ],
    ids=["truncation", "padding"],
)
def test_a_file_saved_after_training_on_batches_is_the_same(folder, left):
    tokenizer = load_tokenizer(folder(change=left))
    assert tuple(tokenizer(PROBE)["input_ids"]) == DOLMA2_IDS


def test_the_written_remedy_helps(folder):
    load_tokenizer(folder(model_type="llama", tokenizer_class="PreTrainedTokenizerFast"))


def test_a_file_that_cuts_otherwise_than_olmo_is_refused(folder):
    with pytest.raises(ModelError, match="not as OLMo's training data were cut"):
        load_tokenizer(folder(change=cut_by_spaces))


def passes_the_probes(tokenizer):
    return all(
        tuple(tokenizer.encode(text).ids) == ids
        for text, ids in ((PROBE, DOLMA2_IDS), (RARER, RARER_IDS))
    )


def with_merges(path, pairs):
    """Writes other merges into a tokenizer.json; the probe texts do not show it."""
    content = json.loads(path.read_text())
    content["model"]["merges"] = pairs
    path.write_text(json.dumps(content))
    assert passes_the_probes(Tokenizer.from_file(str(path)))


def test_merges_that_were_cut_short_are_refused(folder, tmp_path):
    checkpoint, merges = folder(), dolma2.merges()
    with_merges(tmp_path / "tokenizer.json", merges[:80_000])
    said = r"20,000 of 100,256 tokens are never made by its 80,000 merges.*\(id 80256\)"
    with pytest.raises(ModelError, match=said):
        load_tokenizer(checkpoint)


def test_merges_in_another_order_are_refused(folder, tmp_path):
    """Both are made all the same, but a word with both is cut elsewhere."""
    checkpoint, merges = folder(), dolma2.merges()
    merges[90_000], merges[99_000] = merges[99_000], merges[90_000]
    with_merges(tmp_path / "tokenizer.json", merges)
    with pytest.raises(ModelError, match=r"its merges make .* before .* in another order"):
        load_tokenizer(checkpoint)


def test_several_ways_to_make_a_token_are_fine():
    """As transformers writes merges that it makes from a tiktoken file."""
    tokens = [*"abc", "ab", "bc", "abc"]
    merges = [("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")]
    vocabulary.check_merges("here", tokens, merges)
    vocabulary.check_merges("here", tokens, merges[:2] + merges[3:])
    with pytest.raises(ModelError, match=r"1 of 6 tokens .* 'abc' \(id 5\) first"):
        vocabulary.check_merges("here", tokens, merges[:3])


def test_two_tokens_that_changed_places_are_refused(folder, tmp_path):
    checkpoint = folder()
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    vocab, names = content["model"]["vocab"], dolma2.tokens()
    one, other = names[90_000], names[99_000]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert passes_the_probes(Tokenizer.from_file(str(tmp_path / "tokenizer.json")))
    with pytest.raises(ModelError, match=r"other tokens than OLMo's at some of the ids"):
        load_tokenizer(checkpoint)


def test_merges_left_out_at_random_are_refused(folder):
    def drop(tokenizer):
        tokenizer.model.dropout = 1e-9

    with pytest.raises(ModelError, match=r"at random \(dropout 1e-09\)"):
        load_tokenizer(folder(change=drop, tokenizer_class="PreTrainedTokenizerFast"))


def test_accents_that_are_joined_to_their_letter_are_refused(folder):
    def compose(tokenizer):
        tokenizer.normalizer = normalizers.NFC()

    with pytest.raises(ModelError, match="not as OLMo's training data were cut"):
        load_tokenizer(folder(change=compose))


@pytest.mark.parametrize("content", ["{}", "{", "[]"])
def test_a_file_that_is_no_tokenizer_is_one_line(folder, tmp_path, content):
    checkpoint = folder()
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_tokenizer(checkpoint)
    assert "\n" not in str(caught.value)


def test_of_other_vocabularies_no_ids_are_stored(folder):
    load_tokenizer(folder(change=cut_by_spaces, vocab_size=dolma2.SIZE + 1, model_type="llama"))


def test_characters_that_are_lost_are_noticed(folder):
    def lose(tokenizer):
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(";", "removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ])

    own = {"model_type": "llama", "tokenizer_class": "PreTrainedTokenizerFast"}
    with pytest.raises(ModelError, match=r"reads .* back as"):
        load_tokenizer(folder(change=lose, vocab_size=dolma2.SIZE + 1, **own))


def test_more_embeddings_than_tokens_are_padding(folder):
    load_tokenizer(folder(vocab_size=100352))


def test_more_tokens_than_embeddings_are_refused(folder):
    with pytest.raises(ModelError, match=r"ids up to 100277, but the model has 50304 embeddings"):
        load_tokenizer(folder(vocab_size=50304))


def test_an_added_token_beyond_the_embeddings_may_never_occur(folder):
    def add(tokenizer):
        tokenizer.add_tokens(["<image>"])

    assert len(load_tokenizer(folder(change=add))) == dolma2.SIZE + 1


def test_a_closed_vocabulary_with_an_unknown_token_passes(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(released_config()))
    words = Tokenizer(models.WordLevel({"<unk>": 0, "word": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(tmp_path)
    load_tokenizer(Checkpoint(tmp_path, None))


def test_the_miniature_tokenizer_passes(checkpoints):
    load_tokenizer(Checkpoint(checkpoints[0], None))


def test_code_of_its_own_is_never_run(folder, tmp_path):
    checkpoint = folder(model_type="llama", tokenizer_class="Own")
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(own))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: ...\n")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_tokenizer(checkpoint)
    assert not (tmp_path / "ran").exists()
