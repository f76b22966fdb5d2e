# make demo    install, then rerank the example and show the result
# make test    install what tests need, run them all
# make test-chaos   break everything that breaks in a night, and write docs/chaos.md
# make bench-engine, bench-gpu, bench-system, bench-io   tables of ratios, side by side with a peer
# make lint    style, and make types: mypy
# make docs    write the README's generated tables anew
# make data    make the example and the demo model again, from PACKAGES=….parquet

PYTHON ?= python3
OUT ?= demo-out
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: install install-dev demo test test-chaos bench-engine bench-gpu bench-system bench-io lint types docs data clean

install: $(VENV)/installed
install-dev: $(VENV)/installed-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Rankmill needs Python 3.11 or newer: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -e '.[worker,prepare,eval,local]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -e '.[worker,prepare,eval,local,dev]'
	@touch $@ $(VENV)/installed

demo: install
	$(BIN)/rankmill run examples/packages.parquet $(OUT) --model demo --top-k 10

test: install-dev
	$(BIN)/python -m pytest

bench-engine: install-dev
	$(BIN)/python -m bench.engine

bench-gpu: install-dev
	$(BIN)/python -m bench.gpu

bench-system: install-dev
	$(BIN)/python -m bench.system

bench-io: install-dev
	$(BIN)/python -m bench.io

test-chaos: install-dev
	RANKMILL_CHAOS_TABLE=docs/chaos.md $(BIN)/python -m pytest tests/chaos -m '' -s

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev
	$(BIN)/mypy

docs: install-dev
	$(BIN)/python docs/tables.py README.md

data: install-dev
	$(BIN)/python examples/package_search.py $(PACKAGES) examples/packages.parquet
	$(BIN)/python models/train_demo_reranker.py $(PACKAGES) models/demo-reranker --threads 2
	$(BIN)/python models/evaluate_demo_reranker.py models/demo-reranker $(PACKAGES)

clean:
	rm -rf $(VENV) $(OUT)
