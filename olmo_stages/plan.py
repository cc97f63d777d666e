"""`olmo-stages plan`: what a run will need, before anything is downloaded.

From the shapes of the released sizes, or from the files of a checkpoint on this machine; neither
the hub nor a model is asked. Everything but parameters and weight bytes is an estimate, and
`ASSUMPTIONS` says from what.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from olmo_stages import miniature
from olmo_stages.errors import ConfigError, ModelError
from olmo_stages.experiment import Experiment
from olmo_stages.miniature.world import vocabulary
from olmo_stages.models import adapter_files, digests
from olmo_stages.models.compute import Compute
from olmo_stages.rates import CHARACTERS_PER_TOKEN, FLOPS, READ_BYTES, tokens
from olmo_stages.shapes import WIDTHS, Widths
from olmo_stages.soups import is_miniature
from olmo_stages.stages import MINIATURE, release
from olmo_stages.types import Stage

LOADING = 1.15
GPU_GB = (16, 24, 40, 48, 80)
TIME = (
    f"weights read at {READ_BYTES / 1e9:.0f} GB/s + 2 x parameters x tokens operations at "
    f"{FLOPS['cuda'] / 1e12:.0f} TFLOP/s on a GPU, {FLOPS['cpu'] / 1e12:.1f} on a CPU"
)
"""What the time of a forward pass is estimated from."""
ASSUMPTIONS = (
    f"peak memory = {LOADING} x weights + hidden states of a batch of compute.token_budget tokens; "
    "with compute=streamed two blocks, or the embeddings, in place of the weights, and hidden "
    "states of all tokens, which may go to disk",
    "download = released weights as bfloat16 (twice that where a repository holds float32)",
    f"GPUs = the smallest of {', '.join(map(str, GPU_GB))} GB that hold the peak, of each so many "
    "billion bytes; several share the weights by themselves, and each has room for all "
    "hidden states",
    f"tokens = characters of the data / {CHARACTERS_PER_TOKEN}; what data.respond writes is not "
    "counted, neither its tokens nor the time to write them",
    "store = one site and one position that gives one row an example, all layers and embeddings",
    f"time = {TIME}; one pass a stage, without the download and the analysis",
)
"""What the estimates stand on, one line each."""

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_RELEASED_BYTES = 2  # bfloat16
_PIPED_WIDTH = 130


@dataclass(frozen=True)
class Needs:
    """What one stage needs.

    Args:
        stage: label.
        size: of the stage.
        source: hub repo id, directory or `miniature`.
        parameters: of the whole model, vocabulary head included.
        weights: how they are held in memory: a dtype, or `int8` or `int4`.
        weight_bytes: of the weights so held.
        peak_bytes: of memory, in a forward pass.
        download_bytes: 0 for what is on this machine.
        examples: of the data set.
        tokens: of the data set.
        store_bytes: of the activations.
        device: `cuda` or `cpu`, where the pass would run here.
        seconds: of loading and the forward pass on that device.
        gpus: the smallest GPUs that hold it, as `NUMBER x GIGABYTES GB`: one, and several that
            share the weights; none where eight do not.
    """

    stage: str
    size: str
    source: str
    parameters: int
    weights: str
    weight_bytes: int
    peak_bytes: int
    download_bytes: int
    examples: int
    tokens: int
    store_bytes: int
    device: str
    seconds: float
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Model:
    widths: Widths
    n_layers: int
    parameters: int
    download_bytes: int


def plan(experiments: Iterable[Experiment]) -> tuple[Needs, ...]:
    """What the stages of some experiments need, each stage once, references included.

    Args:
        experiments: composed, not run.

    Returns:
        In the order in which they are met; a reference after the stage that is compared with it.

    Raises:
        ConfigError: a stage whose shape is not known, or data that do not exist.
        ModelError: a directory that holds no checkpoint.
    """
    found: dict[tuple[str, str], Needs] = {}
    for experiment in experiments:
        model, compute = experiment.model, experiment.compute
        data = experiment.data.load(miniature=any(map(is_miniature, model.lineage())))
        n_examples, n_tokens = data.n_examples, tokens(data)
        for stage in (model, experiment.reference_stage()):
            if stage is not None:
                one = needs(stage, compute, n_examples, n_tokens)
                found.setdefault((stage.source, stage.label), one)
    return tuple(found.values())


def needs(
    stage: Stage, compute: Compute, n_examples: int, n_tokens: int, device: str | None = None
) -> Needs:
    """What one forward pass of a stage needs.

    Args:
        stage: the stage.
        compute: where and how it runs.
        n_examples: of the data set.
        n_tokens: of the data set.
        device: of the machine that it would run on, `cuda` or `cpu`; None = this one.

    Raises:
        ConfigError: its shape is not known without a download.
        ModelError: a directory that holds no checkpoint.
    """
    device = device or compute.resolve_device()
    model, dtype = _model(stage), compute.on(device).resolve_dtype()
    widths, n_layers = model.widths, model.n_layers
    weight_bytes = _weight_bytes(model, dtype, compute.quantisation)
    # Residual stream with its copies, the MLP's three products, queries, keys and values.
    a_token = 8 * widths.d_model + 3 * widths.d_ff + widths.attention
    budget = compute.token_budget
    hidden = budget * a_token * _BYTES[dtype] + 2 * budget**2  # and a mask a kind of layer
    held = weight_bytes
    if compute.streamed:
        embeddings = widths.n_embeddings * widths.d_model
        held = max(2 * widths.block_matrices, embeddings) * _BYTES[dtype]
        hidden += n_tokens * widths.d_model * _BYTES[dtype]
    operations = 2 * (model.parameters - 2 * widths.n_embeddings * widths.d_model) * n_tokens
    return Needs(
        stage=stage.label,
        size=stage.size,
        source=stage.source,
        parameters=model.parameters,
        weights=dtype if compute.quantisation == "none" else compute.quantisation,
        weight_bytes=weight_bytes,
        peak_bytes=round(LOADING * held) + hidden,
        download_bytes=model.download_bytes,
        examples=n_examples,
        tokens=n_tokens,
        store_bytes=n_examples * (n_layers + 1) * widths.d_model * _BYTES[dtype],
        device=device,
        seconds=weight_bytes / READ_BYTES + operations / FLOPS[device],
        gpus=_gpus(round(LOADING * held), hidden, spread=not compute.streamed),
    )


def _gpus(held: int, hidden: int, *, spread: bool) -> tuple[str, ...]:
    """The smallest GPU that holds a model, and the smallest of which several do.

    Args:
        held: bytes of weights.
        hidden: bytes of hidden states, which each GPU must have room for.
        spread: whether the model can be spread over several.
    """
    one = [(1, size) for size in GPU_GB if held + hidden <= size * 1e9]
    several = [
        (n, size)
        for n in ((2, 4, 8) if spread else ())
        for size in GPU_GB
        if held / n + hidden <= size * 1e9 and (not one or size < one[0][1])
    ]
    return tuple(f"{n} x {size} GB" for n, size in (*one[:1], *several[:1]))


def _weight_bytes(model: _Model, dtype: str, quantisation: str) -> int:
    """Bytes in memory: embeddings, head and norms are never quantised."""
    matrices = model.n_layers * model.widths.block_matrices
    rest = (model.parameters - matrices) * _BYTES[dtype]
    match quantisation:
        case "int8":  # and a float32 scale a row
            return rest + matrices + 4 * model.n_layers * model.widths.block_rows
        case "int4":  # and a byte a block of 64, with a float32 for 256 of these
            return rest + matrices // 2 + matrices // 64 + 4 * matrices // (64 * 256)
        case _:
            return rest + matrices * _BYTES[dtype]


def _model(stage: Stage) -> _Model:
    """Shape and size of a stage's model.

    Raises:
        ConfigError: it is not known without a download.
        ModelError: an adapter that cannot be merged.
    """
    if stage.members:
        raise ConfigError(
            f"plan: {stage.label} is an average; plan one of its members, e.g. model="
            f"{stage.members[0].stage.name}, and count the download of each"
        )
    if stage.source == MINIATURE:
        shape = miniature.Recipe().architecture
        n_words = len(vocabulary())
        widths = Widths(shape.d_model, shape.d_ff, shape.n_heads, shape.n_heads, n_words)
        return _Model(widths, shape.n_layers, widths.parameters(shape.n_layers), 0)
    if (path := Path(stage.source).expanduser()).is_dir():
        if adapter_files.holds_adapter(path):  # merged, it has the shape of its base
            return _model(adapter_files.base_stage(stage, adapter_files.read_adapter(path)))
        return _on_disk(path)
    if stage.size == "custom":
        raise ConfigError(
            f"plan: the shape of {stage.source} is not known before it is downloaded; give a "
            "directory, or a stage of the same size, e.g. model=think_sft size=7b"
        )
    told = release(stage.name, stage.size)
    widths = WIDTHS.get((told.family, told.size))
    if widths is None or told.shape is None:
        raise ConfigError(
            f"plan: the shape of {told.family} in size={told.size} is not known; download it and "
            "plan model=custom model.path=DIRECTORY"
        )
    parameters = widths.parameters(told.shape.n_layers)
    download = 0 if _is_cached(stage) else parameters * _RELEASED_BYTES
    return _Model(widths, told.shape.n_layers, parameters, download)


def _on_disk(path: Path) -> _Model:
    """A checkpoint directory: its config, and the shapes in the headers of its weight files.

    Raises:
        ModelError: its config lacks the shape.
    """
    from safetensors import safe_open

    config: dict[str, Any] = digests.read_config(path)
    config = config.get("text_config", config)
    try:
        d_model, n_heads = config["hidden_size"], config["num_attention_heads"]
        widths = Widths(
            d_model,
            config["intermediate_size"],
            n_heads,
            config.get("num_key_value_heads") or n_heads,
            config["vocab_size"],
        )
        n_layers = config["num_hidden_layers"]
    except KeyError as error:
        raise ModelError(f"plan: {path}/config.json has no {error.args[0]}; add it") from error
    parameters = 0
    for file in digests.weight_files(path):
        with safe_open(file, framework="np") as weights:
            for name in weights.keys():  # noqa: SIM118 (no mapping)
                count = 1
                for length in weights.get_slice(name).get_shape():
                    count *= length
                parameters += count
    return _Model(widths, n_layers, parameters, 0)


def _is_cached(stage: Stage) -> bool:
    """Whether the hub's cache on this machine has the weights."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(stage.source, "config.json", revision=stage.revision)
    if not isinstance(config, str):
        return False
    try:
        return bool(digests.weight_files(Path(config).parent))
    except ModelError:
        return False


