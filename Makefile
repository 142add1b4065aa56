PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
MINUTES ?= 30
DEMO := config/digits_columnfc.json --results results/demo --shadow_num 3
# two processes; tests that must not run beside each other name one xdist_group
PYTEST := $(RUN) -m pytest -q -n 2 --dist loadgroup

.PHONY: demo lint quick test soak clean

# The main job on scikit-learn's handwritten digits: three shadow models, where the paper has five.
demo: $(VENV)/.ready
	$(RUN) pretrain.py cpu $(DEMO)
	$(RUN) prune.py cpu $(DEMO) --prune_sparsity 0.7
	$(RUN) mia.py cpu $(DEMO) --attacks all --prune_sparsity 0.7
	$(RUN) mia.py cpu $(DEMO) --attacks all --original
	@echo
	@echo "Three shadow models here, the paper has five; 'original' is the victim before compression."

# As pyproject.toml says: ruff on all files, mypy on the code.
lint: $(VENV)/.ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy . --exclude "^tests/"

# What ends in two minutes.
quick: $(VENV)/.ready
	$(PYTEST) -m "not (cluster or browser or survive or slow)"

test: $(VENV)/.ready
	$(PYTEST)

# Kills and damage, for as long as it is told.
soak: $(VENV)/.ready
	$(RUN) tests/soak.py --minutes $(MINUTES)

$(VENV)/.ready: requirements.txt requirements-cluster.txt requirements-audit.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) results/demo
