# The developer's interface. Each target sets up what it needs on a fresh machine.
PYTHON ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/pip install --quiet --disable-pip-version-check
CPP     := $(shell find csrc -name '*.cpp' -o -name '*.h')
PLANNING := $(shell find src/foretoken/horizon src/foretoken/drafters -name '*.py')  # most of it is compiled
SOURCES := $(shell find csrc -type f) $(PLANNING) tools/compile_python.py CMakeLists.txt pyproject.toml

.PHONY: setup demo test lint check clean

setup: $(VENV)/.built

$(VENV)/.made: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=…" if sys.version_info < (3, 11) else 0)'
	@command -v $${CXX:-c++} > /dev/null || { echo "A C++20 compiler is needed: g++ 12, clang 15 or newer."; exit 1; }
	@command -v $${CC:-cc} > /dev/null || { echo "A C compiler is needed: the one that comes with g++ or clang."; exit 1; }
	@echo "This makes $(VENV) with build tools (about 360 MB on disk), then compiles the native core: some minutes, once."
	@echo "Making $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade "pip>=25.1"
	@$(PIP) --group dev "scikit-build-core>=1.0,<2" "nanobind>=3.0,<4" "setuptools>=77" "cmake>=3.25" ninja
	@touch $@

$(VENV)/.built: $(VENV)/.made $(SOURCES)
	@echo "Building the native core …"
	@$(PIP) --no-build-isolation --editable .
	@touch $@

demo: setup
	@$(BIN)/foretoken demo

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP)

check: lint test

clean:
	rm -rf $(VENV) build
