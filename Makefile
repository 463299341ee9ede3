# Everything runs from the project's own environment, .venv, and asks nothing.
#   make setup PYTHON=python3.11          another interpreter (3.11 is what the pins were tested with)
#   make setup PIP_ARGS="--index-url ..." where pip looks for packages, e.g. a mirror
#   make setup TORCH_INDEX=URL            where it looks for PyTorch; empty: where it looks for all others
#   make test PYTEST_ARGS="-k store"      what pytest gets besides
#   make test TEST_PROCESSES=0            in one process; more than two need more than two cores

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
TEST_PROCESSES ?= 2
GPU_PYTHON ?= python3
DEMO_ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --no-input --disable-pip-version-check --progress-bar off $(PIP_ARGS)
TORCH := torch==2.13.0
# PyPI has the build for CUDA alone, which is gigabytes larger.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow test-all test-faults test-gpu test-matrix fuzz mutants lint format docs dist hashes sbom audit-pins
.PHONY: clean distclean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

.venv/.installed-cpu: pyproject.toml constraints-cpu.txt
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
ifneq ($(TORCH_INDEX),)
	$(PIP) --no-deps --retries 1 --index-url $(TORCH_INDEX) $(TORCH) \
		|| echo "No PyTorch from $(TORCH_INDEX): taking that of the package index. PyPI's is for CUDA and gigabytes larger."
endif
	$(PIP) -c constraints-cpu.txt $(TORCH) -e '.[cpu]'
	touch $@

.venv/.installed-dev: .venv/.installed-cpu
	$(PIP) -c constraints-cpu.txt $(TORCH) -e '.[cpu,dev]'
	touch $@

.venv/.installed-docs: .venv/.installed-cpu
	$(PIP) -c constraints-cpu.txt $(TORCH) -e '.[cpu,docs]'
	touch $@

# DeepSpeed would compile at its first use, in the middle of a run.
.venv/.ops-built: .venv/.installed-cpu
	$(BIN)/python -m gmp_atl_dist.training.ops
	touch $@

setup: .venv/.installed-cpu .venv/.ops-built ## install into .venv and build DeepSpeed's C++ ops

# Written once: a new time of change would make the pipeline look at every recording again.
runs/demo/.corpus-written: | .venv/.installed-cpu
	$(BIN)/gmp-atl corpora synth --out runs/demo/corpus
	touch $@

demo: setup runs/demo/.corpus-written ## the whole pipeline on a synthetic corpus, on a private local Ray; results in runs/demo
	$(BIN)/python -m ray_jobs.local --config configs/demo.toml --root runs/demo $(DEMO_ARGS)

PYTEST := $(BIN)/python -m pytest -n $(TEST_PROCESSES) --no-loadscope-reorder

test: .venv/.installed-dev .venv/.ops-built ## tests, the fast ones first
	$(PYTEST) $(PYTEST_ARGS)

test-slow: .venv/.installed-dev .venv/.ops-built ## those that test leaves out; CI runs both
	$(PYTEST) -m "slow and not nightly" $(PYTEST_ARGS)

test-all: .venv/.installed-dev .venv/.ops-built ## all, also those marked nightly
	$(PYTEST) -m "" $(PYTEST_ARGS)

test-faults: .venv/.installed-dev .venv/.ops-built ## whole runs under random faults, for at most 40 minutes
	$(BIN)/python -m benchmarks.faults --minutes 35

# For a nightly job: each of the environments takes gigabytes and minutes. MATRIX="py312-newest" runs one of them.
test-matrix: ## other versions of Python, PyTorch and transformers, in environments of their own below .matrix/
	"$(PYTHON)" .ci/matrix.py --pip-args="$(PIP_ARGS)" $(MATRIX)

# With the environment of the machine, which has a PyTorch for its CUDA: .venv has the CPU build. In one process, because
# several would share the card.
test-gpu: ## those that need a GPU, with GPU_PYTHON (default python3) and what it has installed
	$(GPU_PYTHON) -m pytest -m gpu -n 0 $(PYTEST_ARGS)

FUZZ_MINUTES ?= 10

fuzz: .venv/.installed-dev ## altered inputs for every parser, FUZZ_MINUTES (10) for each
	$(BIN)/python tests/fuzz/fuzz.py --minutes $(FUZZ_MINUTES) $(FUZZ_ARGS)

.venv/.installed-mutants: .venv/.installed-dev
	$(PIP) -c constraints-cpu.txt $(TORCH) -e '.[cpu,dev,mutants]'
	touch $@

MUTANTS ?= 200
SEED ?= 0

# In one process, and in a copy of the checkout. Called again, it continues.
mutants: .venv/.installed-mutants .venv/.ops-built ## the share of MUTANTS (200) small faults that the fast tests notice
	$(BIN)/python tests/mutants/mutants.py --count $(MUTANTS) --seed $(SEED) $(MUTANTS_ARGS)

lint: .venv/.installed-dev ## ruff, pyright, import-linter, hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --threads 2
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/image/Dockerfile

format: .venv/.installed-dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The variable leaves out a notice about the theme's successor.
docs: .venv/.installed-docs ## the documentation as a site, in site/; a broken link is an error
	$(BIN)/python docs/generate_configuration.py
	$(BIN)/python docs/generate_corpora.py
	$(BIN)/python docs/generate_modules.py
	$(BIN)/python docs/generate_stages.py
	$(BIN)/python docs/generate_screens.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The wheel is built from the sdist, so that what is left in build/ cannot get into it. Without pip's cache, which would
# give the wheel of an earlier sdist of the same name.
dist: .venv/.installed-dev ## build sdist and wheel into dist/, try the wheel in an empty venv
	rm -rf dist *.egg-info
	$(BIN)/python -c "from setuptools.build_meta import build_sdist; build_sdist('dist')" >/dev/null
	$(BIN)/python -m pip wheel --quiet --no-input --disable-pip-version-check --no-cache-dir --no-build-isolation \
		--no-deps --wheel-dir dist dist/*.tar.gz
	.ci/try-wheel $(BIN)/python dist/*.whl --progress-bar off $(PIP_ARGS) -c constraints-cpu.txt $(TORCH)

.venv/.installed-security: .venv/.installed-cpu
	$(PIP) -c constraints-cpu.txt $(TORCH) -e '.[cpu,security]'
	touch $@

hashes: .venv/.installed-cpu ## write hashes-cpu.txt again, after a pin has moved; downloads every wheel
	$(BIN)/python .ci/hashes.py $(PIP_ARGS)

# Nothing is asked: what is written follows from the files of constraints alone.
sbom: .venv/.installed-security ## a bill of materials (CycloneDX) of each file of constraints, in dist/sbom/
	mkdir -p dist/sbom
	for kind in cpu gpu-cu12 gpu-cu13; do \
		$(BIN)/cyclonedx-py requirements "constraints-$$kind.txt" --pyproject pyproject.toml --output-reproducible \
			--sv 1.6 --of JSON -o "dist/sbom/$$kind.cdx.json" || exit 1; \
	done

audit-pins: .venv/.installed-security ## compare the pins with known vulnerabilities; needs PyPI, so CI does not run it
	$(BIN)/pip-audit --strict --no-deps --disable-pip -r constraints-cpu.txt

clean: ## caches and build products; never runs/
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o -path ./runs -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean ## the same, .venv and .matrix; never runs/
	rm -rf .venv .matrix
