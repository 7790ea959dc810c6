# Makefile: everything a developer runs. `make help` lists the targets.
#
# All tools live in .venv; their versions stand in pyproject.toml under [dependency-groups]. The C++
# library, its tests and the Python extension share one build tree, build/. Files named .venv/.<group>
# and build/.installed record what is done, so that a second call only does what is new.

VENV := .venv
BUILD := build
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check
# Where nothing else is given: the first interpreter that is new enough.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
JOBS ?= $(shell $(PY) -c 'import os; print(os.cpu_count() or 1)')

SOURCES := $(shell find CMakeLists.txt pyproject.toml cmake cpp cuda python -not -name __pycache__ \
	-not -name '*.pyc' 2>/dev/null)
CPP_FILES = $(shell find cpp cuda python/src tests/cpp -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh')
TIDY_FILES = $(wildcard cuda/src/*.cpp cpp/src/*.cpp cpp/src/*/*.cpp python/src/*.cpp python/src/*/*.cpp)
# How far the analyser follows a function; its own limit takes twice the time and is check-deep's.
TIDY_NODES = 75000

export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test gpu-test gpu-bundle check-gpu-bundle bench gpu-bench bench-kernels bench-steps check-kernels check-cuda-wheel
.PHONY: cpp-test python-test build lint format docs clean distclean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(VENV)/.demo $(BUILD)/.installed ## train on handwritten digits and draw the learning curves
	$(PY) examples/digits.py

test: export OPTIMISERS_CPP_BUILD := $(abspath $(BUILD))
test: export OPTIMISERS_CUDA_LIBRARY := $(abspath $(BUILD))/cuda/liboptimisers_cuda_emulation.so
test: cpp-test python-test ## build and run every test

build: $(BUILD)/.installed ## build the package and install it into .venv

cpp-test: $(BUILD)/.installed ## run the C++ tests
	@sh tools/ensure_gtest.sh
	$(BIN)/cmake -S . -B $(BUILD) -DOPTIMISERS_TESTS=ON -DOPTIMISERS_CUDA=AUTO -DOPTIMISERS_CUDA_ARCHITECTURES=90
	$(BIN)/cmake --build $(BUILD) --parallel $(JOBS)
	$(BIN)/ctest --test-dir $(BUILD) --output-on-failure --no-tests=error --parallel $(JOBS)
	@if test -f $(BUILD)/cuda/_cuda.so; then $(MAKE) --no-print-directory check-kernels; \
	else echo "make: nvcc was not found: the CUDA kernels were neither compiled nor checked"; fi

check-kernels: $(VENV)/.cuda-check ## check the CUDA kernels that were compiled: spills, 128-bit accesses, contraction
	$(PY) tools/check_kernels.py $(BUILD)/cuda/_cuda.so

WHEEL := $(BUILD)/wheel
check-cuda-wheel: $(VENV)/.build $(VENV)/.cuda-check ## the wheel with kernels for all GPUs: at most 8 MB, nothing spills anywhere
	rm -rf $(WHEEL)
	$(PIP) wheel . --no-build-isolation --no-deps -w $(WHEEL) -Cbuild-dir=$(BUILD)/wheel-build \
		-Ccmake.define.OPTIMISERS_CUDA=ON
	@ls -l $(WHEEL); test -z "$$(find $(WHEEL) -size +8M)" || { echo "make: the wheel is larger than 8 MB" >&2; exit 1; }
	$(PY) tools/check_kernels.py --arch all $(BUILD)/wheel-build/cuda/_cuda.so

python-test: $(VENV)/.test $(VENV)/.torch $(VENV)/.trainers $(BUILD)/.installed ## run the Python tests; ARGS="-k adam" chooses
	$(PY) -m pytest --durations=10 $(ARGS)

# The kernels are compiled for one architecture (GPU_ARCH). `.venv` has the CPU's torch, so VENV=... names an environment with
# one that knows CUDA, and with CuPy and JAX as far as they are to be tested. Where it has what the groups `build` and `gpu`
# of pyproject.toml ask for, nothing is downloaded.
GPU_ARCH ?= 90
gpu-test: export OPTIMISERS_CUDA_LIBRARY := $(abspath $(BUILD))/cuda/_cuda.so
gpu-test: $(VENV)/.gpu $(BUILD)/.installed ## run the tests that need a GPU, and say why they cannot
	$(BIN)/cmake -S . -B $(BUILD) -DOPTIMISERS_CUDA=ON -DOPTIMISERS_CUDA_ARCHITECTURES=$(GPU_ARCH)
	$(BIN)/cmake --build $(BUILD) --parallel $(JOBS) --target optimisers_cuda_module
	$(PY) tools/gpu_tests.py $(ARGS)

# Its wheel is for the environment's Python; VENV=.venv312 PYTHON=python3.12 names another. GPUS=90-real: only for those.
gpu-bundle: $(VENV)/.build ## the folder to carry to a machine with a GPU: wheel with kernels, tests, tools/gpu_first.sh
	rm -rf $(BUILD)/gpu-bundle
	$(PIP) wheel . --no-build-isolation --no-deps -w $(BUILD)/gpu-bundle -Cbuild-dir=$(BUILD)/bundle-{wheel_tag} \
		-Ccmake.define.OPTIMISERS_CUDA=ON -Ccmake.define.OPTIMISERS_CUDA_ARCHITECTURES=$(GPUS)
	tar cf - --exclude=results --exclude=__pycache__ tests/python tests/reference.py bench tools pyproject.toml | \
		tar xf - -C $(BUILD)/gpu-bundle
	@du -sh $(BUILD)/gpu-bundle

# On the emulation, in an environment with nothing but torch, NumPy and pytest.
check-gpu-bundle: gpu-bundle
	rm -rf $(BUILD)/bare
	$(PYTHON) -m venv $(BUILD)/bare
	$(BUILD)/bare/bin/pip install -q torch==2.13.0 numpy pytest
	$(BIN)/cmake -S . -B $(BUILD) -DOPTIMISERS_TESTS=ON
	$(BIN)/cmake --build $(BUILD) --parallel $(JOBS) --target optimisers_cuda_emulation
	OPTIMISERS_CUDA_LIBRARY=$(abspath $(BUILD))/cuda/liboptimisers_cuda_emulation.so PYTHON=$(abspath $(BUILD))/bare/bin/python \
		sh $(BUILD)/gpu-bundle/tools/gpu_first.sh $(BUILD)/gpu-results --dry-run

bench: $(VENV)/.bench $(VENV)/.torch $(BUILD)/.installed ## measure beside torch, optax, NumPy; ARGS="--quick"
	$(PY) bench/run.py $(ARGS)

gpu-bench: $(VENV)/.gpu $(BUILD)/.installed ## measure on a GPU; VENV=... names an environment whose torch knows CUDA
	$(BIN)/cmake -S . -B $(BUILD) -DOPTIMISERS_CUDA=ON -DOPTIMISERS_CUDA_ARCHITECTURES=$(GPU_ARCH)
	$(BIN)/cmake --build $(BUILD) --parallel $(JOBS) --target optimisers_cuda_module
	OPTIMISERS_CUDA_LIBRARY=$(abspath $(BUILD))/cuda/_cuda.so $(PY) bench/gpu/run.py $(ARGS)

bench-kernels: $(BUILD)/.installed ## time every kernel on every instruction set, as JSON; ARGS="--only Adam"
	@$(BIN)/cmake -S . -B $(BUILD) -DOPTIMISERS_BENCH=ON >&2
	@$(BIN)/cmake --build $(BUILD) --parallel $(JOBS) --target kernel_bench >&2
	@$(BUILD)/bench/micro/kernel_bench $(ARGS)

bench-steps: $(BUILD)/.installed ## time a C++ program's steps, compiled at -O0, -O2 and -O3: ten elements, chains of 10^5
	@$(BIN)/cmake -S . -B $(BUILD) -DOPTIMISERS_BENCH=ON >&2
	@$(BIN)/cmake --build $(BUILD) --parallel $(JOBS) --target step_bench_O0 step_bench_O2 step_bench_O3 >&2
	@for level in O0 O2 O3; do $(BUILD)/bench/micro/step_bench_$$level $(ARGS) || exit 1; done

lint: $(VENV)/.lint $(VENV)/.test $(BUILD)/.installed ## check formatting, style, spelling and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)
	$(BIN)/codespell
	$(PY) tools/check_includes.py
	$(BIN)/mypy

format: $(VENV)/.lint ## format Python and C++ files in place
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CPP_FILES)

