# Everything a person types. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
ARGS ?=
export PATH := $(CURDIR)/.venv/bin:$(PATH)

INSTALLED := .venv/.installed
SHA = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)$(shell git diff --quiet HEAD 2>/dev/null || echo -dirty)
PYTEST := OMP_NUM_THREADS=1 pytest -n auto --maxprocesses 4 --dist loadgroup

.PHONY: help setup data sample demo test test-components pipeline pipeline-local lint images lock clean

help: ## list what can be typed
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' Makefile

setup: $(INSTALLED) ## make the environment .venv with everything pinned (PYTHON=python3.12 picks another Python)

$(INSTALLED): requirements/all.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: there is no $(PYTHON): apt install python3 python3-venv" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $$($(PYTHON) --version) is too old, 3.11 or newer is needed: make PYTHON=python3.12 setup" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "make: $(PYTHON) cannot make environments: apt install python3-venv" >&2; exit 2; }
	@echo "Installing into .venv (about 6 GB, a few minutes) ..."
	@test -x .venv/bin/pip || $(PYTHON) -m venv --clear .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement requirements/all.txt
	@.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(INSTALLED)

data: setup ## fetch the packed sample from the DVC remote, a folder of this repository
	@dvc pull --quiet data.dvc

demo: data ## run the whole pipeline on the embedded sample; what is done already is not done again
	dvc repro
	@python -m pipelines.summary runs/demo

test: data ## run all tests
	$(PYTEST) $(ARGS)

test-components: data ## test each pipeline component alone
	$(PYTEST) tests/components $(ARGS)

sample: setup ## build the sample again from Debian's openclipart packages, pack it and pin it
	@test -d /usr/share/openclipart/svg -a -d /usr/share/openclipart/png || \
		{ echo "make: apt install openclipart-svg openclipart-png" >&2; exit 2; }
	python sample/build_sample.py --openclipart /usr/share/openclipart --out sample
	ramflow pack --annotations $(foreach split,train validation test,$(split)=sample/annotations/openclipart_$(split)_ram.json) \
		--images sample/images --tags sample/tags.txt --shard-mb 4 --out data
	dvc add data && dvc push data.dvc

pipeline: setup ## compile the Kubeflow pipeline to pipelines/ramflow.yaml
	@python -m pipelines.pipeline

pipeline-local: data pipeline ## run the compiled pipeline here, without Docker (ARGS="data=PATH" sets parameters)
	@python -m pipelines.local $(ARGS)

lint: setup ## check style and types
	ruff check .
	mypy

images: ## build both images with Docker (BASE_IMAGE=... picks another base)
	docker build $(IMAGE_ARGS) --file docker/data.Dockerfile --tag ramflow-data:dev --tag ramflow-data:$(SHA) .
	docker build $(IMAGE_ARGS) --file docker/train.Dockerfile --tag ramflow-train:dev --tag ramflow-train:$(SHA) .
images: IMAGE_ARGS = --build-arg GIT_SHA=$(SHA) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE))

lock: LOCK = $$TOOL/bin/uv pip compile --quiet --universal --python-version 3.11 --custom-compile-command "make lock" $(ARGS)
lock: ## resolve requirements/ again (ARGS=--upgrade takes newer versions)
	@TOOL=$$(mktemp -d); trap 'rm -rf $$TOOL' EXIT; \
	$(PYTHON) -m venv $$TOOL; $$TOOL/bin/pip install --quiet uv==0.13.9; \
	$(LOCK) --all-extras pyproject.toml requirements/build.in requirements/dev.in --output-file requirements/all.txt; \
	$(LOCK) --constraints requirements/all.txt pyproject.toml requirements/build.in --output-file requirements/data.txt; \
	$(LOCK) --constraints requirements/all.txt --extra train pyproject.toml requirements/build.in \
		--output-file requirements/train.txt

clean: ## remove runs and caches; the environment and the data stay
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
