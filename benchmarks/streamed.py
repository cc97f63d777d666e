"""compute=streamed beside accelerate's disk offload: a model that is larger than memory.

Both read the same random weights (7B shape, bfloat16, 14.6 GB; made in a temporary folder unless
--model names one) and give the last token of every layer, which must be the same bit for bit.
accelerate keeps what fits into --memory and takes the rest from the files for every batch; ours
reads every block once. The sides are processes of their own, one after the other, none of the files
cached when one begins, and each in a control group with the same limit of memory, in which cached
pages of files count, too. That needs root; without it what is read once may stay cached for the
next batch, if there is room. Times are of the pass alone, without loading libraries or the model;
memory is the peak of anonymous memory above that before the pass.

    python benchmarks/streamed.py                         # 15 GB of disk, about half an hour
    python benchmarks/streamed.py --quick                 # 3 GB of disk, a minute
    python benchmarks/streamed.py --batches 64 --most 64  # accelerate's time for 64 is measured
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from load_memory import SHAPE, config, write
from safetensors.torch import load_file, save_file
from sides import Peak, Row, show

GB = 1e9
MOST_GB = 3.0
"""Of anonymous memory beyond the hidden states."""

AT, TIMES = 16, 5
"""Batches for which a target is set, and how many times faster than accelerate it is."""

SLICE = 8 << 20
"""Bytes that are read at a time where nothing but reading is timed."""

STEPS = 24
"""Batches that one block computes where nothing but computing is timed."""


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Args:
        layers: of the model.
        batches: numbers of batches.
        limit: GB of memory for each side.
        memory: GB that accelerate may keep.
        most: batches that accelerate is timed on; times of more are multiples.
    """

    layers: int
    batches: tuple[int, ...]
    limit: float
    memory: float
    most: int


FULL = Setting(32, (4, 16, 64), 6.0, 3.0, 16)
QUICK = Setting(3, (2, 6), 2.0, 1.0, 2)


def items(n_batches, examples, tokens):
    """Batches of texts of equal length, so that both sides run the same ones."""
    from olmo_stages.models.forward import Item

    generator = np.random.default_rng(0)
    ids = generator.integers(5, 100_000, (n_batches * examples, tokens))
    return [Item(f"e{i}", tuple(map(int, it)), {"last": (tokens - 1,)}) for i, it in enumerate(ids)]


def ours(args):
    from olmo_stages.models import layer_major
    from olmo_stages.models.captures import Capture
    from olmo_stages.models.checkpoints import Checkpoint
    from olmo_stages.models.loading import skeleton
    from olmo_stages.models.memory import TokenBudget
    from olmo_stages.types import Stage

    work = items(args.n, args.examples, args.tokens)
    stage = Stage("bench", "custom", str(args.model))
    model = skeleton(stage, Checkpoint(args.model, None), dtype="bfloat16", device="cpu")
    layers = range(len(model.blocks))
    with tempfile.TemporaryDirectory() as scratch, Peak() as peak:
        memory = layer_major.Memory(TokenBudget(args.examples * args.tokens), Path(scratch))
        start = time.perf_counter()
        found = layer_major.pooled(model, [work], [Capture("resid_post", "last")], layers, memory)
        seconds = time.perf_counter() - start
    return seconds, peak.most, list(found[0].values())


def accelerate(args):
    from transformers import AutoModelForCausalLM

    from olmo_stages.models import forward
    from olmo_stages.models.captures import Capture
    from olmo_stages.models.discovery import find_decoder

    work = items(args.n, args.examples, args.tokens)
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
    return seconds, peak.most, list(found.values())


def limit(args):
    """One reading of all files, and then batches through one block, times blocks and batches."""
    from transformers import Olmo3Config
    from transformers.models.olmo3 import Olmo3Model

    buffer = bytearray(SLICE)
    start = time.perf_counter()
    for file in sorted(args.model.glob("*.safetensors")):
        with file.open("rb", buffering=0) as opened:
            at = 0
            while n := opened.readinto(buffer):
                # The pages are in the way of what is read next.
                os.posix_fadvise(opened.fileno(), at, n, os.POSIX_FADV_DONTNEED)
                at += n
    reading = time.perf_counter() - start
    shape = Olmo3Config.from_dict(config(1) | {"vocab_size": 8, "pad_token_id": 0})
    shape._attn_implementation = "sdpa"
    block = Olmo3Model(shape).to(torch.bfloat16).eval()
    hidden = torch.randn(args.examples, args.tokens, SHAPE["hidden_size"], dtype=torch.bfloat16)
    with torch.inference_mode():
        block(inputs_embeds=hidden, use_cache=False)
        start = time.perf_counter()
        for _ in range(STEPS):
            block(inputs_embeds=hidden, use_cache=False)
        computing = args.layers * args.n * (time.perf_counter() - start) / STEPS
    print(
        f"{'limit':10s} {args.n:4d} batches: reading {reading:.1f} s, computing {computing:.1f} s"
    )
    return reading + computing, 0, []


SIDES = {"ours": ours, "accelerate": accelerate, "limit": limit}