docs: $(BUILD)/.installed ## write the generated parts of the documentation
	$(PY) tools/rules_table.py --write

clean: ## remove what was built
	rm -rf $(BUILD) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find python tests examples tools -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf $(VENV)

# The environment ----------------------------------------------------------------------------------

$(VENV)/.pip:
	@test -n "$(PYTHON)" || { echo "make: Python 3.10 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "make: $(PYTHON) -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PY) -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 1))' || \
		$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.build $(VENV)/.demo $(VENV)/.test $(VENV)/.lint $(VENV)/.bench $(VENV)/.gpu $(VENV)/.cuda-check: $(VENV)/.%: pyproject.toml $(VENV)/.pip
	$(PIP) install --group $*
	@touch $@

# The tests need torch to the exact version, but run without it and then say what they left out.
$(VENV)/.torch: pyproject.toml $(VENV)/.pip
	@echo "$(PIP) install --group torch"; \
	if $(PIP) install --group torch; then touch $@; \
	else echo "make: torch could not be installed here; tests that need it are skipped, each with its reason" >&2; fi

# Trainers that optimisers.torch is tried in; only beside the torch above, or they would fetch another.
$(VENV)/.trainers: pyproject.toml $(VENV)/.torch
	@if test ! -e $(VENV)/.torch; then echo "make: without torch no trainers: tests that need them are skipped" >&2; \
	elif $(PIP) install --group trainers; then touch $@; \
	else echo "make: trainers could not be installed here; tests that need them are skipped, each with its reason" >&2; fi

