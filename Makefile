# `make demo` and `make test` are all a user types; each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install demo test check docs slow clean

install: .venv/.dev

.venv/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable .
	@touch $@

.venv/.dev: .venv/.run
	$(PIP) --editable '.[dev]'
	@touch $@

demo: .venv/.run
	$(BIN)/setpoint run recipes/digits.yaml --run-dir runs/demo

# A process a core, each with one thread: quicker than one process whose threads wait for tiny models.
test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

slow: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "slow or shared"

check: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff check --isolated --select F821 benchmarks examples
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.dev
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf .venv runs site build
