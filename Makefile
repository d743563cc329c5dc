# Everything a contributor types. Needs Python 3.11 or later and make.
# Settings: PYTHON=python3.12, VENV=/elsewhere, WORKERS=8, ARGS='-k storage -x', DATA=folder.

SHELL := bash
PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
VENV ?= .venv
WORKERS ?= 2
ARGS ?=
DATA ?= data

BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
# Folders are listed too: when a file is removed, only its folder's date tells.
SOURCES := $(shell find denograd meta baselines -name __pycache__ -prune -o -print) README.md LICENSE

# The nets here are tiny: one thread a process is several times faster than two.
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg

.DEFAULT_GOAL := help
.PHONY: help install demo test slow benchmark robustness lint format clean distclean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:  ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

# .incomplete marks an environment whose making was cut short: the next run starts afresh.
# An environment without it, made by hand perhaps, is kept and installed into.
$(VENV)/.dependencies: pyproject.toml setup.py constraints.txt
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "Python 3.11 or later is needed; give its path: make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@if [ -e $(VENV)/.incomplete ]; then echo "Removing the unfinished $(VENV)"; rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.incomplete
	@if [ ! -x $(BIN)/python ]; then \
		echo "Making $(VENV) with $$("$(PYTHON)" --version)"; "$(PYTHON)" -m venv $(VENV); fi
	@echo "Installing into $(VENV) (minutes the first time: torch is large)"
	@rm -rf build denograd_optim.egg-info
	@$(PIP) install -c constraints.txt setuptools
	@$(PIP) install -c constraints.txt --no-build-isolation '.[dev]'
	@touch $@ && rm $(VENV)/.incomplete

# build/ would carry files into the wheel that are long gone from the sources. The stamp has
# the time of the start, so that what is edited meanwhile is installed the next time.
$(VENV)/.package: $(VENV)/.dependencies $(SOURCES)
	@touch $@.started
	@echo "Installing denograd into $(VENV)"
	@rm -rf build denograd_optim.egg-info
	@$(PIP) install --no-deps --no-build-isolation --force-reinstall .
	@rm -rf build denograd_optim.egg-info
	@mv $@.started $@

install: $(VENV)/.package  ## make .venv if missing and install the package into it
	@echo "Ready: $(VENV)/bin/denograd"

demo: $(VENV)/.package  ## train with and without denograd on real data, and show who wins
	@$(BIN)/denograd demo $(ARGS)

test: $(VENV)/.package  ## run the tests and the examples in the docstrings
	@$(BIN)/pytest -n $(WORKERS) --doctest-modules --pyargs ./tests denograd $(ARGS)

slow: $(VENV)/.package  ## run the tests that take minutes
	@$(BIN)/pytest -n $(WORKERS) -m slow $(ARGS)

benchmark: $(VENV)/.package  ## compare with tuned AdamW on the held-out tables (hours; DATA=folder)
	@$(BIN)/python scripts/fetch_data.py --out $(DATA)
	@$(BIN)/python scripts/benchmark.py --data $(DATA) --context $(ARGS)
	@$(BIN)/python scripts/benchmark.py --data $(DATA) --tuned $(ARGS)
	@$(BIN)/python scripts/benchmark.py --data $(DATA) --regression $(ARGS)
	@$(BIN)/python scripts/benchmark.py --data $(DATA) --rivals $(ARGS)
	@$(BIN)/python scripts/benchmark.py --data $(DATA) --large $(ARGS)
	@$(BIN)/python scripts/benchmark.py --data $(DATA) --sequences $(ARGS)

robustness: $(VENV)/.package  ## try the denoiser far from what it was trained on (hours; DATA=folder)
	@$(BIN)/python scripts/fetch_data.py --out $(DATA)
	@$(BIN)/python scripts/robustness.py --data $(DATA) --page docs/robustness.md $(ARGS)

# mypy runs where no denograd/ folder hides the installed package, which alone has
# denograd.meta and denograd.baselines in their places.
lint: $(VENV)/.package  ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@cd $(VENV) && $(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --strict \
		--cache-dir $(CURDIR)/.mypy_cache -p denograd

format: $(VENV)/.package  ## rewrite the files in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove what tests and builds leave behind
	@rm -rf build dist denograd_optim.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean  ## clean, and remove .venv too
	@rm -rf $(VENV)
