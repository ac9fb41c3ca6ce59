# PYTHON: the interpreter. VENV: folder of the virtual environment; empty builds into PYTHON itself
# and installs nothing. TORCH, TORCH_INDEX: which torch to install, and an index to take it from.
# SETTINGS: further arguments of run_table.py. BENCH: the folder where make bench leaves figures.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
MAX_JOBS ?= 2
SETTINGS ?=
BENCH ?= experiments/runs/bench

PY := $(if $(VENV),$(VENV)/bin/python,$(PYTHON))
INSTALLED := $(if $(VENV),$(VENV)/.installed)
BUILT := build/.built
# What the build and the environment depend on besides files; a changed value makes them anew.
BUILD_SETTINGS := $(PY) USE_CUDA=$(USE_CUDA) FORCE_CUDA=$(FORCE_CUDA) MARCH=$(PSPNET_MARCH)
INSTALL_SETTINGS := $(PYTHON) $(TORCH) $(TORCH_INDEX)
# Writes $(2) into the file $(1) unless it holds just that.
remember = mkdir -p $(dir $(1)) && { echo '$(2)' | cmp -s - $(1) || echo '$(2)' > $(1); }
SOURCES := setup.py $(wildcard csrc/*.h csrc/*.cpp csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu)

.PHONY: help build test test-cuda cuda-check table tables bench clean always
help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 20

build: $(BUILT)  ## set up the virtual environment and compile the extension

test: build  ## run the tests
	$(PY) -m pytest

test-cuda: build  ## run the kernels' tests on the GPU, also under compute-sanitizer
	PSPNET_REQUIRE_CUDA=1 $(PY) -m pytest -m cuda
	PSPNET_REQUIRE_CUDA=1 compute-sanitizer --error-exitcode 1 $(PY) -m pytest -m cuda \
	    tests/test_cuda_kernels.py

cuda-check: build  ## compile the CUDA kernels with nvcc, where there is one, and print what they take
	$(PY) tests/cuda_check.py

table: build  ## train and test the rows of Table 1 on the embedded scenes
	$(PY) experiments/run_table.py --table 1 --profile mini $(SETTINGS)

tables: build  ## train and test all rows of Tables 1 to 4 on the embedded scenes
	$(PY) experiments/run_table.py --table all --profile mini $(SETTINGS)

# Without these, glibc gives freed memory back in the middle of either side's runs.
bench: export MALLOC_TRIM_THRESHOLD_ = 4000000000
bench: export MALLOC_MMAP_THRESHOLD_ = 4000000000
bench: build  ## time the operators against torch's own, and whole networks against a plain port
	$(PY) experiments/bench_ops.py
	$(PY) experiments/bench_net.py --output $(BENCH)

clean:  ## remove what was built; the virtual environment and results stay
	rm -rf build pspnet_repro/_C*.so

$(BUILT): $(SOURCES) $(INSTALLED) build/.settings
	@echo "compiling csrc; the compiler's words go to build/log.txt"
	@MAX_JOBS=$(MAX_JOBS) $(PY) setup.py --quiet build_ext --inplace > build/log.txt 2>&1; \
	    code=$$?; grep '^setup.py: ' build/log.txt; \
	    if [ $$code -ne 0 ]; then cat build/log.txt; exit 1; fi
	@touch $@

build/.settings: always
	@$(call remember,$@,$(BUILD_SETTINGS))

# Torch goes first, on its own, so that nothing else draws in another build of it.
ifneq ($(VENV),)
$(INSTALLED): requirements.txt requirements-dev.txt $(VENV)/.settings
	@echo "installing $(TORCH) and the packages of requirements*.txt into $(VENV)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	@$(PY) -m pip install --quiet -r requirements.txt -r requirements-dev.txt
	@touch $@

$(VENV)/.settings: always
	@$(call remember,$@,$(INSTALL_SETTINGS))
endif
