"""What a run will need, against the released shapes and against models on disk."""

import json
import sys

import pytest
import torch
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM, Olmo2Config, Olmo3Config
from transformers.models.olmo3 import Olmo3ForCausalLM

from olmo_stages import plan
from olmo_stages.cli import main
from olmo_stages.errors import ConfigError, ModelError
from olmo_stages.launch import compose
from olmo_stages.shapes import SHAPES, WIDTHS
from tests.models.released import released_config

# As counted in the released checkpoints.
PARAMETERS = {
    ("olmo3", "7b"): 7_298_011_136,
    ("olmo3", "32b"): 32_233_522_176,
    ("olmo2", "1b"): 1_484_916_736,
    ("olmo2", "7b"): 7_298_617_344,
    ("olmo2", "13b"): 13_716_198_400,
    ("olmo2", "32b"): 32_234_279_936,
}
LINEAR_7B = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    """Nothing is downloaded, and nothing is in the hub's cache."""

    def refuse(*_args, **_options):
        raise AssertionError("plan asked the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_options: None)


def needs(*words):
    return plan.plan(compose(["tracking=none", "compute.device=cpu", *words]))


def test_every_released_shape_has_its_parameters():
    assert {key: w.parameters(SHAPES[key].n_layers) for key, w in WIDTHS.items()} == PARAMETERS


@pytest.mark.parametrize("key", [("olmo3", "32b"), ("olmo2", "1b")], ids="-".join)
def test_the_parameters_are_those_of_the_model(key):
    widths, shape = WIDTHS[key], SHAPES[key]
    config = (Olmo3Config if key[0] == "olmo3" else Olmo2Config)(
        vocab_size=widths.n_embeddings,
        hidden_size=widths.d_model,
        intermediate_size=widths.d_ff,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=widths.n_heads,
        num_key_value_heads=widths.n_kv_heads,
        pad_token_id=0,
        eos_token_id=1,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(it.numel() for it in model.parameters()) == PARAMETERS[key]
    block = model.model.layers[0]
    linear = [it for it in block.modules() if isinstance(it, torch.nn.Linear)]
    assert widths.block_matrices == sum(it.weight.numel() for it in linear)
    assert widths.block_rows == sum(it.out_features for it in linear)


def test_each_stage_and_each_reference_has_one_row():
    found = needs("model=think_sft,think_dpo", "size=7b")
    assert [it.stage for it in found] == ["think_sft", "base", "think_dpo"]
    assert {it.parameters for it in found} == {7_298_011_136}
    assert {it.download_bytes for it in found} == {2 * 7_298_011_136}
    alone = needs("model=think_sft", "size=7b", "reference=none")
    assert [it.stage for it in alone] == ["think_sft"]


@pytest.mark.parametrize(
    ("words", "held", "matrices"),
    [
        (["compute.dtype=float32"], "float32", 4 * LINEAR_7B),
        (["compute.dtype=bfloat16"], "bfloat16", 2 * LINEAR_7B),
        (["compute=int8", "compute.dtype=bfloat16"], "int8", LINEAR_7B),
        (["compute=int4", "compute.dtype=bfloat16"], "int4", LINEAR_7B / 2),
    ],
)
def test_weights_take_what_their_kind_takes(words, held, matrices):
    (found,) = needs("model=base", "size=7b", *words)
    rest = (7_298_011_136 - LINEAR_7B) * (4 if held == "float32" else 2)
    assert found.weights == held
    # Scales of quantised weights come on top: below 4 % of 4-bit ones.
    assert matrices + rest <= found.weight_bytes <= 1.04 * matrices + rest
    assert found.peak_bytes > 1.15 * found.weight_bytes


def test_a_larger_token_budget_needs_more_memory():
    small, large = (
        needs("model=base", "size=7b", f"compute.token_budget={n}")[0].peak_bytes
        for n in (1024, 8192)
    )
    assert small < large


def test_the_store_holds_a_row_an_example_and_layer():
    (found,) = needs("model=base", "size=7b", "data=truth", "compute.dtype=bfloat16")
    assert found.examples > 100
    assert found.store_bytes == found.examples * 33 * 4096 * 2
    other = needs("model=base", "size=7b", "data=sentiment", "compute.dtype=bfloat16")[0]
    assert other.tokens != found.tokens


def test_the_miniature_family_is_on_this_machine():
    (found,) = needs("model=base")
    assert (found.size, found.download_bytes) == ("tiny", 0)
    assert found.parameters < 1_000_000


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own"
    (tmp_path / "own").mkdir()
    (path / "config.json").write_text(json.dumps(released_config()))
    model = Olmo3ForCausalLM(AutoConfig.from_pretrained(path))
    model.save_pretrained(path)
    return path, sum(it.numel() for it in model.parameters())


def test_a_directory_is_counted_from_its_files(own):
    path, n_parameters = own
    (found,) = needs("model=custom", f"model.path={path}", "data=truth")
    assert found.parameters == n_parameters
    assert found.weight_bytes == 4 * n_parameters
    assert found.download_bytes == 0


def test_an_adapter_has_the_shape_of_its_base(tmp_path):
    said = {"peft_type": "LORA", "base_model_name_or_path": "allenai/Olmo-3-7B-Think-SFT"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    words = ("model=custom", f"model.path={tmp_path}", "model.parent=think_sft", "size=7b")
    found, base = needs(*words, "data=truth")
    assert (found.stage, base.stage) == (tmp_path.name, "think_sft")
    assert found.parameters == base.parameters == PARAMETERS["olmo3", "7b"]


def test_a_directory_without_a_shape_is_refused(own):
    path, _ = own
    config = json.loads((path / "config.json").read_text())
    del config["intermediate_size"]
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="no intermediate_size"):
        needs("model=custom", f"model.path={path}")


def test_what_is_in_the_hubs_cache_is_not_downloaded(own, monkeypatch):
    path, _ = own
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *_args, **_options: f"{path}/config.json"
    )
    assert needs("model=base", "size=7b")[0].download_bytes == 0
    (path / "model.safetensors").unlink()
    assert needs("model=base", "size=7b")[0].download_bytes > 0


def test_a_repository_of_unknown_shape_is_refused():
    with pytest.raises(ConfigError, match="me/mine is not known before it is downloaded"):
        needs("model=custom", "model.path=me/mine")


@pytest.fixture
def shell(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["olmo-stages", "plan", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        streams = capsys.readouterr()
        return left.value.code or 0, streams.out, streams.err

    return run


def test_the_command_prints_a_row_a_stage(shell):
    code, out, _ = shell("model=think_sft,think_dpo", "size=32b", "compute.dtype=bfloat16")
    assert code == 0
    rows = [line for line in out.splitlines() if "32,233,522,176" in line]
    assert [row.split()[0] for row in rows] == ["think_sft", "base", "think_dpo"]
    assert all("64.5 GB" in row for row in rows)
    assert plan.ASSUMPTIONS[0] in out


def test_the_command_gives_json(shell):
    code, out, _ = shell("model=base", "size=7b", "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert found["stages"][0]["parameters"] == 7_298_011_136
    assert found["disk_bytes"] == (
        found["stages"][0]["download_bytes"] + found["stages"][0]["store_bytes"]
    )


@pytest.mark.parametrize(
    ("word", "said"), [("model=bas", "model=bas does not exist"), ("size=8b", "size=8b")]
)
def test_a_wrong_word_is_one_line(shell, word, said):
    code, _, err = shell(word)
    assert code == 1
    assert said in err
    assert len(err.splitlines()) == 1


def test_the_table_fits_a_hundred_columns(capsys):
    plan.show(needs("model=rl_zero_code_31", "size=7b"), Console(width=100))
    rows = [line for line in capsys.readouterr().out.splitlines() if "7,298,011,136" in line]
    assert rows
    assert max(map(len, rows)) <= 100


def test_streamed_weights_need_two_blocks_of_memory_and_the_hidden_states_of_all_tokens():
    (whole,) = needs("model=base", "size=7b", "reference=none", "compute.dtype=bfloat16")
    (streamed,) = needs(
        "model=base", "size=7b", "reference=none", "compute=streamed", "compute.dtype=bfloat16"
    )
    two_blocks, embeddings = 2 * 2 * LINEAR_7B // 32, 2 * 100278 * 4096
    of_a_batch = whole.peak_bytes - round(plan.LOADING * whole.weight_bytes)
    hidden = of_a_batch + 2 * 4096 * streamed.tokens
    assert streamed.weight_bytes == whole.weight_bytes
    assert streamed.peak_bytes == round(plan.LOADING * max(two_blocks, embeddings)) + hidden


@pytest.mark.parametrize(
    ("words", "gpus"),
    [
        (["size=7b"], ("1 x 24 GB", "2 x 16 GB")),
        (["size=32b"], ("1 x 80 GB", "2 x 40 GB")),
        (["size=32b", "compute=int8"], ("1 x 48 GB", "2 x 24 GB")),
        (["size=32b", "compute.dtype=float32"], ("2 x 80 GB",)),  # no single one
        (["size=32b", "compute=streamed"], ("1 x 16 GB",)),  # which no map spreads
        (["size=tiny"], ("1 x 16 GB",)),
    ],
    ids=lambda it: " ".join(it),
)
def test_how_many_gpus_hold_a_stage(words, gpus):
    (found,) = needs("model=base", "reference=none", "compute.dtype=bfloat16", *words)
    assert found.gpus == gpus


def test_what_another_machine_needs_is_told_here():
    (job,) = compose(["tracking=none", "model=base", "size=7b"])
    on_gpu, on_cpu = (plan.needs(job.model, job.compute, 10, 1000, it) for it in ("cuda", "cpu"))
    assert (on_gpu.weights, on_cpu.weights) == ("bfloat16", "float32")
    assert (on_gpu.device, on_cpu.device) == ("cuda", "cpu")
    assert on_gpu.seconds < on_cpu.seconds