# The package: no isolation and a fixed build tree, so that ninja compiles only what has changed.
$(BUILD)/.installed: $(VENV)/.build $(SOURCES)
	$(PIP) install --verbose --no-build-isolation --no-deps --force-reinstall -Cbuild-dir=$(BUILD) \
		-Ccmake.define.OPTIMISERS_CUDA=OFF .
	@touch $@

# C++ -----------------------------------------------------------------------------------------------

.PHONY: demo-cpp check tidy clang sanitizers check-deep

demo-cpp: $(VENV)/.build $(VENV)/.demo ## train on handwritten digits in C++ alone
	$(BIN)/cmake -S examples/cpp -B $(BUILD)/demo-cpp
	$(BIN)/cmake --build $(BUILD)/demo-cpp --parallel $(JOBS)
	$(PY) examples/cpp/export_digits.py $(BUILD)/demo-cpp/digits.csv
	$(BUILD)/demo-cpp/digits $(BUILD)/demo-cpp/digits.csv

check: tidy clang sanitizers ## static analysis, clang, sanitizers and fuzzing; with test and lint all that CI runs

clang: $(VENV)/.build ## library and C++ tests built by clang++, whatever flags the program around them has
	@sh tools/ensure_gtest.sh
	compiler=$$(sh tools/ensure_clang.sh) && COMPILERS=$$compiler STANDARDS=20 JOBS=$(JOBS) CMAKE=$(BIN)/cmake \
		sh tools/check_toolchains.sh $(BUILD)/toolchains

# As clang sees the code: its warnings count too.
tidy: $(VENV)/.lint $(VENV)/.build ## static analysis of the library and the extension by clang-tidy
	@$(BIN)/cmake -S . -B $(BUILD)/tidy -DCMAKE_BUILD_TYPE=Debug -DOPTIMISERS_TESTS=ON -DOPTIMISERS_CUDA=OFF -DOPTIMISERS_PYTHON=ON \
		-DPython_EXECUTABLE=$(CURDIR)/$(PY) >/dev/null
	@$(PY) -c 'import json, sys; commands = {c["file"]: c for c in json.load(open(sys.argv[1]))}; \
		json.dump([*commands.values()], open(sys.argv[1], "w"))' $(BUILD)/tidy/compile_commands.json  # each file once
	@echo "clang-tidy: $(words $(TIDY_FILES)) files"; printf '%s\n' $(TIDY_FILES) | xargs -n 1 -P $(JOBS) $(BIN)/clang-tidy -p $(BUILD)/tidy --quiet \
		--extra-arg=-Wconversion --extra-arg=-Wshadow \
		$(addprefix --extra-arg=,-Xclang -analyzer-config -Xclang max-nodes=$(TIDY_NODES))

SANITIZE = JOBS=$(JOBS) CMAKE=$(BIN)/cmake PYTHON=$(PY) sh tools/check_sanitizers.sh $(BUILD)/sanitizers
# The Python tests that reach into memory in every way; check-deep runs all.
REACHING = $(filter-out %/test_jax.py %/test_jax_order.py %/test_depth.py,$(wildcard tests/python/trees/*.py tests/python/arrays/*.py)) $(addprefix tests/python/,state/test_states.py \
	state/test_faults.py rules/test_rules_by_part.py rules/test_user_rules.py rules/test_user_rule_faults.py \
	rules/test_markers.py rules/test_rule_classes.py files/test_format.py) $(filter-out %/test_device_runner.py,$(wildcard tests/python/device/test_device*.py))

sanitizers: $(VENV)/.build $(VENV)/.test $(VENV)/.torch ## C++ and Python tests and random calls under sanitizers
	@sh tools/ensure_gtest.sh
	FUZZ_SECONDS=10 PYTHON_TESTS="$(REACHING)" $(SANITIZE)

check-deep: $(VENV)/.build $(VENV)/.test $(VENV)/.torch $(VENV)/.trainers $(BUILD)/.installed ## the slow gates: compilers, all under sanitizers, consumers
	$(PY) -c "import accelerate, lightning, transformers"  # what python-test may leave out fails here
	$(PY) -m pytest -q -rs tests/python/torch_optim/test_trainers.py
	@sh tools/ensure_gtest.sh
	JOBS=$(JOBS) CMAKE=$(BIN)/cmake sh tools/check_toolchains.sh $(BUILD)/toolchains
	$(MAKE) --no-print-directory tidy TIDY_NODES=225000
	@sh tools/apt_install.sh libeigen3-dev || true
	KERNEL_THREADS=8 OPTIMISERS_FUZZ_FILES=10000 FUZZ_SECONDS=60 PYTHON_TESTS="$(filter-out tests/python/project/%,$(wildcard tests/python/*/test_*.py))" $(SANITIZE)
	$(BIN)/cmake -S . -B $(BUILD)/consumers -DCMAKE_BUILD_TYPE=Release -DOPTIMISERS_CUDA=OFF \
		-DOPTIMISERS_TESTS=ON -DOPTIMISERS_CONSUMER_TESTS=ON
	$(BIN)/cmake --build $(BUILD)/consumers --parallel $(JOBS)
	$(BIN)/ctest --test-dir $(BUILD)/consumers --output-on-failure --no-tests=error -L consumer
