"""Tokenizers and chat templates as the released ones are, built here: no file is fetched.

The byte-level one cuts like dolma2 (its pre-tokenizer's pattern) and has merges that matter at the
borders: `<think>` is three ordinary tokens, and `>` merges with a line end behind it. A chat
template is written from what the stages' templates are known to render.
"""

from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MERGES = (
    *("< t", "<t h", "i n", "in k", "t h", "th ink"),
    *("Ċ Ċ", "> Ċ", "> ĊĊ", "> <", ">< /", "< /"),
)

_TURNS = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{{ '<|im_start|>system\n' + message['content'] + SYSTEM_TAIL + '<|im_end|>\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' + message['content'] }}"
    "{% if loop.last %}{{ eos_token }}{% else %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% else %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|im_start|>assistant\nOPENING' }}{% endif %}"
    "{% endfor %}"
)
NO_FUNCTIONS = "You do not currently have access to any functions. <functions></functions>"
THINK_SYSTEM = "You are a helpful AI assistant."
INSTRUCT_SYSTEM = f"You are a helpful function-calling AI assistant. {NO_FUNCTIONS}"


def _chatml(system, *, tail="", opening=""):
    """ChatML with a default system turn, as the stages have it."""
    default = (
        "{% if messages[0]['role'] != 'system' %}"
        f"{{{{ '<|im_start|>system\n{system}<|im_end|>\n' }}}}"
        "{% endif %}"
    )
    return default + _TURNS.replace("SYSTEM_TAIL", f"'{tail}'").replace("OPENING", opening)


THINK = _chatml(THINK_SYSTEM, tail=f" {NO_FUNCTIONS}", opening="<think>")
"""Think stages: an opened trace at the end, and a tail on a system turn of the user's own."""

INSTRUCT = _chatml(INSTRUCT_SYSTEM)
"""Instruct stages."""

PLAIN = (
    "{% for message in messages %}"
    "{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% endfor %}"
)
"""Contents and nothing done to them."""

TULU = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% if loop.last and message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""OLMo 2: the template itself writes the BOS."""


def byte_level(template=None, *, merges=MERGES, bos=False, bos_token="<|endoftext|>"):
    """A byte-level BPE; `bos` = its post-processor adds a BOS to every text."""
    return _byte_level(template, tuple(merges), bos, bos_token)


@cache
def _byte_level(template, merges, bos, bos_token):
    pairs = [tuple(merge.split()) for merge in merges]
    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in pairs)]
    raw = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(symbols)}, merges=pairs))
    raw.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(list(SPECIAL))
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{bos_token} $A", special_tokens=[(bos_token, raw.token_to_id(bos_token))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=bos_token,
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.chat_template = template
    return tokenizer


def texts(prompt, tokenizer, indices):
    """What these tokens of a prompt say."""
    return [tokenizer.decode([prompt.token_ids[i]]) for i in indices]


def small_model(path, tokenizer):
    """A checkpoint directory: a random OLMo 3 of two blocks, and the tokenizer."""
    import torch
    from transformers import Olmo3Config
    from transformers.models.olmo3 import Olmo3ForCausalLM

    torch.manual_seed(0)
    config = Olmo3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        sliding_window=32,
        layer_types=["sliding_attention", "full_attention"],
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = Olmo3ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
