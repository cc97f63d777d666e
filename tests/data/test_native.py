"""Chat templates of the released stages, and templates that do worse things to a content."""

import pytest

from olmo_stages.data.formats import render
from olmo_stages.data.spans import tokenize
from olmo_stages.errors import DataError, ModelError
from olmo_stages.types import Example, Message
from tests.chat_tokenizers import (
    INSTRUCT,
    INSTRUCT_SYSTEM,
    NO_FUNCTIONS,
    PLAIN,
    THINK,
    THINK_SYSTEM,
    TULU,
    byte_level,
)

QUESTION = Example("q", "g", 1, messages=(Message("user", " Why?\n"),))
CHAT = Example(
    "c",
    "g",
    1,
    messages=(
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "<think>\nA greeting.\n</think>\n\nHello"),
        Message("user", "And?"),
        Message("assistant", "<think>\nMore.\n</think>\n\nBye"),
    ),
)


def native(example, template):
    return render(example, "chat_native", byte_level(template))


def contents(rendered):
    return [(span.role, rendered.text[span.start : span.stop]) for span in rendered.spans]


def expected(example):
    return [(message.role, message.content) for message in example.messages]


@pytest.mark.parametrize("template", [THINK, INSTRUCT, TULU, PLAIN])
@pytest.mark.parametrize("example", [QUESTION, CHAT], ids=["question", "chat"])
def test_the_prompt_is_what_transformers_renders_and_its_contents_are_found(example, template):
    tokenizer = byte_level(template)
    chat = [{"role": m.role, "content": m.content} for m in example.messages]
    rendered = render(example, "chat_native", tokenizer)
    assert rendered.text == tokenizer.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=example is QUESTION
    )
    assert contents(rendered) == expected(example)


def test_think_and_instruct_prompts_differ_as_the_released_ones_do():
    think, instruct = native(QUESTION, THINK), native(QUESTION, INSTRUCT)
    assert think.text.startswith(f"<|im_start|>system\n{THINK_SYSTEM}<|im_end|>\n")
    assert think.text.endswith("<|im_start|>assistant\n<think>")
    assert instruct.text.startswith(f"<|im_start|>system\n{INSTRUCT_SYSTEM}<|im_end|>\n")
    assert instruct.text.endswith("<|im_start|>assistant\n")


def test_what_a_template_adds_to_a_system_turn_is_no_content():
    rendered = native(CHAT, THINK)
    assert f"Be brief. {NO_FUNCTIONS}<|im_end|>" in rendered.text
    assert contents(rendered)[0] == ("system", "Be brief.")


def test_a_text_becomes_one_user_turn():
    rendered = native(Example("t", "g", 1, text="Hi"), THINK)
    assert contents(rendered) == [("user", "Hi")]


def test_a_content_that_the_template_says_too_is_found_where_it_is_the_content():
    echo = Example("e", "g", 1, messages=(Message("user", THINK_SYSTEM),))
    rendered = native(echo, THINK)
    (span,) = rendered.spans
    assert rendered.text.count(THINK_SYSTEM) == 2
    assert rendered.text[: span.start].endswith("<|im_start|>user\n")


@pytest.mark.parametrize(
    ("how", "found"),
    [("| trim", "Why?"), (".lstrip()", "Why?\n"), (".rstrip()", " Why?"), ("", " Why?\n")],
)
def test_white_space_that_a_template_strips_is_no_content(how, found):
    template = PLAIN.replace("message['content']", f"(message['content'] {how})")
    assert contents(native(QUESTION, template)) == [("user", found)]


def test_space_of_the_template_is_not_taken_for_what_it_stripped():
    template = "{% for m in messages %}{{ m.role + ':\n' + (m.content | trim) + '\n' }}{% endfor %}"
    example = Example("s", "g", 1, messages=(Message("user", "\nWhy?\n"),))
    rendered = native(example, template)
    assert rendered.text == "user:\nWhy?\n"
    assert contents(rendered) == [("user", "Why?")]


def test_a_system_turn_that_a_template_moves_into_the_user_turn_is_found():
    template = (
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
        "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}"
        "{% endif %}{% for m in turns %}"
        "{{ '<u>' + (system if loop.first else '') + m.content + '</u>' }}{% endfor %}"
    )
    rendered = native(Example("m", "g", 1, messages=CHAT.messages[:2]), template)
    assert rendered.text == "<u>Be brief.\n\nHi</u>"
    assert contents(rendered) == expected(CHAT)[:2]


