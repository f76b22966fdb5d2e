# make demo    install, then rerank the example and show the result
# make test    install what tests need, run them all
# make programs     install what some tests run besides Python: Debian's Chromium, Java, Prometheus, Redis; Helm
# make test-chaos   break everything that breaks in a night, and write docs/chaos.md
# make images      build the images of the profiles in .env, with version, commit and time as labels
# make test-hostile   give every command thousands of hostile inputs, and count how they end
# make test-compose   build the images, bring the stack up, break it, take it down; needs Docker
# make test-gpu-images   build the GPU image at each TRIM, and prove what can be proved without a GPU; needs Docker
# make test-recipes   install Airflow, Dagster and others, each for itself, and run the recipes of docs/recipes.md
# make bench-engine, bench-gpu, bench-system, bench-io   tables of ratios, side by side with peers
# make bench-precision CHECKPOINT=… DATA=…   how each precision of a real model ranks Cranfield
# make bench-fleet   hundreds of workers on one Redis, and one that is idle
# make bench-reuse   a night that reuses the scores of the one before
# make bench-host   what the host does for a fast device, with the forward left out
# make bench-prefix   LLM reranking with a shared prefix, against Sentence Transformers
# make bench-speeds   the speed of each model of docs/models.md
# make bench-long-documents DATA=…   how each --long-docs ranks Cranfield
# make test-unit   the fast tests, in under 90 s: no service, no worker, nothing marked slow
# make lint    style and the strict build of the documentation; make types: mypy
# make docs    write the generated parts of the documentation: options, settings, commands, metrics, models
# make docs-site   build the documentation as a site in site/
# make report-picture, flower-pictures   take the pictures of report page, terminal and Flower in docs/
# make data    make the example and the demo model again, from PACKAGES=….parquet and TEACHER=a reranker's folder

PYTHON ?= python3
OUT ?= demo-out
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# pip compiles on one core. Some packages ship files of other languages as .py, which fail.
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true

.PHONY: install install-dev install-bench programs demo test test-unit test-chaos bench-engine bench-precision bench-gpu bench-system bench-io bench-reuse bench-fleet bench-host bench-prefix bench-speeds bench-long-documents lint types docs docs-site report-picture flower-pictures data clean

install: $(VENV)/installed
install-dev: $(VENV)/installed-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Rankmill needs Python 3.11 or newer: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The build of the package compiles the kernels.
BUILT_FROM := pyproject.toml constraints.txt hatch_build.py $(wildcard worker/engine/compiled/*.[ch])

$(VENV)/installed: $(BUILT_FROM) | $(VENV)/bin/python
	$(PIP_INSTALL) -e '.[worker,prepare,eval,report,local]'
	@$(COMPILE)
	@touch $@

$(VENV)/installed-dev: $(BUILT_FROM) | $(VENV)/bin/python
	$(PIP_INSTALL) -e '.[worker,convert,prepare,eval,report,flower,local,delta,iceberg,docs,dev]'
	@$(COMPILE)
	@touch $@ $(VENV)/installed

programs:
	apt-get update --quiet=2
	apt-get install --quiet=2 --yes --no-install-recommends chromium chromium-driver gcc libc6-dev default-jre-headless prometheus redis-tools
	command -v helm >/dev/null || $(PYTHON) docker/k8s/install_helm.py

demo: install
	$(BIN)/rankmill run examples/packages.parquet $(OUT) --model demo --top-k 10
	$(BIN)/rankmill eval $(OUT) --qrels examples/packages.qrels --recall-at 10

# A file's tests share what it starts. The order is that of the folders, so that long files come first.
test: install-dev
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

# In under 90 s on two cores: without the tests that are marked as slow.
test-unit: install-dev
	$(BIN)/python -m pytest tests/unit -n 2 --dist loadfile -m 'not slow'

# The other back ends of Sentence Transformers, which no test needs.
install-bench: install-dev
	$(PIP_INSTALL) -e '.[bench]'

# CHECKPOINT names the folder of a real model to measure besides random weights.
bench-engine: install-bench
	$(BIN)/python -m bench.engine $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) --results bench/results/engine-cpu.json

# DATA names a folder with Cranfield: corpus.parquet, queries.parquet and qrels.trec.
bench-precision: install-dev
	$(BIN)/python -m bench.precision --checkpoint $(CHECKPOINT) --data $(DATA) --results bench/results/precision.json

# With a GPU it runs the plan, else it prints the plan. CHECKPOINT names the folder of a real model.
bench-gpu: install-dev
	$(BIN)/python -m bench.gpu $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT))

bench-system: install-dev
	$(BIN)/python -m bench.system

bench-io: install-dev
	$(BIN)/python -m bench.io

bench-fleet: install-dev
	$(BIN)/python -m bench.fleet

bench-reuse: install-dev
	$(BIN)/python -m bench.reuse

bench-host: install-dev
	$(BIN)/python -m bench.host

bench-prefix: install-dev
	$(BIN)/python -m bench.prefix

# The speeds of docs/models.md; `make docs` then writes them there.
bench-speeds: install-dev
	$(BIN)/python -m bench.speeds --results bench/results/speeds-cpu.json

# DATA as for bench-precision.
bench-long-documents: install-dev
	$(BIN)/python -m bench.long_documents --data $(DATA) --checkpoint $(or $(CHECKPOINT),models/demo-reranker)

test-chaos: install-dev
	RANKMILL_CHAOS_TABLE=docs/chaos.md $(BIN)/python -m pytest tests/chaos -m '' -s

# A password in the address of the repository stays out of the images.
.PHONY: images
images:
	IMAGE_REVISION="$$(git rev-parse HEAD)$$(git diff --quiet HEAD || echo -dirty)" \
	IMAGE_CREATED="$$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
	IMAGE_SOURCE="$$(git config --get remote.origin.url | sed 's#//[^/@]*@#//#')" \
	docker compose build

.PHONY: test-hostile
test-hostile: install-dev
	RANKMILL_HOSTILE_TABLE=docs/hostile.md $(BIN)/python -m pytest tests/hostile -m long -s

# Loads a gigabyte of packages: once a release.
.PHONY: test-recipes
test-recipes: install-dev
	$(BIN)/python -m pytest tests/recipes -m '' -s

.PHONY: test-compose
test-compose: install-dev
	$(BIN)/python -m pytest tests/compose -m compose -s

# Gigabytes to load and 20 GB of disk: once a release.
.PHONY: test-gpu-images
test-gpu-images: install-dev
	$(BIN)/python -m pytest tests/compose -m gpu_images -s

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir "$${TMPDIR:-/tmp}/rankmill-site-$$(id -u)"

types: install-dev
	$(BIN)/mypy

docs: install-dev
	$(BIN)/python docs/tables.py

docs-site: install-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

report-picture: install-dev demo
	$(BIN)/python -m docs.screenshot $(OUT) docs

flower-pictures: install-dev
	$(BIN)/python -m docs.flower_pictures docs

data: install-dev
	$(BIN)/python examples/package_search.py $(PACKAGES) examples/packages.parquet
	$(BIN)/python models/train_demo_reranker.py $(PACKAGES) models/demo-reranker --threads 2
	$(BIN)/python models/distill_demo_reranker.py models/demo-reranker $(PACKAGES) $(TEACHER) models/demo-reranker --threads 2
	$(BIN)/python models/evaluate_demo_reranker.py models/demo-reranker $(PACKAGES)

clean:
	rm -rf site $(VENV) $(OUT) $(dir $(OUT))_rankmill/$(notdir $(OUT))
