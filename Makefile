# Needs make and Python 3.11 or newer; everything else is put into .venv, once.
#
#   make demo   a database that is cut off its power, from a recording, in under a minute
#   make test   run the tests
#   make check  lint, format, types, style
#   make bench  measure
#   make truth  explore the SQLite recordings, hold docs/sqlite.md and advise against what comes of it
#   make fuzz   try random inputs for FUZZ_SECONDS (60) of each kind
#   make mutate change the rules, MUTANTS (200) times, and see which changes no test sees
#   make docs   write docs/what-you-lose.md anew from the experiments, docs/rules.md from the code and its tests
#   make clean  remove .venv and what the tools left behind; runs/ stays

BIN = .venv/bin
DEMO = demo
MUTANTS = 200
PYTHONS = python3 python3.14 python3.13 python3.12 python3.11
RECENT = import sys; sys.exit(sys.version_info < (3, 11))
PIP = $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
HAS_PIP = $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null

.PHONY: demo test check bench truth fuzz mutate docs clean

demo: .venv/installed
	@echo "crashsim run experiments/$(DEMO).yaml"
	@$(BIN)/crashsim run experiments/$(DEMO).yaml

test: .venv/installed-dev
	@$(BIN)/python -m pytest -n auto --dist worksteal --durations=10

check: .venv/installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict
	@$(BIN)/python -m pytest -q tests/test_style.py

bench: .venv/installed-dev
	@$(BIN)/python -m benchmarks

truth: .venv/installed-dev
	@runs=$$(mktemp -d) && trap 'rm -rf "$$runs"' EXIT && \
		$(BIN)/crashsim run experiments/sqlite-*.yaml --output "$$runs" && \
		$(BIN)/python -m tests.sqlite_truth "$$runs" && \
		$(BIN)/python -m tests.advise_truth "$$runs"

fuzz: .venv/installed-dev
	@$(BIN)/python -m tests.fuzz

mutate: .venv/installed-dev
	@$(PIP) install --editable '.[mutate]'
	@nice $(BIN)/python -m tools.mutate $(MUTANTS)

docs: .venv/installed
	@$(BIN)/python -m tools

clean:
	rm -rf .venv dist mutants .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find crashsim tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# Both stamps are made anew when pyproject.toml changes. The development tools come with all that the
# demo needs.
.venv/installed: pyproject.toml .venv/bin/python
	@echo "Installing crashsim into .venv ..."
	@$(HAS_PIP)
	@$(PIP) install --editable .
	@touch $@

.venv/installed-dev: pyproject.toml .venv/bin/python
	@echo "Installing crashsim and its development tools into .venv ..."
	@$(HAS_PIP)
	@$(PIP) install --editable '.[dev]'
	@touch .venv/installed $@

# A .venv that is there is used, whoever made it, unless its Python is gone.
.venv/bin/python:
	@for python in $(PYTHONS); do \
		if $$python -c '$(RECENT)' 2>/dev/null; then \
			$$python -m venv --clear .venv && exit; \
			rm -rf .venv; \
			exit 1; \
		fi; \
	done; \
	echo "crashsim needs Python 3.11 or newer. python3 is: $$(python3 --version 2>&1)" >&2; \
	echo "With another Python elsewhere: make PYTHONS=/path/to/python3.12 demo" >&2; \
	exit 1
