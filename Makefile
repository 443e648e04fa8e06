# salt-hls: `make firmware MODEL=salt_p4` and `make test` are all a newcomer needs; `make` alone
# prints the texts after ##.
MODEL ?= salt_p4
BACKEND ?= vitis
BUDGET ?= cms_l1t_jet
TOOL ?= yosys
STEPS ?= csim,csynth
VENV ?= .venv
# That of the environment, or the newest that is there, runs (a version manager's may not) and fits.
PYTHON ?= $(shell for p in $(VENV)/bin/python python3.13 python3.12 python3.11 python3.10 python3; do \
	"$$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && \
	echo "$$p" && break; done)

BITS := weights.py regression.py firmware_sums.py plain_hls4ml.py keras2.py conformance.py saved_models.py extras.py

RUN := $(VENV)/bin/salt-hls
READY := $(VENV)/.ready

# Of the RTL: the model's own clock unless CLOCK_NS is given.
HARDWARE := --budget '$(BUDGET)' $(if $(CLOCK_NS),--clock-ns '$(CLOCK_NS)') $(if $(MULTIPLIERS),--multipliers '$(MULTIPLIERS)')

# Where jobs are done: here, or as docs/scale.md says.
PLACE := JOBS SCHEDULER CLUSTER
WHERE := $(if $(JOBS),--jobs '$(JOBS)') $(if $(SCHEDULER),--scheduler '$(SCHEDULER)') $(if $(CLUSTER),--cluster '$(CLUSTER)')

# Of what is written after `make`, every variable must be one that the target takes.
TAKES_firmware := MODEL BACKEND BUDGET ESTIMATE
TAKES_rtl := MODEL BUDGET CLOCK_NS MULTIPLIERS
TAKES_synth := $(TAKES_rtl) TOOL STEPS $(PLACE)
TAKES_report := MODEL BUDGET STRICT
TAKES_golden := MODEL CHECK
TAKES_data := JETS DATA $(PLACE)
TAKES_train := MODEL DATA SEED SHIP TARGET_LUT
TAKES_results := ROWS DATA $(PLACE)
TAKES_scaling := $(PLACE)
TAKES_explore := MODEL BUDGET DATA TRIALS STORAGE $(PLACE)
TAKES_diagnose := MODEL DATA
TAKES_bench := MODEL

GOALS := $(or $(MAKECMDGOALS),help)
TAKES := $(sort $(foreach goal,$(GOALS),$(TAKES_$(goal))) PYTHON VENV)
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
ODD := $(firstword $(filter-out $(TAKES),$(GIVEN)))
ifneq ($(ODD),)
NEAR := $(shell python3 -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1))' \
	'$(ODD)' $(TAKES) 2>/dev/null)
$(error salt-hls: `make $(GOALS)` takes no $(ODD)=$(if $(NEAR),; did you mean $(NEAR)=? It takes,, but) $(addsuffix =,$(TAKES)))
endif

# VARIABLE=1 is --variable, VARIABLE=0 is nothing.
flag = $(if $(filter-out 0,$($1)),--$(shell echo $1 | tr A-Z a-z))

# The words of its messages are then those of make.
export SALT_HLS_CALLER := make

.DEFAULT_GOAL := help
.PHONY: help quickstart firmware rtl synth test test-bits test-wheel test-all lock mutants data train results explore scaling diagnose golden bench report lint clean

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@sed -n 's/^## /  /p' Makefile

##
## MODEL=salt_p4        a shipped model, or a path to your own YAML or saved Keras model
## BACKEND=vitis        or vivado: the HLS compiler that the project is for; ESTIMATE=0: no estimate at the end
## BUDGET=cms_l1t_jet   one of synth/budgets, or a path to your own; STRICT=1: kept, or status 1
## CLOCK_NS=  MULTIPLIERS=lut or dsp         of the RTL
## TOOL=yosys           or estimate, vitis, vivado; STEPS=csim,csynth,cosim,vsynth,route of the last two
## JETS=                how many, else 610,000; DATA=data the folder or file of the jets
## SEED=  SHIP=1        of the training; over the shipped weights
## TARGET_LUT=          of the training of learned widths: predicted LUTs
## CHECK=1              compares golden logits, writes nothing; without MODEL= all shipped ones
## TRIALS=20  STORAGE=   of explore: how many points, and an SQLite file or database URL
## JOBS=  SCHEDULER=tcp://host:port  CLUSTER=FILE   jobs at a time, and where (docs/scale.md)
## PYTHON=  VENV=.venv  what runs it

quickstart: $(READY) ## train a tiny model on the shipped jets and build it, in five minutes
	@$(RUN) quickstart

firmware: $(READY) ## write MODEL's HLS project and check every bit of it
	@$(RUN) firmware '$(MODEL)' --backend '$(BACKEND)' --budget '$(BUDGET)' $(if $(filter 0,$(ESTIMATE)),--no-estimate)

