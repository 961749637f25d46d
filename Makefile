# `make demo` and `make test` are all a newcomer needs; both install what they use into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := store/demo

.DEFAULT_GOAL := help
.PHONY: help install demo test lint lock sample bench clean

help:
	@echo "make demo    install, label the videos of data/sample, say where to look"
	@echo "make test    install, then lint, types, import rules and tests"
	@echo "make bench   the speed figures of benchmarks/RESULTS.md"
	@echo "make sample  make data/sample anew (needs espeak-ng)"
	@echo "make lock    resolve requirements.lock anew (needs uv)"

install: $(INSTALLED)

# The lock holds everything, so nothing is resolved here. torch on PyPI for Linux is the CUDA
# build, which does not import without the CUDA packages that the lock leaves out; then the CPU
# build takes its place. Byte code is made last and on every core, where pip takes one; what
# does not compile, some packages' code for other Pythons, was never imported.
$(INSTALLED): requirements.lock pyproject.toml
	@echo "Installing into $(VENV) (once; some minutes and 2.8 GB) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 13)))' \
		|| { echo "vsa needs Python 3.11 or 3.12: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-compile \
		-r requirements.lock
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install -qq \
		--disable-pip-version-check --no-deps --no-compile --force-reinstall \
		--index-url https://download.pytorch.org/whl/cpu torch==2.13.0
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $(INSTALLED)

demo: $(INSTALLED)
	@$(BIN)/vsa run data/sample/clips --store $(DEMO)
	@$(BIN)/python scripts/score_sample.py --store $(DEMO)

# A file's tests stay in one process, and each process keeps to one core: networks that share two
# cores with others wait for one another. Three, for flows wait for their servers much of the time.
test: $(INSTALLED) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

sample: $(INSTALLED)
	$(BIN)/python data/sample/make_sample.py

lock:
	scripts/lock.sh

clean:
	rm -rf $(VENV) store .mypy_cache .ruff_cache .pytest_cache
