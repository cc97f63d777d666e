"""Extraction on a GPU: tokens a second, beside the bare decoder and the card's matrix products.

A model of the released 7B shape (random bfloat16 weights, 14.6 GB on disk) reads 1000 texts of
mixed length, as in `extraction.py`, and the last token and the mean of every layer are kept. In
turns:

- limit: the decoder over our batches, without hooks, head or store;
- ours: `Source.prefetch` into an empty store, tokenising and writing included;
- products: 2 x 8192^3 operations at a time, as fast as the card multiplies bfloat16 matrices.

A machine without a GPU says so, and measures nothing. --device cpu is only for trying the script.

    python benchmarks/gpu.py [--quick]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from extraction import POSITIONS, Limit, Ours, texts, word_tokenizer
from load_memory import FULL_LAYERS, write
from sides import Row, in_turns, show

SIDE = {"cuda": 8192, "cpu": 512}
PRODUCTS = 20


class Bench:
    """What all sides share."""

    def __init__(self, folder, n_layers, n_texts, device):
        from olmo_stages.activations.extraction import Source
        from olmo_stages.activations.held_model import HeldModel
        from olmo_stages.data.dataset import Dataset
        from olmo_stages.models.compute import Compute
        from olmo_stages.types import Example, Stage

        self.folder, self.device, self.budget = folder, device, 16384
        checkpoint = folder / "model"
        checkpoint.mkdir()
        # Not OLMo's own number of tokens, with which its own tokenizer would be required.
        write(checkpoint, n_layers, vocab_size=100_000, pad_token_id=0, eos_token_id=1)
        word_tokenizer().save_pretrained(checkpoint)
        self.ids = texts(n_texts)
        self.stage = Stage("bench", "custom", str(checkpoint))
        self.compute = Compute(device, "bfloat16", self.budget, None)
        examples = [
            Example(f"e{i}", f"g{i}", i % 2, text=" ".join(f"w{it}" for it in ids))
            for i, ids in enumerate(self.ids)
        ]
        self.dataset = Dataset("bench", tuple(examples), format="raw")
        self.held = HeldModel(self.compute)
        work = Source(self.dataset, self.compute, folder / "cache").work(self.stage)
        self.model = self.held.of(work)[0].model

    @property
    def operations(self):
        """Of one pass: twice the weights of the blocks for each token."""
        blocks = sum(it.numel() for it in self.model.model.layers.parameters())
        return 2 * blocks * sum(map(len, self.ids))


class Products:
    """Matrix products alone."""

    def __init__(self, device):
        side = SIDE[device]
        self.a, self.b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
        self.operations = PRODUCTS * 2 * side**3
        self()

    def __call__(self):
        for _ in range(PRODUCTS):
            self.a @ self.b


def awaited(side, device):
    """The side, until the card has done all of it."""

    def run():
        side()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def check(bench, ours):
    """The last token of the first text is what the decoder's own hook sees."""
    seen = []
    hooks = [
        it.register_forward_hook(lambda _module, _args, out: seen.append(out))
        for it in bench.model.model.layers
    ]
    ids = torch.from_numpy(bench.ids[0])[None].to(bench.device)
    bench.model.model(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    theirs = torch.stack([it[0, -1].float().cpu() for it in seen])
    kept = torch.from_numpy(ours.last(bench.stage, position=POSITIONS[0]).values[:, 0]).float()
    off = ((kept - theirs).norm(dim=1) / theirs.norm(dim=1)).max()
    print(f"largest difference of a layer from the decoder alone: {off:.1e} of its norm")
    assert off < 0.05, off  # other batches round otherwise in bfloat16


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--layers", type=int, default=FULL_LAYERS)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two layers, 20 texts, twice")
    args = parser.parse_args()
    if args.quick:
        args.layers, args.texts, args.rounds = 2, 20, 2
    if args.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: extraction on a GPU is not measured")
        return
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        bench = Bench(Path(folder), args.layers, args.texts, args.device)
        sides = {"limit": Limit(bench), "ours": Ours(bench), "products": Products(args.device)}
        runs = {name: awaited(side, args.device) for name, side in sides.items()}
        for run in runs.values():  # what the first call of a process makes
            run()
        seconds = in_turns(runs, args.rounds)
        check(bench, sides["ours"])
        report(args, bench, seconds, sides["products"].operations)


def report(args, bench, seconds, of_products):
    n_tokens = sum(map(len, bench.ids))
    name = torch.cuda.get_device_name() if args.device == "cuda" else "the CPU"
    what = f"on {name}: 7B shape, {args.layers} layers, bfloat16, {args.texts} texts"
    speeds = {side: n_tokens / statistics.median(it) for side, it in seconds.items()}
    note = f"{speeds['ours']:.0f} and {speeds['limit']:.0f} tokens a second"
    rows = [
        Row(
            f"extraction {what}",
            "bare decoder",
            seconds["ours"],
            seconds["limit"],
            "<= 1.10",
            note=note,
        )
    ]
    rate = tuple(of_products / it / 1e12 for it in seconds["products"])
    rows += [
        Row(
            f"{side} {what}",
            "its matrix products, measured",
            tuple(bench.operations / it / 1e12 for it in seconds[key]),
            rate,
            unit="TFLOP/s",
        )
        for side, key in (("extraction", "ours"), ("bare decoder", "limit"))
    ]
    show(rows)


if __name__ == "__main__":
    main()
