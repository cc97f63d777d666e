"""compute=streamed beside accelerate's disk offload: a model that is larger than memory.

Both read the same random weights (7B shape, bfloat16, 14.6 GB unless --layers says otherwise) and
give the last token of every layer. accelerate keeps what fits into --memory and takes the rest from
the files for every batch; ours reads every block once. One process each, one after the other, both
in a control group with the same limit of memory, which counts cached pages of files too (--limit;
needs root; without it the files of a small model stay cached, and nothing is read from the disk
twice). Times are of the pass alone; memory is the peak of anonymous memory above that before it.

    python benchmarks/streamed.py --batches 4 16 64 --limit 6
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from load_memory import write

LAYERS = 32


def items(n_batches, examples, tokens):
    """Batches of texts of equal length, so that both sides run the same ones."""
    from olmo_stages.models.forward import Item

    generator = np.random.default_rng(0)
    ids = generator.integers(5, 100_000, (n_batches * examples, tokens))
    return [Item(f"e{i}", tuple(map(int, it)), {"last": (tokens - 1,)}) for i, it in enumerate(ids)]


class Peak:
    """Peak of this process's anonymous memory above that at the start, in bytes."""

    def __enter__(self):
        self.start, self.most, self.over = self.now(), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_error):
        self.over.set()
        self.thread.join()

    def watch(self):
        while not self.over.wait(0.05):
            self.most = max(self.most, self.now() - self.start)

    @staticmethod
    def now():
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return 1024 * int(line.split()[1])
        raise RuntimeError("this system does not tell RssAnon")


def ours(args, work):
    from olmo_stages.models import layer_major
    from olmo_stages.models.captures import Capture
    from olmo_stages.models.checkpoints import Checkpoint
    from olmo_stages.models.loading import skeleton
    from olmo_stages.models.memory import TokenBudget
    from olmo_stages.types import Stage

    stage = Stage("bench", "custom", str(args.model))
    model = skeleton(stage, Checkpoint(args.model, None), dtype="bfloat16", device="cpu")
    layers = range(len(model.blocks))
    with tempfile.TemporaryDirectory() as scratch, Peak() as peak:
        memory = layer_major.Memory(TokenBudget(args.examples * args.tokens), Path(scratch))
        start = time.perf_counter()
        found = layer_major.pooled(model, [work], [Capture("resid_post", "last")], layers, memory)
        seconds = time.perf_counter() - start
    return seconds, peak.most, [it.float().norm(dim=1).mean().item() for it in found[0].values()]


def accelerate(args, work):
    from transformers import AutoModelForCausalLM

    from olmo_stages.models import forward
    from olmo_stages.models.captures import Capture
    from olmo_stages.models.discovery import find_decoder

    with tempfile.TemporaryDirectory(dir=args.model.parent) as folder:
        model = AutoModelForCausalLM.from_pretrained(
            args.model,
            dtype=torch.bfloat16,
            device_map="auto",
            max_memory={"cpu": f"{args.memory}GB"},
            offload_folder=folder,
            attn_implementation="sdpa",
        )
        model.eval().requires_grad_(requires_grad=False)
        decoder = find_decoder(model)
        with Peak() as peak:
            start = time.perf_counter()
            found = forward.pooled(
                decoder,
                work,
                [Capture("resid_post", "last")],
                range(len(decoder.blocks)),
                token_budget=args.examples * args.tokens,
            )
            seconds = time.perf_counter() - start
    return seconds, peak.most, [it.float().norm(dim=1).mean().item() for it in found.values()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=LAYERS, help="32 = the 7B model")
    parser.add_argument("--model", type=Path, help="folder of the weights; made where missing")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--examples", type=int, default=1, help="of a batch")
    parser.add_argument("--tokens", type=int, default=16, help="of an example")
    parser.add_argument("--memory", type=int, default=3, help="GB that accelerate may keep")
    parser.add_argument("--most", type=int, default=16, help="batches that accelerate is timed on")
    parser.add_argument(
        "--limit", type=float, help="GB of memory for each side, page cache included"
    )
    parser.add_argument("--one", choices=["ours", "accelerate"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        work = items(args.batches[0], args.examples, args.tokens)
        print(json.dumps(globals()[args.one](args, work)))
        return
    with tempfile.TemporaryDirectory() as folder:
        args.model = args.model or Path(folder) / "model"
        if not (args.model / "config.json").is_file():
            args.model.mkdir(parents=True)
            write(args.model, args.layers)
        size = sum(it.stat().st_size for it in args.model.glob("*.safetensors")) / 1e9
        print(
            f"7B shape, {args.layers} layers, {size:.1f} GB bfloat16, batches of {args.examples} x "
            f"{args.tokens} tokens, limit {args.limit} GB, {torch.get_num_threads()} threads"
        )
        for n in args.batches:
            report(args, n)


@contextmanager
def limited(gigabytes):
    """What puts a process into a control group with this limit; nothing where there is none."""
    if gigabytes is None:
        yield lambda: None
        return
    first = Path("/sys/fs/cgroup/memory")
    root = first if first.is_dir() else first.parent
    group = root / f"olmo-stages-{os.getpid()}"
    group.mkdir()
    limit = group / ("memory.limit_in_bytes" if root == first else "memory.max")
    limit.write_text(str(int(gigabytes * 1e9)))
    try:
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        group.rmdir()


def report(args, n):
    times = {}
    for side in ("ours", "accelerate"):
        if side == "accelerate" and n > args.most:
            continue
        words = [
            f"--{name}={getattr(args, name)}" for name in ("model", "examples", "tokens", "memory")
        ]
        command = [sys.executable, __file__, f"--one={side}", *words, "--batches", str(n)]
        with limited(args.limit) as enter:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, preexec_fn=enter
            )
        if done.returncode:
            raise SystemExit(f"{side}: {done.stderr[-2000:]}")
        out = done.stdout
        seconds, peak, norms = json.loads(out.splitlines()[-1])
        times[side] = seconds
        print(
            f"{n:4d} batches  {side:10s} {seconds:8.1f} s  {peak / 1e9:5.2f} GB anonymous  "
            f"last norm {norms[-1]:.6g}",
            flush=True,
        )
    if len(times) == 2:
        print(f"{n:4d} batches  accelerate / ours = {times['accelerate'] / times['ours']:.1f}")


if __name__ == "__main__":
    main()
