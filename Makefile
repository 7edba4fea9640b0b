# One target a job; continuous integration calls the same ones. `make` lists them.
#
# Needed: CPython 3.11 or later with its headers, cargo, a C compiler. Everything else goes into a
# virtual environment inside the checkout. `make test PYTHON=python3.14` takes another interpreter.
#
# Invariants:
# * .venv belongs to the default interpreter, .venv-VERSION to one that was named; each has a build
#   directory of its own (target/pyVERSION), so changing interpreters rebuilds nothing.
# * $(VENV)/.built is newer than every source of the extension; while it is, cargo is not called.

PYTHON ?= python3
CARGO ?= cargo
NIGHTLY ?= nightly
SECONDS ?= 60
SEED ?= 0
CASES ?= 20000
ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# "3.13", "3.14t"; nothing where it is not a CPython of ours. -I -S: no site module, no PYTHON* variable.
identify := import sys, sysconfig; \
  assert sys.version_info >= (3, 11) and sys.implementation.name == "cpython"; \
  print("%d.%d%s" % (*sys.version_info[:2], "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))
TAG := $(shell $(PYTHON) -I -S -c '$(identify)' 2>/dev/null)

VENV := $(if $(filter file,$(origin PYTHON)),.venv,.venv-$(TAG))
VPYTHON := $(VENV)/bin/python
TARGET_DIR ?= target
export TARGET_DIR NIGHTLY
BUILD := $(abspath $(TARGET_DIR))/py$(TAG)
export PYO3_PYTHON = $(CURDIR)/$(VPYTHON)

SOURCES := Cargo.toml Cargo.lock $(shell find crates -type f \
  \( -name '*.rs' -o -name '*.c' -o -name '*.h' -o -name '*.S' -o -name Cargo.toml \))

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# ---- the environment and the extension ---------------------------------------------------------

# The marker names the version, so a python3 that has become another one makes a new environment.
$(VENV)/.python-$(TAG): pyproject.toml
	@[ -n "$(TAG)" ] || { echo "$(PYTHON) is not CPython 3.11 or later; say PYTHON=/path/to/python3" >&2; exit 1; }
	@.ci/environment.sh $(PYTHON) $(VENV) build test wheels?
	@touch $@

$(VENV)/.lint: $(VENV)/.python-$(TAG)
	@.ci/environment.sh $(PYTHON) $(VENV) lint
	@touch $@

$(VENV)/.built: $(VENV)/.python-$(TAG) $(SOURCES)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) CARGO_TARGET_DIR=$(BUILD) $(VENV)/bin/maturin develop --release --quiet --group build
	@touch $@

.PHONY: build demo test
build: $(VENV)/.built ## compile the extension and install it, editable, into the environment

demo: build ## run the example programs, one after the other
	$(VPYTHON) examples/demo.py

test: rust-test shim-test python-test ## the tests of the core, of the C shim, of the package

# ---- tests -------------------------------------------------------------------------------------

.PHONY: rust-test shim-test python-test browser-test servers cpython-tests gevent-tests matrix torture torture-net
rust-test: $(VENV)/.python-$(TAG) ## the tests of the core, and of what Rust there is beside it
	$(CARGO) test --workspace --target-dir $(TARGET_DIR) $(ARGS)

shim-test: $(VENV)/.python-$(TAG) ## the C shim by itself, against PYTHON
	$(VPYTHON) crates/offset-python/shim/tests/run.py

python-test: build ## the tests of the package (ARGS= goes to pytest)
	@.ci/servers.sh
	$(VPYTHON) -m pytest -q $(ARGS)

browser-test: build ## the live page in a headless Chromium (CHROMIUM= names one); what was seen goes into target/screenshots
	OFFSET_BROWSER_TESTS=1 OFFSET_SCREENSHOTS=$(abspath $(TARGET_DIR))/screenshots \
	  $(VPYTHON) -m pytest -q tests/test_debug_page.py $(ARGS)

servers: ## the servers that the tests of libraries talk to, unpacked into .servers where the system has none
	@.ci/servers.sh --again

cpython-tests: build ## the tests of the interpreter over the proxies (ARGS=queue: a group, a module or a test)
	$(VPYTHON) tests/cpython/run.py $(ARGS)

gevent-tests: build $(VENV)-gevent/.installed ## the same under gevent, too; the counts go into tests/cpython/counts.md
	$(VPYTHON) tests/cpython/run.py --gevent $(VENV)-gevent/bin/python --counts $(ARGS)

$(VENV)-gevent/.installed:
	$(PYTHON) -m venv --clear $(VENV)-gevent
	$(VENV)-gevent/bin/python -m pip install --quiet --disable-pip-version-check gevent
	@touch $@

matrix: ## the tests of the package on every CPython found
	.ci/matrix.sh

torture: build ## everything at once for SECONDS=60, from SEED=0
	$(VPYTHON) tests/torture.py $(SECONDS) $(SEED)

torture-net: build ## faults of networks at random for SECONDS=60, from SEED=0
	$(VPYTHON) tests/torture_net.py $(SECONDS) $(SEED)

# ---- lints -------------------------------------------------------------------------------------

.PHONY: lint rust-lint python-lint typecheck pyright aarch64 macos fmt
lint: rust-lint python-lint typecheck ## rustfmt, clippy, ruff and mypy; changes nothing

rust-lint: $(VENV)/.python-$(TAG)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --target-dir $(TARGET_DIR) -- -D warnings

python-lint: $(VENV)/.lint
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

typecheck: $(VENV)/.lint ## mypy on the package, its stubs and a typing sample
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy tests/typing_sample.py

pyright: build ## pyright on the typing sample (needs the npm registry)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --group pyright
	$(VENV)/bin/pyright

aarch64: $(VENV)/.python-$(TAG) ## build for aarch64 Linux, and run the core's tests there where qemu is
	.ci/aarch64.sh $(VPYTHON) $(ARGS)

macos: $(VENV)/.python-$(TAG) ## check that it compiles for macOS (needs rustup's target; ARGS= goes to cargo)
	.ci/macos.sh $(VPYTHON) $(ARGS)

fmt: $(VENV)/.lint ## format everything
	$(CARGO) fmt --all
	$(VENV)/bin/ruff check --fix --select I
	$(VENV)/bin/ruff format

# ---- the core under instruments ----------------------------------------------------------------

.PHONY: loom miri asan tsan valgrind fuzz
loom: ## the interleavings of the core's models (LOOM_MAX_PREEMPTIONS=3 for more of them)
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(TARGET_DIR)/loom \
	  $(CARGO) test --profile model --package offset-runtime --lib loom:: $(ARGS)

miri: ## the core under Miri (needs a nightly with the component)
	.ci/instrument.sh miri $(ARGS)

asan: ## the core under the address sanitizer
	.ci/instrument.sh address $(ARGS)

tsan: ## the core under the thread sanitizer
	.ci/instrument.sh thread $(ARGS)

valgrind: ## the core under valgrind's memcheck
	.ci/instrument.sh valgrind $(ARGS)

fuzz: build ## random channel programs against a naive model, CASES=20000 of them, in the core and in Python
	OFFSET_MODEL_CASES=$(CASES) $(CARGO) test --release --package offset-runtime --target-dir $(TARGET_DIR) \
	  --test one_processor --test four_processors model
	OFFSET_MODEL_EXAMPLES=$(CASES) $(VPYTHON) -m pytest -q --timeout 0 tests/test_model.py

# ---- the site ----------------------------------------------------------------------------------

.PHONY: docs docs-test
docs: $(VENV)/.site ## the site of the documentation, in target/site; warnings are errors, and so is a link to nowhere
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict --site-dir $(abspath $(TARGET_DIR))/site
	$(VENV)/bin/python docs/site/check.py $(TARGET_DIR)/site

docs-test: docs build ## the site in a headless Chromium; what was seen goes into target/screenshots
	OFFSET_SITE=$(abspath $(TARGET_DIR))/site OFFSET_SCREENSHOTS=$(abspath $(TARGET_DIR))/screenshots \
	  $(VPYTHON) -m pytest -q tests/test_site.py $(ARGS)

$(VENV)/.site: $(VENV)/.python-$(TAG)
	@.ci/environment.sh $(PYTHON) $(VENV) site
	@touch $@

# ---- figures and packages ----------------------------------------------------------------------

.PHONY: bench wheel sdist wheel-test wheels-test sdist-test clean tag
bench: build ## offset beside Go, gevent, asyncio and threads: a table and a plot
	$(VPYTHON) benchmarks/run.py $(ARGS)

wheel: $(VENV)/.python-$(TAG) ## a wheel for PYTHON, in dist/
	CARGO_TARGET_DIR=$(BUILD) $(VENV)/bin/maturin build --release --out dist --interpreter $(VPYTHON)

sdist: $(VENV)/.python-$(TAG) ## the source distribution, in dist/
	$(VENV)/bin/maturin sdist --out dist

wheel-test: wheel ## install the wheel for PYTHON into a clean environment, and run programs there
	.ci/try-package.sh $(PYTHON) "$$(ls -t dist/*-cp$(subst .,,$(subst t,,$(TAG)))-cp$(subst .,,$(TAG))-*.whl | head -n 1)"

wheels-test: ## the same for every CPython found
	.ci/wheels.sh

sdist-test: sdist ## the same with the source distribution, which is compiled there
	.ci/try-package.sh $(PYTHON) "$$(ls -t dist/*.tar.gz | head -n 1)"

clean: ## remove what was built, environments included
	rm -rf $(TARGET_DIR) dist .venv .venv-* .servers .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f python/offset/_runtime.*.so
	find python tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

tag:
	@echo $(TAG)
