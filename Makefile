# Everything runs from a fresh clone: each target first brings .venv up to date with pyproject.toml.
#   make demo [ARGS=--exit]   make test [ARGS=…]   make check   make bench [ARGS=…]   make constraints   make clean
# `make bench` makes its rivals' environments below .venv-rivals; ARGS names subjects, --no-rivals leaves them out.
# Needs make and Python 3.11 or newer. PYTHON=… picks another Python; PIP_ARGS=… goes to pip.

SHELL := /bin/sh
ARGS ?=
PIP_ARGS ?=
BIN := .venv/bin
SOURCES := server switches_store clients tests benchmarks docker

# The first of these that runs and is new enough; 3.11 first, since constraints.txt is tested with it.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

.NOTPARALLEL:
.PHONY: demo test check bench constraints clean

demo: .venv/demo.stamp
	$(BIN)/bitswitch demo $(ARGS)

test: check
	$(BIN)/python -m pytest $(ARGS)

check: .venv/dev.stamp
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

bench: .venv/dev.stamp
	$(BIN)/python -m benchmarks $(ARGS)

constraints: .venv/dev.stamp
	$(BIN)/python docker/constraints.py > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv .venv-rivals .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment: what the tests need includes what the demo needs, so `dev` settles both stamps.
.venv/dev.stamp: extra = dev
.venv/dev.stamp: settles = .venv/dev.stamp .venv/demo.stamp
.venv/demo.stamp: extra = demo
.venv/demo.stamp: settles = .venv/demo.stamp
.venv/%.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing bitswitch[$(extra)] into .venv: a few minutes, the first time."
	$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check --prefer-binary --no-compile \
		$(PIP_ARGS) -c constraints.txt -e '.[$(extra)]'
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import bitswitch.cli.serve'
	@touch $(settles)

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "bitswitch needs Python 3.11 or newer; none was found." \
		"Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