def one(args):
    """A side, in the process that has been made for it."""
    for file in args.model.glob("*.safetensors"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    seconds, peak, rows = SIDES[args.one](args)
    save_file({str(i): it.contiguous() for i, it in enumerate(rows)}, args.rows)
    print(json.dumps([seconds, peak]))


@contextmanager
def limited(gigabytes: float) -> Iterator[list[Path]]:
    """A control group with this limit of memory: files that a process signs to be in it; or none.

    Yields:
        Nothing where such a group cannot be made.
    """
    first = Path("/sys/fs/cgroup/memory")
    root = first if first.is_dir() else first.parent
    group = root / f"olmo-stages-{os.getpid()}"
    made = False
    try:
        group.mkdir()
        made = True
        file = group / ("memory.limit_in_bytes" if root == first else "memory.max")
        file.write_text(str(int(gigabytes * GB)))
    except OSError:
        signs = []
    else:
        signs = [group / "cgroup.procs"]
    try:
        yield signs
    finally:
        if made:
            group.rmdir()


def run(args, side, n, rows):
    """Seconds, bytes, and whether there was a limit; a process of its own."""  # noqa: DOC501
    words = [f"--{it}={getattr(args, it)}" for it in ("model", "layers", "memory")]
    words += [f"--{it}={getattr(args, it)}" for it in ("examples", "tokens")]
    command = [sys.executable, __file__, f"--one={side}", f"--n={n}", f"--rows={rows}", *words]
    with limited(args.limit) as signs:

        def enter():
            for file in signs:
                file.write_text(str(os.getpid()))

        done = subprocess.run(
            command, check=False, capture_output=True, text=True, preexec_fn=enter
        )
    if done.returncode:
        raise SystemExit(f"{side}, {n} batches: {done.returncode}: {done.stderr[-2000:]}")
    *said, last = done.stdout.splitlines()
    seconds, peak = json.loads(last)
    print(*said, sep="\n", end="\n" if said else "")
    print(f"{side:10s} {n:4d} batches {seconds:8.1f} s {peak / GB:6.2f} GB anonymous", flush=True)
    return seconds, peak, bool(signs)


def measure(args, folder) -> Iterator[Row]:
    """Rows of all numbers of batches."""
    size = sum(it.stat().st_size for it in args.model.glob("*.safetensors")) / GB
    theirs = {}
    before = None
    for n in args.batches:
        seconds, peak, is_limited = run(args, "ours", n, folder / "ours")
        asked = min(n, args.most)
        if asked not in theirs:
            theirs[asked], _, _ = run(args, "accelerate", asked, folder / f"accelerate-{asked}")
        check(folder / "ours", folder / f"accelerate-{asked}", asked * args.examples)
        bare, _, _ = run(args, "limit", n, folder / "limit")
        what = (
            f"7B shape, {args.layers} layers ({size:.1f} GB), {n} batches of {args.examples} x "
            f"{args.tokens} tokens"
        )
        note = f"{args.limit} GB of memory for each, cached files included"
        if not is_limited:
            note = "no limit of memory, which needs root: files stay cached for further batches"
        if asked < n:
            note += f"; accelerate measured on {asked} batches, times {n / asked:g}"
        row = Row(
            f"Streamed, {what}",
            "accelerate's disk offload",
            (seconds,),
            (theirs[asked] * n / asked,),
            "" if n < AT else f">= {TIMES if before is None or n == AT else before:.3g}",
            note=note,
        )
        before = row.ratios[0]
        yield row
        yield Row(
            f"Streamed, {n} batches",
            "one reading of the files, then computing alone",
            (seconds,),
            (bare,),
            "<= 1.0",
            note=f"computing is measured on {STEPS} batches and one block, and multiplied",
        )
        hidden = n * args.examples * args.tokens * SHAPE["hidden_size"] * 2
        yield Row(
            f"Streamed, {n} batches: anonymous memory beyond the hidden states",
            "the most that it may be",
            ((peak - hidden) / GB,),
            (MOST_GB,),
            "<= 1.0",
            "GB",
        )


def check(ours_file, other_file, n_rows):
    """Both sides must have found the same."""
    found, expected = load_file(ours_file), load_file(other_file)
    assert found.keys() == expected.keys()
    assert found
    for name, rows in expected.items():
        assert torch.equal(found[name][:n_rows], rows), f"layer {name} differs"


def options(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few layers and batches")
    parser.add_argument("--layers", type=int, help="32 = the 7B model")
    parser.add_argument("--model", type=Path, help="folder of the weights; made where missing")
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--examples", type=int, default=1, help="of a batch")
    parser.add_argument("--tokens", type=int, default=16, help="of an example")
    parser.add_argument("--memory", type=float, help="GB that accelerate may keep")
    parser.add_argument("--most", type=int, help="batches that accelerate is timed on")
    parser.add_argument("--limit", type=float, help="GB of memory for each side")
    for name in ("--one", "--rows"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    for name, value in vars(QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main(argv=None):
    args = options(argv)
    if args.one:
        one(args)
        return
    with tempfile.TemporaryDirectory(prefix="olmo-stages-bench-") as made:
        folder = Path(made)
        args.model = args.model or folder / "model"
        if not (args.model / "config.json").is_file():
            args.model.mkdir(parents=True, exist_ok=True)
            write(args.model, args.layers)
        os.sync()  # what is not written yet cannot leave the cache
        show(list(measure(args, folder)))


if __name__ == "__main__":
    main()
