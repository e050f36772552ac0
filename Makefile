# On a fresh machine with Python 3.11-3.13 and make: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
RUN := TF_CPP_MIN_LOG_LEVEL=2 $(VENV)/bin/python

.PHONY: demo test lint format clean

demo: $(VENV)/.installed
	$(RUN) examples/digits.py

test: $(VENV)/.installed lint
	$(RUN) tests/on_every_backend.py

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(VENV)/.installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info outputs
