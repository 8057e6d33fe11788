# What people and CI call. `make serve` and `make test` do all the set-up by themselves.
#
# The set-up is one stamp: it is redone when the build files, the native sources or the dependencies
# change, and then only what changed is compiled (CMake keeps its state in build/dev).

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

PYTHON   ?= python3
VENV     := .venv
BIN      := $(VENV)/bin
BUILD    := build/dev
HOST     ?= 127.0.0.1
PORT     ?= 8080
SETTINGS := $(foreach define,$(CMAKE_DEFINES),-Ccmake.define.$(define))

NATIVE := CMakeLists.txt $(wildcard third_party/*) avllm/llama/CMakeLists.txt \
  $(wildcard avllm/llama/*.py[xd] avllm/llama/native/* avllm/llama/kernels/*)
PACKAGE := $(shell find avllm server ui/__init__.py -name '*.py' 2>/dev/null)
PAGE := $(shell find ui/src ui/public ui/scripts -type f 2>/dev/null) \
  $(wildcard ui/*.html ui/*.json ui/*.js ui/*.ts)

.DEFAULT_GOAL := help
.PHONY: help serve build test lint format bench peers wheel sdist clean tools

help: ## Show what there is.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: build ## Build if need be, then serve the default model on http://127.0.0.1:8080.
	$(BIN)/avllm serve --host $(HOST) --port $(PORT) $(ARGS)

build: $(VENV)/.built ## Make .venv with avllm in it (editable); CMAKE_DEFINES="GGML_CUDA=ON" adds options.

test: build $(VENV)/.test ## Run the tests.
	$(BIN)/pytest $(ARGS)
	npm --prefix ui run --silent test

lint: build $(VENV)/.test $(VENV)/.lint ## Check style, types and the order of dependencies.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint avllm/llama/*.pyx avllm/llama/*.pxd
	$(BIN)/mypy
	npm --prefix ui run --silent check

format: $(VENV)/.lint ## Rewrite the Python sources in the project's style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: build $(VENV)/.test peers ## Run the benchmarks beside llama.cpp's own tools.
	$(BIN)/pytest benchmarks $(ARGS)

peers: build ## Build llama-batched-bench and llama-server, untouched, from the same llama.cpp.
	cmake -S . -B build/peers -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DPython_EXECUTABLE=$(abspath $(BIN)/python) -DAVLLM_BUILD_PEERS=ON -DAVLLM_YIELDING_PAUSE=OFF \
	  > build/peers.log
	cmake --build build/peers --target llama-batched-bench llama-server llama-quantize llama-perplexity

wheel: ui/dist/.stamp tools ## Build a wheel into dist/.
	$(PYTHON) -m venv $(VENV)-build && $(VENV)-build/bin/pip install --quiet --upgrade pip build
	$(VENV)-build/bin/python -m build --wheel $(SETTINGS)

sdist: ui/dist/.stamp tools ## Build a source distribution that needs no network, into dist/.
	$(PYTHON) third_party/fetch.py --bundle
	$(PYTHON) -m venv $(VENV)-build && $(VENV)-build/bin/pip install --quiet --upgrade pip build
	$(VENV)-build/bin/python -m build --sdist
	rm -rf third_party/llama.cpp

clean: ## Remove everything that was built; caches outside the checkout stay.
	rm -rf $(VENV) $(VENV)-build build dist ui/dist ui/node_modules

tools:
	@sh scripts/check_tools.sh $(PYTHON)

$(VENV)/.tools: | tools
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet 'scikit-build-core>=0.11' 'cython>=3.1,<3.4' ninja
	@touch $@

ui/dist/.stamp: $(PAGE) | tools
	npm --prefix ui ci --ignore-scripts --no-audit --no-fund --loglevel=error
	npm --prefix ui run --silent build

# Other options than last time mean another build.
$(VENV)/.defines: $(VENV)/.tools FORCE
	@echo '$(CMAKE_DEFINES)' | cmp --silent - $@ || echo '$(CMAKE_DEFINES)' > $@

FORCE:

$(VENV)/.built: $(VENV)/.defines $(VENV)/.tools pyproject.toml $(NATIVE) $(PACKAGE) ui/dist/.stamp
	@echo "avllm: compiling (llama.cpp takes minutes the first time)"
	$(BIN)/pip install --no-build-isolation --verbose -Cbuild-dir=$(BUILD) $(SETTINGS) \
	  --editable . 2>&1 | sh scripts/show_progress.sh
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.tools
	$(BIN)/pip install --quiet --group test
	@touch $@

$(VENV)/.lint: pyproject.toml $(VENV)/.tools
	$(BIN)/pip install --quiet --group lint
	@touch $@