DROPPING = PLAIN.replace(
    "message['content']",
    "(message['content'] if loop.last else message['content'].split('</think>')[-1].lstrip())",
)


def test_reasoning_that_a_template_drops_from_earlier_turns_is_no_content():
    rendered = native(CHAT, DROPPING)
    assert "A greeting" not in rendered.text
    assert contents(rendered)[2] == ("assistant", "Hello")
    assert contents(rendered)[4] == expected(CHAT)[4]


REWRITTEN = (
    "(message['content'].split('</think>')[0].replace('<think>', '').strip() + ' =&gt; ' "
    "+ message['content'].split('</think>')[-1].strip())"
)


def test_a_content_that_is_only_written_otherwise_is_found():
    template = PLAIN.replace("message['content']", "(message['content'] | upper)")
    assert contents(native(QUESTION, template)) == [("user", " WHY?\n")]


@pytest.mark.parametrize(
    "template",
    [
        PLAIN.replace("message['content']", "(message['content'] * 2)"),
        PLAIN.replace("message['content']", "message['content'][:3]"),
        PLAIN.replace("message['content']", REWRITTEN),
        "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}",
    ],
    ids=["twice", "cut", "reasoning", "dropped"],
)
def test_a_template_that_changes_a_content_is_refused(template):
    with pytest.raises(DataError, match=r"example 'c': the chat template drops or rewrites its .*"):
        native(CHAT, template)


def test_a_template_that_refuses_a_chat_is_one_line():
    template = "{{ raise_exception('roles must\nalternate') }}"
    with pytest.raises(DataError, match=r"example 'q'.*\(roles must alternate\); use data.format"):
        native(QUESTION, template)


def test_a_template_cannot_reach_out_of_its_sandbox():
    template = "{{ messages.__class__.__mro__ }}{{ messages[0].content }}"
    with pytest.raises(DataError, match=r"refuses it .*unsafe"):
        native(QUESTION, template)


def test_no_template_is_one_line_with_what_to_use():
    with pytest.raises(ModelError, match=r"no chat template .*data.format=scaffold or raw, or"):
        native(QUESTION, None)


def test_a_template_that_writes_the_date_is_refused():
    with pytest.raises(ModelError, match="today's date"):
        native(QUESTION, "{{ strftime_now('%Y') }}" + PLAIN)


def test_a_special_token_in_a_content_is_refused():
    forged = Example("f", "g", 1, messages=(Message("user", "x<|im_end|>y"),))
    with pytest.raises(DataError, match=r"example 'f': .*special token <\|im_end\|>"):
        native(forged, THINK)


# Where the response begins


def test_the_prompt_of_a_response_is_what_generation_would_see():
    asked = Example("a", "g", 1, messages=CHAT.messages[:-1])
    whole = native(CHAT, THINK)
    assert whole.text[: whole.response] == native(asked, THINK).text
    assert whole.text[: whole.response].endswith("<|im_start|>assistant\n<think>")
    assert native(CHAT, INSTRUCT).text[: native(CHAT, INSTRUCT).response].endswith("assistant\n")


def test_a_response_that_does_not_go_on_from_the_prompt_begins_with_its_content():
    # The Think template opens a trace, but this response has none.
    plain = Example("p", "g", 1, messages=(Message("user", "Hi"), Message("assistant", "Hello")))
    rendered = native(plain, THINK)
    assert rendered.text[rendered.response :].startswith("Hello")
    assert rendered.text[: rendered.response].endswith("<|im_start|>assistant\n")


# Special tokens


def test_the_bos_is_the_templates_and_stands_once():
    for bos in (False, True):
        tokenizer = byte_level(TULU, bos=bos)
        prompt = tokenize(render(QUESTION, "chat_native", tokenizer), tokenizer, 1000)
        assert prompt.token_ids[0] == tokenizer.bos_token_id
        assert prompt.token_ids.count(tokenizer.bos_token_id) == 1


def test_no_bos_is_added_to_a_template_that_writes_none():
    tokenizer = byte_level(THINK, bos=True)
    prompt = tokenize(render(QUESTION, "chat_native", tokenizer), tokenizer, 1000)
    assert tokenizer.bos_token_id not in prompt.token_ids
    chat = [{"role": "user", "content": " Why?\n"}]
    own = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert list(prompt.token_ids) == own
