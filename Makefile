# salt-hls: `make firmware MODEL=salt_p4` and `make test` are all a newcomer needs.
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

BITS := weights.py golden.py firmware_sums.py plain_hls4ml.py keras2.py conformance.py saved_models.py extras.py

RUN := $(VENV)/bin/salt-hls
READY := $(VENV)/.ready

# Of the RTL: the model's own clock unless CLOCK_NS is given.
HARDWARE := --budget '$(BUDGET)' $(if $(CLOCK_NS),--clock-ns '$(CLOCK_NS)') $(if $(MULTIPLIERS),--multipliers '$(MULTIPLIERS)')

.PHONY: firmware rtl synth test test-bits test-all lock mutants data train results scaling diagnose golden bench report lint clean

firmware: $(READY)
	@$(RUN) firmware '$(MODEL)' --backend '$(BACKEND)' --budget '$(BUDGET)'

rtl: $(READY)
	@$(RUN) rtl '$(MODEL)' $(HARDWARE)

synth: $(READY)
	@$(RUN) synth '$(MODEL)' --tool '$(TOOL)' --steps '$(STEPS)' $(HARDWARE)

test: $(READY)
	@$(VENV)/bin/python -m pytest -n 2 -m "not slow"

# What may depend on Python, TensorFlow or numpy: weights, conversion, C-simulation, every bit.
test-bits: $(READY)
	@$(VENV)/bin/python -m pytest -n 2 -m "not slow" $(addprefix tests/test_,$(BITS))

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
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# The newest versions that pyproject.toml allows, for every Python, with their hashes.
lock: $(READY)
	@$(VENV)/bin/uv --quiet pip compile pyproject.toml --extra all --extra dev --group lock \
		--universal --python-version 3.10 --upgrade --generate-hashes --no-annotate \
		--custom-compile-command 'make lock' --output-file requirements.lock

clean:
	rm -rf build $(VENV)
