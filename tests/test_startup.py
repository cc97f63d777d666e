"""What must be quick imports neither torch nor transformers."""

import subprocess
import sys

import pytest

from olmo_stages.stages import conf_folder

HEAVY = "torch, transformers, sklearn, pandas, wandb, datasets, scipy"


def modules_after(code):
    # At exit, because Hydra leaves by sys.exit after --help.
    report = f"print(*[m for m in '{HEAVY}'.split(', ') if m in sys.modules])"
    program = f"import atexit, sys\natexit.register(lambda: {report})\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=conf_folder().parent,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["-sc", "query=bash"]])
def test_help_config_and_completion(arguments):
    code = (
        "import os; os.environ['COMP_LINE'] = 'run.py model='; os.environ['COMP_POINT'] = '13'\n"
        f"sys.argv = ['run.py', *{arguments}]\n"
        "from olmo_stages.launch import main\n"
        "main()"
    )
    lines = modules_after(code)
    assert lines[-1] == ""
    assert any("think_sft" in line or "base" in line for line in lines)


def test_stages_tree():
    code = (
        "from typer.testing import CliRunner\n"
        "from olmo_stages.cli import app\n"
        "print(CliRunner().invoke(app, ['stages']).output)"
    )
    lines = modules_after(code)
    assert "think_dpo" in "\n".join(lines)
    assert not {"torch", "transformers", "pandas"} & set(lines[-1].split())


def test_probes_and_what_is_written_of_them():
    code = """
import numpy as np
from dataclasses import replace
from olmo_stages import records
from olmo_stages.analyses.probe import Probe
from tests.fakes import THINK, FakeSource, grouped_examples
x = np.random.default_rng(0).normal(size=(1, 120, 4))
source = FakeSource(tuple(grouped_examples(30)), lambda _: x)
probe = Probe("logistic", "resid_post", "last", None, [1.0], 3, 2, 100, 9, 1, False)
result = probe(THINK, None, source, 0)
print(len(records.parquet(result.measurements)), *map(len, result.tables.values()))
"""
    lines = modules_after(code)
    assert lines[-1] == ""