rtl: $(READY) ## write MODEL's Verilog, simulate it at one jet a clock, check every bit
	@$(RUN) rtl '$(MODEL)' $(HARDWARE)

synth: $(READY) ## get the hardware figures of TOOL
	@$(RUN) synth '$(MODEL)' --tool '$(TOOL)' --steps '$(STEPS)' $(HARDWARE) $(WHERE)

test: $(READY) ## run the tests that take seconds each
	@$(VENV)/bin/python -m pytest -n 2 -m "not slow"

# What may depend on Python, TensorFlow or numpy: weights, conversion, C-simulation, every bit.
test-bits: $(READY) ## run the tests whose bits may depend on Python and TensorFlow
	@$(VENV)/bin/python -m pytest -n 2 -m "not slow" $(addprefix tests/test_,$(BITS))

test-wheel: $(READY) ## build the wheel, install it into an empty environment, use it
	@$(VENV)/bin/python -m pytest tests/test_wheel.py

test-all: $(READY) ## run all tests
	@$(VENV)/bin/python -m pytest -n 2

# Goes on where it was stopped; the score is in docs/results/mutants.json.
mutants: $(READY) ## measure what the tests find
	@$(VENV)/bin/python tests/mutants.py

data: $(READY) ## generate JETS jets in DATA
	@$(RUN) data $(if $(JETS),--jets '$(JETS)') $(if $(DATA),--data '$(DATA)') $(WHERE)

golden: $(READY) ## write the regression logits of MODEL, or of all shipped models, or CHECK them
	@$(RUN) golden $(if $(filter file,$(origin MODEL)),,'$(MODEL)') $(call flag,CHECK)

scaling: $(READY) ## measure streaming firmware against particles and lanes
	@$(RUN) scaling $(WHERE)

train: $(READY) ## train MODEL on DATA, float then quantized
	@$(RUN) train '$(MODEL)' $(if $(DATA),--data '$(DATA)') $(if $(SEED),--seed '$(SEED)') $(if $(TARGET_LUT),--target-lut '$(TARGET_LUT)') $(call flag,SHIP)

diagnose: $(READY) ## look for signs of failure in MODEL
	@$(RUN) diagnose '$(MODEL)' $(if $(DATA),--data '$(DATA)')

results: $(READY) ## train the rivals and ablations without a result (ROWS= of the study)
	@$(RUN) results $(ROWS) $(if $(DATA),--data '$(DATA)') $(WHERE)

explore: $(READY) ## search the ranges of MODEL's YAML for accuracy and cost, resumable
	@$(RUN) explore '$(MODEL)' --budget '$(BUDGET)' $(if $(DATA),--data '$(DATA)') $(if $(TRIALS),--trials '$(TRIALS)') $(if $(STORAGE),--storage '$(STORAGE)') $(WHERE)

bench: $(READY) ## measure the C-simulation of MODEL
	@$(RUN) $@ '$(MODEL)'

report: $(READY) ## judge the best figures of MODEL against BUDGET
	@$(RUN) report '$(MODEL)' --budget '$(BUDGET)' $(call flag,STRICT)

lint: $(READY) ## run ruff, mypy, import-linter and clang-format
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo --cache-dir build/imports
	@$(VENV)/bin/clang-format --dry-run --Werror hls_templates/*.h

# The environment holds exactly what requirements.lock names, checked by hash.
$(READY): requirements.lock pyproject.toml
	@version='import sys; print("%d.%d" % sys.version_info[:2])'; \
	fail() { echo "salt-hls: $$1" >&2; exit 1; }; \
	test -n '$(PYTHON)' || fail 'no Python 3.10 to 3.13 found; install one, or say where it is with PYTHON=...'; \
	found=$$('$(PYTHON)' -c "$$version" 2>/dev/null) || fail 'PYTHON=$(PYTHON) does not run'; \
	case "$$found" in 3.1[0-3]) ;; *) \
		fail "needs Python 3.10 to 3.13, PYTHON=$(PYTHON) is $$found; give another";; esac; \
	'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || \
		fail "$(PYTHON) cannot make an environment; on Debian and Ubuntu: apt install python$$found-venv"; \
	test ! -e $(VENV)/bin/python || test "$$($(VENV)/bin/python -c "$$version" 2>&1)" = "$$found" || \
		fail "$(VENV) is of another Python than $$found; make clean removes it, or give another VENV=..."
	@echo 'setting up $(VENV) (once, a minute or two)'
	@'$(PYTHON)' -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# The newest versions that pyproject.toml allows, for every Python, with their hashes.
lock: $(READY) ## renew requirements.lock
	@$(VENV)/bin/uv --quiet pip compile pyproject.toml --extra all --extra dev --group lock \
		--universal --python-version 3.10 --upgrade --generate-hashes --no-annotate \
		--custom-compile-command 'make lock' --output-file requirements.lock

clean: ## remove build and VENV
	rm -rf build $(VENV)
