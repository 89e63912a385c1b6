# Everything a person or CI runs. `make setup PYTHON=python3.12` makes the environment with another interpreter.
PYTHON ?= python3
BIN := .venv/bin
# constraints.txt is in force for every installation: an unpinned torch brings gigabytes of CUDA libraries.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.PHONY: help setup quickstart test test-slow test-cluster test-cluster-smoke test-gpu bench lint format clean

help:
	@echo "make setup       create .venv and install tune-rnn into it"
	@echo "make quickstart  set up, then run the study of experiments/quickstart"
	@echo "make test        the fast tests"
	@echo "make test-slow   the slow tests"
	@echo "make test-cluster  studies on several hosts, which are namespaces: needs root, openssh-server, rsync, iproute2"
	@echo "make test-cluster-smoke  the shortest way through a cluster, in three minutes"
	@echo "make test-gpu    the tests that need a CUDA device"
	@echo "make bench       how fast a training step and a study of a minute are, as ratios, in four minutes"
	@echo "make lint        ruff and mypy"
	@echo "make format      let ruff rewrite what it can"
	@echo "make clean       remove .venv"

setup: .venv/installed

quickstart: setup
	$(BIN)/tune-rnn run experiments/quickstart/study.yaml

test: .venv/installed-dev
	$(BIN)/python -m pytest

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -m "slow and not cluster and not gpu"

test-cluster: .venv/installed-dev
	$(BIN)/python -m pytest -m cluster tests/cluster --ignore tests/cluster/test_smoke.py

test-cluster-smoke: .venv/installed-dev
	$(BIN)/python -m pytest -m cluster tests/cluster/test_smoke.py

test-gpu: .venv/installed-dev
	$(BIN)/python -m pytest -m gpu

# Ends with an error where something is broken, and only then: the limits are far below what was measured.
bench: .venv/installed-dev
	$(BIN)/python benchmarks/cpu_step.py --pairs 5 --seconds 1 --least 0.8
	$(BIN)/python benchmarks/cells.py --pairs 3 --least 0.8
	$(BIN)/python benchmarks/useful.py --minutes 1 --pairs 1 --least 0.6

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv

# An existing .venv keeps its Python: `make clean` comes before a change of PYTHON.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else \
	  "tune-rnn needs Python 3.11, 3.12 or 3.13; this is %d.%d. Use: make setup PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv

# The marks are written last, so that an interrupted installation is taken up again.
.venv/installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) --editable .
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) --editable '.[dev]'
	@touch .venv/installed $@
