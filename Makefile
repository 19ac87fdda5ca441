# Needs Python 3.11 or newer, git and make. `make demo` on a fresh machine first makes .venv.

PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Two test processes, one thread each: torch would otherwise start a thread per core in both.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadgroup

.PHONY: demo test test-all test-vllm check check-real venv figures

demo: $(STAMP)
	$(BIN)/lm_eval --model mtp --tasks humaneval_mtp --limit 20 --output_path demo/ --log_samples
	$(BIN)/mtp-harness demo demo/

test: $(STAMP)
	$(PYTEST)

test-all: $(STAMP)
	$(PYTEST) -m ""

# The second engine, on the CPU in a separate environment: 4 GB, which take 5 minutes the first time. It needs torch 2.13.0+cpu: if
# pip does not find that, set PIP_EXTRA_INDEX_URL to PyTorch's own index for CPUs. Nothing is compiled: that takes longer than the tests.
VLLM ?= .venv-vllm
VLLM_HERE := VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_ENABLE_V1_MULTIPROCESSING=0 \
  VLLM_NO_USAGE_STATS=1 VLLM_LOGGING_LEVEL=ERROR HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TORCHDYNAMO_DISABLE=1

test-vllm: $(VLLM)/.installed
	$(VLLM_HERE) $(VLLM)/bin/python -m pytest -q -n 2 --dist loadgroup tests/test_vllm.py tests/decode/test_vllm_counts.py

# torchvision has no build that fits and is not needed; lm_eval needs a distribution with the name vllm.
$(VLLM)/.installed: tests/requirements-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet -r tests/requirements-vllm.txt
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m tests.name_vllm
	$(VLLM)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

# Redraws figures/ from figures/results; a test fails if they differ.
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
