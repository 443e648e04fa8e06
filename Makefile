# salt-hls: `make firmware MODEL=salt_p4` and `make test` are all a newcomer needs.
MODEL ?= salt_p4
BACKEND ?= vitis
BUDGET ?= cms_l1t_jet
TOOL ?= yosys
STEPS ?= csim,csynth
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3.10 || command -v python3)

RUN := $(VENV)/bin/salt-hls
READY := $(VENV)/.ready

# Of the RTL: the model's own clock unless CLOCK_NS is given.
HARDWARE := --budget '$(BUDGET)' $(if $(CLOCK_NS),--clock-ns '$(CLOCK_NS)') $(if $(MULTIPLIERS),--multipliers '$(MULTIPLIERS)')

.PHONY: firmware rtl synth test test-all mutants data train results scaling diagnose golden bench report lint clean

firmware: $(READY)
	@$(RUN) firmware '$(MODEL)' --backend '$(BACKEND)' --budget '$(BUDGET)'

rtl: $(READY)
	@$(RUN) rtl '$(MODEL)' $(HARDWARE)

synth: $(READY)
	@$(RUN) synth '$(MODEL)' --tool '$(TOOL)' --steps '$(STEPS)' $(HARDWARE)

test: $(READY)
	@$(VENV)/bin/python -m pytest -n 2 -m "not slow"

test-all: $(READY)
	@$(VENV)/bin/python -m pytest -n 2

# Goes on where it was stopped; the score is in docs/results/mutants.json.
mutants: $(READY)
	@$(VENV)/bin/python tests/mutants.py

data golden scaling: $(READY)
	@$(RUN) $@

train: $(READY)
	@$(RUN) train '$(MODEL)' $(if $(DATA),--data '$(DATA)') $(if $(SEED),--seed '$(SEED)') $(if $(SHIP),--ship)

diagnose: $(READY)
	@$(RUN) diagnose '$(MODEL)' $(if $(DATA),--data '$(DATA)')

results: $(READY)
	@$(RUN) results $(ROWS)

bench: $(READY)
	@$(RUN) $@ '$(MODEL)'

report: $(READY)
	@$(RUN) report '$(MODEL)' --budget '$(BUDGET)' $(if $(STRICT),--strict)

lint: $(READY)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/clang-format --dry-run --Werror hls_templates/*.h

# The environment holds exactly what requirements.lock names, checked by hash.
$(READY): requirements.lock pyproject.toml
	@test -n '$(PYTHON)' || { echo 'salt-hls: no Python found; install Python 3.10 or 3.11' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 11) or sys.exit("salt-hls: needs Python 3.10 or 3.11, found %d.%d; give another with PYTHON=..." % v)'
	@echo 'setting up $(VENV) (once, about a minute)'
	@'$(PYTHON)' -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf build $(VENV)
