# The commands of this project. `make demo` and `make test` install what they need into .venv.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: help install demo test check docs format constraints clean

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED)  ## tested versions of everything, from PyPI, into .venv

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; install a newer Python and run: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@[[ -x $(BIN)/python ]] || $(PYTHON) -m venv .venv || \
	  { rm -rf .venv; echo "error: no virtual environment could be made; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into .venv (about 8 GB on disk, most of it PyTorch's CUDA libraries)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## the whole story on synthetic video, about 10 minutes on 2 cores: films to a registered encoder
	PATH="$$PWD/$(BIN):$$PATH" bash launch/demo.sh

test: $(INSTALLED)  ## all tests
	PATH="$$PWD/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup $(ARGS)

check: $(INSTALLED)  ## format, lint, types, shell scripts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/shellcheck --shell=bash .ci/run launch/*.sh infra/*/*.sh infra/slurm/*.sbatch

docs: $(INSTALLED)  ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

format: $(INSTALLED)  ## apply the formatter and the linter's safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints:  ## write the versions of .venv into constraints.txt, after they passed the tests
	{ head -n 1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | grep -viE '^(pip|setuptools|wheel)=='; } > constraints.new
	mv constraints.new constraints.txt

clean:  ## remove what the demo made (not .venv)
	rm -rf demo
