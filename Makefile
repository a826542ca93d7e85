# `make demo` shows the whole chain, `make test` checks it. Both make the virtual environment .venv
# first, or bring it up to date; nothing is installed outside of this checkout.
#
#   make demo [INPUT=DIR|VIDEO|BAG|camera:0] [INPUT_TOPIC=/left/image_raw] [CALIBRATION=FILE]
#             [RATE=HZ] [FRAMES=N]                                     result in out/demo
#   make test [ARGS="test/unit/kv_cache/test_kv_cache.py -x"]                     lint, then pytest with ARGS
#   make env  [PYTHON=python3.12] [TORCH_INDEX=URL | TORCH=REQUIREMENT | TORCH=none]
#   make train-small [ARGS="--steps 20000 --rooms 4000"]            train the shipped checkpoint anew
#   make lint, make clean                                           clean: .venv and out as well

PYTHON ?= python3
VENV_PYTHON := $(CURDIR)/.venv/bin/python

# A ROS 2 that was sourced in this shell would mix its modules and libraries with those of .venv.
empty :=
ros_prefixes := $(subst :, ,$(AMENT_PREFIX_PATH):$(COLCON_PREFIX_PATH))
libraries := $(filter-out $(addsuffix /%,$(ros_prefixes)),$(subst :, ,$(LD_LIBRARY_PATH)))
ifdef LD_LIBRARY_PATH
export LD_LIBRARY_PATH := $(subst $(empty) $(empty),:,$(strip $(libraries)))
endif
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE ROS_DISTRO ROS_LOCALHOST_ONLY ROS_STATIC_PEERS
unexport ROS_DISCOVERY_SERVER FASTDDS_BUILTIN_TRANSPORTS FASTRTPS_DEFAULT_PROFILES_FILE

# Fast DDS as it comes loses most of the images (see the file); and processes of this machine talk
# to each other only, in a domain of their own (1 to 100: their ports are never taken by others).
export FASTDDS_DEFAULT_PROFILES_FILE := $(CURDIR)/config/fastdds.xml
export RMW_IMPLEMENTATION := rmw_fastrtps_cpp
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST
ifndef ROS_DOMAIN_ID
export ROS_DOMAIN_ID := $(shell echo $$(($$$$ % 100 + 1)))
endif

# One word for the shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'

.PHONY: demo test train-small lint env clean

demo: env
	@$(VENV_PYTHON) -m xsvggt_ros.cli.demo --out out/demo \
		$(if $(INPUT),--input $(call quoted,$(INPUT))) \
		$(if $(INPUT_TOPIC),--input-topic $(call quoted,$(INPUT_TOPIC))) \
		$(if $(CALIBRATION),--calibration $(call quoted,$(CALIBRATION))) \
		$(if $(RATE),--rate $(call quoted,$(RATE))) $(if $(FRAMES),--frames $(call quoted,$(FRAMES)))

# The tests of the kernels want triton: 200 MB more to download, 0.7 GB more on disk.
test: BOOTSTRAP := --triton
test: lint
	$(VENV_PYTHON) -m pytest $(ARGS)

# Stops at any time with Ctrl-C and goes on from out/training/state.pt.
train-small: env
	$(VENV_PYTHON) -m training $(ARGS)

lint: env
	$(VENV_PYTHON) -m ruff check --quiet .
	$(CURDIR)/.venv/bin/lint-imports --cache-dir .venv/import_linter
	$(VENV_PYTHON) -m mypy --cache-dir .venv/mypy
	$(VENV_PYTHON) -m mkdocs build --quiet --strict

env:
	@command -v $(call quoted,$(PYTHON)) >/dev/null || { echo "There is no $(PYTHON) here. On Debian" \
		"and Ubuntu: sudo apt-get install python3 python3-venv python3-dev" >&2; exit 1; }
	@$(call quoted,$(PYTHON)) ci/bootstrap.py --torch $(call quoted,$(TORCH)) \
		--torch-index $(call quoted,$(TORCH_INDEX)) $(BOOTSTRAP)

clean:
	rm -rf .venv out build install log *.egg-info
