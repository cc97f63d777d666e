"""Extraction: ours beside the bare decoder and three other ways to the same activations.

An Olmo3 of 135 million parameters (random weights, real proportions) reads 1000 texts of mixed
length (log-normal, median 28 tokens), and the last token and the mean over tokens of every layer
are kept. All sides run in one process, in turns:

- limit: the decoder over our batches, without hooks, head or store;
- ours: `Source.prefetch` into an empty store, tokenising and writing included;
- plain: `output_hidden_states=True` in the order of the data set, padded on the right;
- nnsight and TransformerLens (its bridge): all layers saved or cached, batches as for plain.

The model is in memory beforehand for all. Their values are compared with one another. Memory is the
peak of anonymous memory above that before the side ran. Peers that are not installed are left out:
pip install -e ".[peers]".

    python benchmarks/extraction.py [--quick]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from sides import Peak, Row, in_turns, show

WIDTH, BLOCKS, WORDS = 768, 12, 32768
SPECIAL = ("<pad>", "<end>", "<unknown>")
POSITIONS = ("last", "mean")
BATCH = 32
"""Examples of a batch of the other ways; ours and the limit take batches of equal padded size."""


def build(folder):
    """A checkpoint in the hub's format: random weights, one token a word."""
    from transformers import Olmo3Config, Olmo3ForCausalLM

    torch.manual_seed(0)
    kinds = ["sliding_attention"] * 3 + ["full_attention"]
    config = Olmo3Config(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        intermediate_size=round(WIDTH * 11008 / 4096),
        num_hidden_layers=BLOCKS,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=8192,
        sliding_window=4096,
        layer_types=[kinds[i % 4] for i in range(BLOCKS)],
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    model = Olmo3ForCausalLM(config)
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return sum(it.numel() for it in model.parameters())


def word_tokenizer():
    """One token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    # A special token is found inside words too, so none may be the beginning of one.
    words = {special: i for i, special in enumerate(SPECIAL)}
    words |= {f"w{i}": i for i in range(len(SPECIAL), WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=SPECIAL[2]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        unk_token=SPECIAL[2],
    )


def texts(n):
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.normal(np.log(28), 0.8, n)).round().clip(4, 256).astype(int)
    return [generator.integers(len(SPECIAL), WORDS, length) for length in lengths]


class Limit:
    """The decoder over the batches that we would run."""

    def __init__(self, bench):
        from olmo_stages.models.forward import batches

        self.decoder = bench.model.model
        ids = sorted(bench.ids, key=len)
        cuts = batches([len(it) for it in ids], bench.budget)
        device = bench.model.device
        self.batches = [[it.to(device) for it in right_padded(ids[cut])] for cut in cuts]
        self.run(self.batches[:1])  # what the first call of a process makes

    def __call__(self):
        self.run(self.batches)

    def run(self, batches):
        for ids, mask in batches:
            positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
            self.decoder(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
            )


class Ours:
    """A pass into an empty store, tokenising and writing included."""

    def __init__(self, bench):
        self.bench, self.n = bench, 0

    def __call__(self):
        from olmo_stages.activations.extraction import Source
        from olmo_stages.activations.store import Store

        self.n += 1
        bench = self.bench
        store = Store(bench.folder / f"store{self.n}")
        self.last = Source(bench.dataset, bench.compute, bench.folder / "cache", store=store)
        self.last._model = bench.held  # loading is no part of what is measured
        self.last.prefetch(bench.stage, [("resid_post", it) for it in POSITIONS])

    def values(self):
        read = [self.last(self.bench.stage, position=it).values for it in POSITIONS]
        return torch.from_numpy(np.stack(read))


class Batched:
    """Batches in the order of the data set; what a side gives for one is pooled here."""

    def __init__(self, bench):
        self.bench = bench

    def __call__(self):
        found = []
        for start in range(0, len(self.bench.ids), BATCH):
            ids = self.bench.ids[start : start + BATCH]
            hidden, mask = self.hidden(ids)
            found.append(pool(hidden, mask))
        self.found = torch.cat(found, dim=2)

    def values(self):
        return self.found


class Plain(Batched):
    def hidden(self, ids):
        padded, mask = right_padded(ids)
        out = self.bench.model(
            input_ids=padded, attention_mask=mask, output_hidden_states=True, use_cache=False
        )
        # The last of them is normed; the block's own output is not handed out.
        return out.hidden_states[1:], mask


class NNsight(Batched):
    def __init__(self, bench):
        import nnsight

        super().__init__(bench)
        self.model = nnsight.NNsight(bench.model)

    def hidden(self, ids):
        padded, mask = right_padded(ids)
        layers = self.model.model.layers
        with self.model.trace(input_ids=padded, attention_mask=mask, use_cache=False):
            hidden = list().save()  # noqa: C408  (the trace rewrites it)
            for layer in layers:
                hidden.append(layer.output)
        return [it[0] if isinstance(it, tuple) else it for it in hidden], mask


class Bridge(Batched):
    def __init__(self, bench):
        from transformer_lens.model_bridge import TransformerBridge

        super().__init__(bench)
        # It rewires the model that it is given.
        from transformers import AutoModelForCausalLM

        own = AutoModelForCausalLM.from_pretrained(bench.checkpoint, attn_implementation="sdpa")
        self.model = TransformerBridge.boot_transformers(
            str(bench.checkpoint), hf_model=own.eval(), tokenizer=bench.tokenizer, device="cpu"
        )
        self.names = [f"blocks.{i}.hook_out" for i in range(BLOCKS)]

    def hidden(self, ids):
        padded, mask = right_padded(ids)
        _, cache = self.model.run_with_cache(
            padded, attention_mask=mask, names_filter=lambda name: name in self.names
        )
        return [cache[name] for name in self.names], mask


def right_padded(ids):
    width = max(map(len, ids))
    padded, mask = torch.zeros(len(ids), width, dtype=torch.long), torch.zeros(len(ids), width)
    for row, it in enumerate(ids):
        padded[row, : len(it)] = torch.from_numpy(it)
        mask[row, : len(it)] = 1
    return padded, mask.long()


def pool(hidden, mask):
    """Last token and mean of each layer: [position, layer, example, d_model]."""
    rows, last = torch.arange(len(mask)), mask.sum(1) - 1
    # Like ours, without the attention sink.
    kept = mask * (torch.arange(mask.shape[1]) > 0)
    weights = (kept / kept.sum(1, keepdim=True))[..., None]
    return torch.stack([
        torch.stack([it[rows, last] for it in hidden]),
        torch.stack([(it * weights).sum(1) for it in hidden]),
    ])


class Bench:
    """What all sides share."""

    def __init__(self, folder, n_texts):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from olmo_stages.activations.extraction import Source
        from olmo_stages.activations.held_model import HeldModel
        from olmo_stages.data.dataset import Dataset
        from olmo_stages.models.compute import Compute
        from olmo_stages.types import Example, Stage

        self.folder, self.checkpoint, self.budget = folder, folder / "model", 4096
        self.n_parameters = build(self.checkpoint)
        self.ids = texts(n_texts)
        self.tokenizer = AutoTokenizer.from_pretrained(self.checkpoint)
        self.model = AutoModelForCausalLM.from_pretrained(
            self.checkpoint, attn_implementation="sdpa"
        ).eval()
        self.stage = Stage("bench", "custom", str(self.checkpoint))
        self.compute = Compute("cpu", "float32", self.budget, None)
        examples = [
            Example(f"e{i}", f"g{i}", i % 2, text=" ".join(f"w{it}" for it in ids))
            for i, ids in enumerate(self.ids)
        ]
        self.dataset = Dataset("bench", tuple(examples), format="raw")
        self.held = HeldModel(self.compute)
        self.held.of(Source(self.dataset, self.compute, folder / "cache").work(self.stage))


def sides(bench):
    """Those that can run here, in their order."""
    found = {"limit": Limit(bench), "ours": Ours(bench), "plain": Plain(bench)}
    for name, kind in {"nnsight": NNsight, "TransformerLens": Bridge}.items():
        try:
            found[name] = kind(bench)
        except ImportError as error:
            print(f"left out: {name} ({error}); pip install -e '.[peers]'")
    return found


def check(found):
    """Every side's values are those of ours, but where it does not hand them out."""
    ours = found["ours"].values()
    for name, side in found.items():
        if name in {"limit", "ours"}:
            continue
        layers = slice(0, -1) if name == "plain" else slice(None)
        off = (side.values()[:, layers] - ours[:, layers]).abs().max() / ours.abs().max()
        print(f"{name}: largest difference from ours {off:.1e} of the largest value")
        assert off < 1e-4, name


def measured(side, peaks):
    """The side, which also notes its peak of memory."""

    def run():
        with Peak() as peak:
            side()
        peaks.append(peak.most)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="100 texts, twice")
    args = parser.parse_args()
    n_texts, rounds = (100, 2) if args.quick else (args.texts, args.rounds)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        bench = Bench(Path(folder), n_texts)
        found = sides(bench)
        peaks = {name: [] for name in found}
        runs = {name: measured(side, peaks[name]) for name, side in found.items()}
        seconds = in_turns(runs, rounds)
        print(seconds, flush=True)  # whatever the check says
        check(found)
    report(bench, seconds, peaks)


