# Needs Python 3.11 or newer, git and make. `make demo` on a fresh machine first makes .venv.

PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Two test processes, one thread each: torch would otherwise start a thread per core in both.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadgroup

.PHONY: demo test test-all check check-real venv figures

demo: $(STAMP)
	$(BIN)/lm_eval --model mtp --tasks humaneval_mtp --limit 20 --output_path demo/ --log_samples
	$(BIN)/mtp-harness demo demo/

test: $(STAMP)
	$(PYTEST)

test-all: $(STAMP)
	$(PYTEST) -m ""

# Redraws figures/ from figures/results; a test fails where they have drifted apart.
figures: $(STAMP)
	$(BIN)/python figures/regenerate.py

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Needs the checkpoint, from the hub or a folder: make check-real MODEL=Qwen/Qwen3.5-0.8B
check-real: $(STAMP)
	$(BIN)/python -m tests.benchmarks.check_real $(MODEL)

venv: $(STAMP)

# hatch_build.py and the start-up file decide what an editable install puts into the environment.
$(STAMP): pyproject.toml constraints.txt hatch_build.py mtp_harness.pth
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable '.[dev]'
	touch $@