def to_json(needs: Sequence[Needs]) -> str:
    """The stages, their sum and the assumptions, as JSON."""
    return json.dumps(
        {
            "stages": [asdict(it) | {"seconds": round(it.seconds, 1)} for it in needs],
            "disk_bytes": disk_bytes(needs),
            "assumptions": ASSUMPTIONS,
        },
        indent=2,
    )


def disk_bytes(needs: Sequence[Needs]) -> int:
    """What all stages together add to the disk: downloads and activations."""
    return sum(it.download_bytes + it.store_bytes for it in needs)


def show(needs: Sequence[Needs], console: Console | None = None) -> None:
    """Print a row a stage, what all need of the disk, and the assumptions."""
    if console is None:
        console = Console() if Console().is_terminal else Console(width=_PIPED_WIDTH)
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", overflow="fold")
    for name in ("parameters", "as", "weights", "peak memory", "download", "store", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("GPUs", overflow="fold")
    for it in needs:
        table.add_row(
            Text(f"{it.stage} {it.size}"),
            f"{it.parameters:,}",
            it.weights,
            _size(it.weight_bytes),
            _size(it.peak_bytes),
            _size(it.download_bytes) if it.download_bytes else "-",
            _size(it.store_bytes),
            f"{duration(it.seconds)} ({it.device})",
            " or ".join(it.gpus) or "-",
        )
    console.print(table)
    if needs:
        data = f"{needs[0].examples:,} examples, together about {needs[0].tokens:,} tokens"
        console.print(f"\ndisk: {_size(disk_bytes(needs))} together; data: {data}", highlight=False)
    for line in ASSUMPTIONS:
        console.print(f"  {line}", style="dim", markup=False, highlight=False, soft_wrap=True)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """Seconds in a few letters."""
    if seconds < 1:
        return "<1 s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
