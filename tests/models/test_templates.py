"""What the files of a tokenizer say, held to what transformers makes of them."""

import json

import pytest
from transformers import AutoTokenizer

from olmo_stages.errors import ModelError
from olmo_stages.models.templates import added_tokens, chat_template
from tests.chat_tokenizers import INSTRUCT, THINK, byte_level


def in_config(path, template):
    """As older releases keep it: a field of tokenizer_config.json."""
    file = path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}))


@pytest.fixture
def path(tmp_path):
    byte_level().save_pretrained(tmp_path)
    return tmp_path


def as_transformers_has_it(path):
    return AutoTokenizer.from_pretrained(path, trust_remote_code=False).chat_template


def test_no_template(path):
    assert chat_template(path) is None
    assert as_transformers_has_it(path) is None


def test_a_template_in_a_file_of_its_own(path):
    byte_level(THINK).save_pretrained(path)
    assert (path / "chat_template.jinja").is_file()
    assert chat_template(path) == as_transformers_has_it(path) == THINK


def test_a_template_in_the_config_and_the_file_that_overrules_it(path):
    in_config(path, INSTRUCT)
    assert chat_template(path) == as_transformers_has_it(path) == INSTRUCT
    (path / "chat_template.jinja").write_text(THINK)
    assert chat_template(path) == as_transformers_has_it(path) == THINK


def test_of_several_templates_the_default_one(path):
    named = [{"name": "default", "template": THINK}, {"name": "tools", "template": INSTRUCT}]
    in_config(path, named)
    assert chat_template(path) == THINK
    in_config(path, named[1:])
    assert chat_template(path) is None


def test_a_config_that_cannot_be_read_is_named(path):
    (path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer_config.json cannot be read .*again"):
        chat_template(path)


@pytest.mark.parametrize("bos", [False, True])
def test_tokens_that_the_tokenizer_adds(tmp_path, bos):
    tokenizer = byte_level(bos=bos)
    tokenizer.save_pretrained(tmp_path)
    assert added_tokens(tmp_path) == ({"<|endoftext|>"} if bos else set())
    assert (tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id) is bos


def test_tokens_that_the_config_asks_for(path):
    file = path / "tokenizer_config.json"
    tokens = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    flags = {"add_bos_token": True, "add_eos_token": False}
    file.write_text(json.dumps(tokens | flags))
    assert added_tokens(path) == {"<s>"}


@pytest.mark.parametrize(
    "processor",
    [
        {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]},
        {
            "type": "Sequence",
            "processors": [
                {"type": "ByteLevel"},
                {
                    "type": "TemplateProcessing",
                    "single": [
                        {"SpecialToken": {"id": "<s>", "type_id": 0}},
                        {"Sequence": {"id": "A", "type_id": 0}},
                        {"SpecialToken": {"id": "</s>", "type_id": 0}},
                    ],
                },
            ],
        },
    ],
)
def test_tokens_that_other_post_processors_add(path, processor):
    file = path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": processor}))
    assert added_tokens(path) == {"<s>", "</s>"}


def test_a_post_processor_that_only_moves_offsets_adds_nothing(path):
    file = path / "tokenizer.json"
    processor = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": processor}))
    assert added_tokens(path) == set()
