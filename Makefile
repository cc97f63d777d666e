# Everything here works on a machine that has Python 3.11 or newer and git. VENV and PYTHON can be set.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help install demo test test-all test-slurm check fix bench clean

help:  ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(READY)  ## create the virtual environment with pinned versions

# torch first and pinned: an unpinned one brings several gigabytes of CUDA to a machine without a GPU.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "olmo-stages needs Python 3.11 or newer; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e ".[dev,slurm]"
	touch $(READY)

demo: $(READY)  ## train the miniature family (once), run the main job on two stages, make its page
	$(BIN)/python run.py -m model=think_sft,think_dpo analysis=probe

# Each worker takes tests that lie together, which share what was made for them.
test: $(READY)  ## the tests: no network, a few minutes on 2 cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

test-all: $(READY)  ## also the slow ones
	$(BIN)/python -m pytest -q -m "not gpu and not network and not slurm"

# One after another: they share two cores and one cluster, and some wait for what takes its time.
test-slurm: $(READY)  ## the tests on a real Slurm, started for them; as root on Debian installs it
	-bash tests/slurm/install.sh
	OMP_NUM_THREADS=1 timeout -k 60 1200 $(BIN)/python -m pytest -q -n 0 -m slurm --durations=15 tests/slurm

check: $(READY)  ## format, lint, types, import direction; fails and never repairs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

fix: $(READY)  ## repair format and what lint can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## speed against other ways of doing the same, side by side
	$(BIN)/python benchmarks/start_up.py
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/probe_fits.py
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/cka_map.py
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/cosine_null.py
	$(BIN)/python benchmarks/load_memory.py
	$(BIN)/python benchmarks/report_page.py

clean:  ## remove the virtual environment and caches of tools, never results
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache .hypothesis
