# Each target does all of its own set-up in .venv. Needs Linux, Python 3.11 or newer with venv, and make.
PYTHON ?= python3
# PyTorch's own index of CPU builds, or any other that pip should look at too:
# make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
BIN := .venv/bin
# pip would compile all files that it installs. Python compiles those that are imported, when they are.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# Three on two cores waited less, but a whole run used a seventh more CPU time.
WORKERS ?= 2
# Tests start hundreds of processes. Each would compile all sources again if an environment forbade to keep the result.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo up docs test check soak chaos fuzz kernels lint format clean setup setup-dev

demo: setup ## run the main job from beginning to end
	$(BIN)/chiffre demo

up: setup api/help/index.html ## start everything in the foreground
	$(BIN)/chiffre up

docs: .venv/ready-docs ## build the documentation, which the API serves at /help
	$(BIN)/python -m docs.generate
	$(BIN)/zensical build --clean --strict

# A service runs without it: /help then says how to build it.
api/help/index.html:
	-$(MAKE) docs

# Types and kernels each keep one core busy, so they are checked and compiled at once.
READY := $(MAKE) --jobs 2 --output-sync lint kernels

test: setup-dev ## every test not marked long or soak
	$(READY)
	$(BIN)/pytest -n $(WORKERS) -m "not long and not soak"

check: setup-dev ## every test not marked soak
	$(READY)
	$(BIN)/pytest -n $(WORKERS) -m "not soak"

soak: setup-dev ## the tests that take longest
	$(BIN)/pytest -n $(WORKERS) -m soak

CHAOS_SECONDS ?= 3600
CHAOS_SEED ?= 1000

chaos: setup-dev ## an hour of faults, seed after seed
	PYTHONPATH=tests $(BIN)/python -m acceptance.faults.chaos --seconds $(CHAOS_SECONDS) --seed $(CHAOS_SEED)

FUZZ_EXAMPLES ?= 30

fuzz: setup-dev ## thousands of requests that are generated from the API's own description
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/pytest tests/api/test_schemathesis.py

# The first trainer on a machine compiles for 20 seconds. Many that start at once would each do it.
kernels: setup-dev ## compile the kernels of training
	$(BIN)/python -c "from ml.training.process import warm_up; warm_up()"

lint: setup-dev ## ruff, the order of layers and folders, and a strict type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

format: setup-dev ## let ruff put the code in form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: .venv/ready
setup-dev: .venv/ready-dev

# Everything is pinned: an unpinned torch may bring gigabytes of CUDA. What a target needs is installed in one run,
# because each run reads all packages that are there again.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/ready: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv; torch alone is about 200 MB …"
	$(PIP) -c constraints.txt -e .
	@touch $@

.venv/ready-dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv; torch alone is about 200 MB …"
	$(PIP) -c constraints.txt -e ".[dev]"
	@touch .venv/ready .venv/ready-docs $@

.venv/ready-docs: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -c constraints.txt -e ".[docs]"
	@touch .venv/ready $@

clean: ## remove the environment and all caches; .chiffre stays
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis api/help docs/generated