def report(bench, seconds, peaks):
    lengths = [len(it) for it in bench.ids]
    what = (
        f"extraction, {bench.n_parameters / 1e6:.0f} M parameters, {len(lengths)} texts, "
        f"{sum(lengths)} tokens"
    )
    rows = [Row(what, "bare decoder", seconds["ours"], seconds["limit"], "<= 1.10")]
    rows += [
        Row(what, name, seconds["ours"], seconds[name], ">= 1.5")
        for name in seconds
        if name not in {"ours", "limit"}
    ]
    # Two batches' activations: all layers of all tokens, twice.
    extra = 2 * bench.budget * (BLOCKS + 1) * WIDTH * 4
    limit = tuple(it + extra for it in peaks["limit"])
    rows.append(
        Row(
            "peak memory of extraction",
            "bare decoder + activations of 2 batches",
            tuple(it / 1e6 for it in peaks["ours"]),
            tuple(it / 1e6 for it in limit),
            "<= 1.00",
            "MB",
            note=f"of which two batches' activations {extra / 1e6:.0f} MB; others: "
            + ", ".join(
                f"{name} {max(it) / 1e6:.0f} MB"
                for name, it in peaks.items()
                if name not in {"ours", "limit"}
            ),
        )
    )
    show(rows)


if __name__ == "__main__":
    main()
