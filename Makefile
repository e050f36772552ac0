# On a fresh machine with Python 3.11-3.13 and make: `make demo`, `make test`.
PYTHON ?= python3
# `make test KERAS=3.14`: another Keras, in an environment of its own.
KERAS ?=
VENV := .venv$(KERAS:%=-keras%)
RUN := TF_CPP_MIN_LOG_LEVEL=2 $(VENV)/bin/python

.PHONY: demo test bench fuzz lint format clean

demo: $(VENV)/.installed
	$(RUN) examples/digits.py

test: $(VENV)/.installed lint
	$(RUN) tests/on_every_backend.py

# B/16 beside those of the peers that are installed; twenty minutes on a quiet machine.
bench: $(VENV)/.installed
	$(RUN) -m benchmarks

# Some 20 minutes: mutated files of every format, other ones at every run.
fuzz: $(VENV)/.installed
	KERAS_BACKEND=torch FUZZ_EXAMPLES=2000 $(RUN) -m pytest tests/test_fuzz.py

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python .ci/public_types.py

format: $(VENV)/.installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]' $(KERAS:%='keras==%.*')
	touch $@

clean:
	rm -rf .venv .venv-keras* build *.egg-info outputs
