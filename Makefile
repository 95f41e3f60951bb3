# `make demo` and `make test` need Python 3.11 or newer; each makes its environment when something about it changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
PROJECT := pyproject.toml constraints.txt

.PHONY: demo test check slow test-kernels clean

demo: $(VENV)/.installed
	$(BIN)/ponder3d demo

# Two processes of one thread each: on two cores in two thirds of the time of one process with two threads.
test: check
	PONDER3D_TEST_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow --timeout=7200

# The Triton kernels in Triton's interpreter, so that no GPU is needed. On a GPU: pytest tests/kernels.
test-kernels: $(VENV)/.installed-kernels
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/kernels

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("ponder3d needs Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(PROJECT) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(PROJECT) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-kernels: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet -c constraints.txt triton==3.6.0
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
