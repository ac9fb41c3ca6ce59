# PYTHON: the interpreter. VENV: folder of the virtual environment; empty builds into PYTHON itself
# and installs nothing. TORCH, TORCH_INDEX: which torch to install, and an index to take it from.
# PSPNET_MARCH: the processor to compile for, as the compiler names it (default: this one).
# SETTINGS: further arguments of run_table.py, or of make gpu. BENCH: the folder where make bench leaves figures.
# TEST_JOBS: how many processes run the tests.
# CUDA_TORCH, CUDA_VENV: the torch that make cuda-link-check builds with, and where it lies.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
MAX_JOBS ?= 2
PSPNET_MARCH ?= native
SETTINGS ?=
SECONDS_LONG ?= 600
TEST_JOBS ?= 2
BENCH ?= experiments/runs/bench
CUDA_TORCH ?= torch==2.14.1
CUDA_VENV ?= build/cuda-venv
OPERATOR_TESTS := ops/test_functions ops/test_golden ops/test_checks ops/test_batch_norm \
    ops/test_scores exact/test_linear model/test_winograd

PY := $(if $(VENV),$(VENV)/bin/python,$(PYTHON))
INSTALLED := $(if $(VENV),$(VENV)/.installed)
BUILT := build/.built
SCRIPT := $(if $(VENV),$(VENV)/bin/pspnet)
# What the build and the environment depend on besides files; a changed value makes them anew.
BUILD_SETTINGS := $(PY) USE_CUDA=$(USE_CUDA) FORCE_CUDA=$(FORCE_CUDA) MARCH=$(PSPNET_MARCH) \
    CUDA_HOME=$(CUDA_HOME) CUDA_PATH=$(CUDA_PATH) ARCHITECTURES=$(TORCH_CUDA_ARCH_LIST)
INSTALL_SETTINGS := $(PYTHON) $(TORCH) $(TORCH_INDEX)
# Writes $(2) into the file $(1) unless it holds just that.
remember = mkdir -p $(dir $(1)) && { echo '$(2)' | cmp -s - $(1) || echo '$(2)' > $(1); }
# Runs $(1) setup.py $(3) and shows what it decided about CUDA, or its words $(2) where it fails.
compile = if MAX_JOBS=$(MAX_JOBS) PSPNET_MARCH=$(PSPNET_MARCH) $(1) setup.py --quiet $(3) > $(2) 2>&1; \
    then grep '^setup.py: ' $(2); else cat $(2); exit 1; fi
SOURCES := setup.py $(wildcard csrc/*.h csrc/*.cpp csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu)

.PHONY: help build test lint attack test-cuda cuda-check cuda-link-check gpu demo table tables bench clean always
help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 24

build: $(BUILT) $(SCRIPT)  ## set up the virtual environment and compile the extension

test: build  ## run the tests
	$(PY) -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

lint: build  ## look for mistakes in the Python code with ruff
	$(PY) -m ruff check .

attack: build  ## kill trainings, fill disks, damage files for 10 minutes; SECONDS_LONG changes that
	PYTHONPATH=tests $(PY) -m programs.attack --seconds $(SECONDS_LONG)

test-cuda: build  ## run the kernels' tests on the GPU, also under compute-sanitizer
	PSPNET_REQUIRE_CUDA=1 $(PY) -m pytest -m cuda
	PSPNET_REQUIRE_CUDA=1 compute-sanitizer --error-exitcode 1 $(PY) -m pytest -m cuda \
	    tests/ops/test_cuda_kernels.py tests/ops/test_cuda_kernels_training.py

cuda-check: build  ## compile the CUDA kernels with nvcc, and print their registers and memory
	PYTHONPATH=tests $(PY) -m programs.cuda_check

cuda-link-check: python = $(abspath $(CUDA_VENV)/bin/python)
cuda-link-check:  ## compile, link, import and test with a torch for CUDA in build/cuda, without a GPU
	@$(MAKE) --no-print-directory $(CUDA_VENV)/.installed VENV=$(CUDA_VENV) TORCH='$(CUDA_TORCH)'
	@rm -rf build/cuda/lib && mkdir -p build/cuda
	@echo "compiling csrc for CUDA; the compiler's words go to build/cuda/log.txt"
	@export FORCE_CUDA=1; $(call compile,$(python),build/cuda/log.txt,egg_info \
	    --egg-base build/cuda build --build-lib build/cuda/lib --build-temp build/cuda/temp)
	cd build/cuda && PYTHONPATH=lib:../../tests $(python) -m programs.cuda_link_check
	cd build/cuda && PYTHONPATH=lib $(python) -m pytest $(OPERATOR_TESTS:%=../../tests/%.py)

gpu:  ## build, test and measure everything on a GPU within 9 minutes, into experiments/results/gpu-NAME
	$(PY) -m experiments.bench.gpu $(SETTINGS)

demo: build  ## train two small networks on drawn scenes and write a page of what they see
	$(PY) -m pspnet_repro demo

table: build  ## train and test the rows of Table 1 on drawn scenes
	$(PY) experiments/run_table.py --table 1 --profile mini $(SETTINGS)

tables: build  ## train and test all rows of Tables 1 to 4 on drawn scenes
	$(PY) experiments/run_table.py --table all --profile mini $(SETTINGS)

bench: build  ## time operators and whole networks against torch's, and the loader
	$(PY) -m experiments.bench.ops
	$(PY) -m experiments.bench.data
	$(PY) -m experiments.bench.networks --output $(BENCH)

clean:  ## remove what was built, build/cuda-venv too; .venv and results stay
	rm -rf build dist pspnet_repro/_C*.so

$(BUILT): $(SOURCES) $(INSTALLED) build/.settings
	@echo "compiling csrc; the compiler's words go to build/log.txt"
	@$(call compile,$(PY),build/log.txt,build_ext --inplace)
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

# This checkout's packages for the environment's Python, wherever it is started, and the command.
$(SCRIPT): Makefile $(INSTALLED)
	@$(PY) -c 'import pathlib, sys, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), \
	    "pspnet_repro.pth").write_text(sys.argv[1] + "\n")' '$(CURDIR)'
	@printf '%s\n' '#!$(abspath $(PY))' 'import sys' \
	    'from pspnet_repro.__main__ import main' 'sys.exit(main())' > $@
	@chmod +x $@

$(VENV)/.settings: always
	@$(call remember,$@,$(INSTALL_SETTINGS))
endif
