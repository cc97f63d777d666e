"""Peak memory of loading a checkpoint of OLMo 3's real shape, over the bytes of its weights.

Random bfloat16 weights of the released 7B shape (fewer layers unless --full) are written shard by
shard, so that no copy of the model is ever in memory, and loaded by `olmo_stages.models.loading` in
a process of its own, as an experiment does. Files that are mapped count in the resident size but
not in the anonymous one; the target is that either stays below 1.15 of the weights.

    python benchmarks/load_memory.py              # a few layers, about 2 GB on disk
    python benchmarks/load_memory.py --full       # the 7B shape: 14.6 GB on disk, 17 GB of memory
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from sides import Row, show

TARGET = 1.15
SHAPE = {"hidden_size": 4096, "intermediate_size": 11008, "vocab_size": 100278}
FULL_LAYERS = 32


def config(n_layers):
    kinds = ["sliding_attention"] * 3 + ["full_attention"]
    return {
        "architectures": ["Olmo3ForCausalLM"],
        "model_type": "olmo3",
        **SHAPE,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "hidden_act": "silu",
        "attention_bias": False,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "max_position_embeddings": 65536,
        "sliding_window": 4096,
        "layer_types": [kinds[i % 4] for i in range(n_layers)],
        "rope_theta": 500000,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "attention_factor": 1.2079441541679836,
        },
        "bos_token_id": None,
        "eos_token_id": 100257,
        "pad_token_id": 100277,
    }


def write(folder, n_layers, **changes):
    """One shard a block and one for the rest, config changed; returns the bytes of the weights."""
    import torch
    from safetensors.torch import save_file
    from transformers import Olmo3Config
    from transformers.models.olmo3 import Olmo3ForCausalLM

    (folder / "config.json").write_text(json.dumps(config(n_layers) | changes))
    with torch.device("meta"):
        shapes = Olmo3ForCausalLM(Olmo3Config.from_pretrained(folder)).state_dict()
    shards = {}
    for name in shapes:
        parts = name.split(".")
        shards.setdefault(parts[2] if parts[1] == "layers" else "rest", []).append(name)
    generator = torch.Generator().manual_seed(0)
    where, total = {}, 0
    for i, names in enumerate(shards.values()):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        weights = {}
        for name in names:
            tensor = torch.empty(shapes[name].shape, dtype=torch.bfloat16)
            weights[name] = tensor.normal_(0, 0.02, generator=generator)
            where[name] = file
            total += tensor.nbytes
        save_file(weights, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def memory():
    """Anonymous and whole resident bytes of this process."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return [int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "VmRSS")]


def load(folder):
    """Load in this process and print what it took beyond what the libraries take."""
    import torch
    import transformers  # noqa: F401  (its own memory is no part of loading)

    from olmo_stages.models.checkpoints import Checkpoint
    from olmo_stages.models.loading import load as load_stage
    from olmo_stages.types import Stage

    torch.set_num_threads(1)
    before = memory()
    peak, done = list(before), threading.Event()

    def watch():
        while not done.wait(0.002):
            peak[:] = map(max, peak, memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    stage = Stage("shape", "custom", str(folder))
    loaded = load_stage(stage, Checkpoint(folder, None), dtype="bfloat16", device="cpu")
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    n_bytes = sum(parameter.nbytes for parameter in loaded.model.parameters())
    grown = [high - low for high, low in zip(peak, before, strict=True)]
    print(json.dumps({"bytes": n_bytes, "anon": grown[0], "rss": grown[1], "seconds": seconds}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="as without")
    parser.add_argument("--full", action="store_true", help=f"all {FULL_LAYERS} layers")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load(options.load)
        return
    n_layers = FULL_LAYERS if options.full else options.layers
    with tempfile.TemporaryDirectory(prefix="olmo-stages-bench-") as folder:
        total = write(Path(folder), n_layers)
        command = [sys.executable, __file__, "--load", folder]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert found["bytes"] == total
    print(f"OLMo 3 7B shape with {n_layers} layers: {total / 1e9:.2f} GB of bfloat16 weights")
    rows, worst = [], 0.0
    for name, label in (("anon", "anonymous"), ("rss", "resident")):
        ratio = found[name] / total
        worst = max(worst, ratio)
        sides = ((found[name] / 1e9,), (total / 1e9,))
        rows.append(Row(f"loading, peak {label} memory", "weights", *sides, "<= 1.15", "GB"))
        print(f"  peak {label:9} {found[name] / 1e9:6.2f} GB = {ratio:.3f} x the weights")
    show(rows)
    print(f"  loaded in {found['seconds']:.1f} s; target: below {TARGET} x the weights")
    sys.exit(worst >= TARGET)


if __name__ == "__main__":
    main()
