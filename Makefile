# make demo | train | test | check | setup | clean. Each does its own set-up on a fresh machine; a second run starts at once.
# Two steps of set-up: what the commands need (BASE), then what development, tests and ROS 2 need as well (READY).

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BASE := $(VENV)/.base
READY := $(VENV)/.ready
APT := libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libosmesa6 libusb-1.0-0
JOBS ?= 2
HAND ?= allegro
RUNS ?= runs/$(HAND)
CODE := assets configs dexgrasp docs examples perception policies ros2_ws/src sim tests .ci/wheel_user.py

.PHONY: help setup system demo train test test-regression test-ros build-ros test-slow test-docs test-wheel test-mutants soak check docs format clean

help:
	@echo "make demo    set up, let an Allegro hand pick up the shipped objects, write a video and a report"
	@echo "make train   set up, train a teacher, a student of it, refine that in $(JOBS) processes (HAND=$(HAND)), export it; goes on where it stopped"
	@echo "make test    set up, run the tests (JOBS=$(JOBS) processes; ARGS='-k name' chooses)"
	@echo "make test-regression   set up, let every shipped policy play the shipped objects, compare with golden files"
	@echo "make test-ros   set up, run the ROS tests that are slow or need built messages; make build-ros builds the packages with colcon"
	@echo "make test-slow   set up, run the slow tests of learning, resuming, cameras, devices and the viewer in a browser"
	@echo "make test-docs   set up, run every example and every command that README and documentation show, at small size"
	@echo "make test-wheel   build sdist and wheel, install the wheel into an empty environment, use it as a user would"
	@echo "make test-mutants   set up, change the code in one place at a time, report what the tests do not notice (ARGS='sim/task/rewards.py sample=40')"
	@echo "make soak    set up, evaluate, train and view for two hours at once, fail where memory, handles or threads grow (ARGS='minutes=30')"
	@echo "make docs    set up, build the documentation in build/site; a broken link or an undocumented public name is an error"
	@echo "make check   set up, lint, formatting, types, import rules"
	@echo "make setup   all of the set-up: virtual environment, packages for commands, development and ROS 2, system libraries for rendering"
	@echo "make format  let ruff format and repair"
	@echo "make clean   remove the virtual environment and caches"

setup: $(READY)
	@echo "ready: $$($(VENV)/bin/dexgrasp --version); next: source $(VENV)/bin/activate && dexgrasp demo"

PIP_INSTALL := $(VENV)/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt
DOWNLOADS := sed -En -u '/^ *Downloading/p; s/^(Installing collected packages).*/\1 (a minute)/p'

$(BASE): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "dexgrasp needs Python 3.11 or newer; '$(PYTHON)' is not installed (try: make PYTHON=python3.12 ...)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; sys.exit(0 if sys.version_info >= (3, 11) else "dexgrasp needs Python 3.11 or newer; $(PYTHON) is " + v + " (try: make PYTHON=python3.12 ...)")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) comes without ensurepip: install the package python3-venv (apt-get install python3-venv), then run make again" >&2; exit 1; }
	@$(MAKE) --no-print-directory system
	@test -x $(VENV)/bin/python && $(VENV)/bin/python -m pip --version >/dev/null 2>&1 || { echo "creating $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing Python packages (a minute or two the first time)"
	@$(PIP_INSTALL) --editable '.[export,viz]' | $(DOWNLOADS)
	@touch $(BASE)
	@echo "ready: $$($(VENV)/bin/dexgrasp --version)"

$(READY): $(BASE) ros2_ws/src/dexgrasp_ros/setup.py
	@echo "installing Python packages for development, tests and ROS 2 (some minutes the first time)"
	@$(PIP_INSTALL) --editable '.[dev,ros]' --editable ros2_ws/src/dexgrasp_ros | $(DOWNLOADS)
	@touch $(READY)

# Libraries for headless rendering and the camera. Never fatal: without them videos are left out, nothing else.
system:
	@command -v dpkg >/dev/null || exit 0; \
	missing=(); for package in $(APT); do dpkg -s $$package 2>/dev/null | grep -q '^Status: install ok installed' || missing+=($$package); done; \
	if [ $${#missing[@]} -eq 0 ]; then exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ]; then echo "for videos and the camera, ask an administrator for: apt-get install $${missing[*]}"; exit 0; fi; \
	echo "installing system packages: $${missing[*]}"; \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; } \
	|| echo "could not install $${missing[*]}: videos are left out until they are there"

demo: $(BASE)
	@$(VENV)/bin/dexgrasp demo $(ARGS)

LEARN = OMP_NUM_THREADS=1 $(VENV)/bin/torchrun --nproc-per-node=$(JOBS) -m dexgrasp train hand=$(HAND) num_envs=$$((256 / $(JOBS)))

train: $(BASE)
	$(LEARN) recipe=teacher out=$(RUNS)/teacher $(ARGS)
	$(LEARN) recipe=student out=$(RUNS)/student teacher=$(RUNS)/teacher $(ARGS)
	$(LEARN) recipe=refinement out=$(RUNS)/refinement init_checkpoint=$(RUNS)/student/last.zip teacher=$(RUNS)/teacher $(ARGS)
	$(VENV)/bin/dexgrasp export policy=$(RUNS)/refinement/last.zip out=$(RUNS)/bundle

# a test that hangs, in native code too, is ended after four minutes, with the stack of each of its threads
LIMIT := -o faulthandler_timeout=240 -o faulthandler_exit_on_timeout=true

test: $(READY)
	@$(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal $(LIMIT) $(ARGS)

test-regression: $(READY)
	@$(VENV)/bin/python -m pytest -m regression $(ARGS)

test-ros: build-ros
	@set +u; source ros2_ws/install/setup.bash; $(VENV)/bin/python -m pytest -m 'ros and (slow or messages)' $(ARGS)

# those that end within two minutes; the others take hours: pytest -m slow
SLOW := tests/policies/test_ppo.py tests/policies/test_train.py tests/policies/test_engine_parity.py tests/policies/test_checkpoint.py \
	tests/policies/test_output.py tests/policies/test_bench_cameras.py tests/sim/test_task_on_device.py tests/test_api.py \
	tests/ros/test_object_observer.py \
	tests/policies/test_viewer_policy.py::test_the_browser_shows_a_grasp_with_forces_and_plots_and_takes_requests \
	tests/perception/test_calibration_coverage.py::test_thirty_sets_with_an_error_of_every_kind_are_covered_or_refused

test-slow: $(READY)
	@$(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal -m slow $(SLOW) $(ARGS)

test-docs: $(READY)
	@$(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal -m slow tests/docs $(ARGS)

test-mutants: $(READY)
	@$(VENV)/bin/python tests/mutation/run.py $(ARGS)

soak: $(READY)
	@$(VENV)/bin/python tests/soak/run.py $(ARGS)

build-ros: $(READY)
	@ros2_ws/wheels/build $(VENV)/bin/python

test-wheel:
	PYTHON=$(PYTHON) .ci/wheel

check: $(READY)
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python
	$(VENV)/bin/python -m pytest -q --no-header tests/test_layout.py

docs: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build
	@echo "built build/site; with search: $(VENV)/bin/python -m http.server --directory build/site --bind 127.0.0.1, then open http://127.0.0.1:8000"

format: $(READY)
	$(VENV)/bin/ruff check --fix $(CODE)
	$(VENV)/bin/ruff format $(CODE)

clean:
	rm -rf $(VENV) build *.egg-info ros2_ws/build ros2_ws/install ros2_ws/log .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
