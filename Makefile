# make demo   sets up .venv and runs the whole journey on the network that ships with the package
# make test   sets up .venv and runs the tests, in two processes; make test WORKERS=4 in four
# make families  certifies a network of every family of timm and torchvision, two hours on two cores
# make lint   sets up .venv and runs ruff and mypy
# make clean  removes .venv and everything built
#
# Every target may be repeated; set-up happens again only when pyproject.toml changes.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
WORKERS ?= 2

.PHONY: demo test families lint setup clean
.DEFAULT_GOAL := test

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fxpullback needs Python 3.11 or newer; $(PYTHON) is older. Name another: make PYTHON=python3.11" >&2; exit 1; }
	@echo "Setting up .venv: a few minutes, and several gigabytes for torch, the first time"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install $(if $(CI),--quiet) --disable-pip-version-check --no-input -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/fxpullback demo

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

families: $(STAMP)
	FXPULLBACK_ALL=1 $(BIN)/python -m pytest tests/benchmarks/test_families.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist demo-output *.egg-info .mypy_cache .pytest_cache .ruff_cache
