# Targets share one set-up, .venv/ready, which is made again only when its inputs change.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: help setup demo test lint bench-playground bench-feedback bench-data bench-train bench-gpu \
	soak bench-pipeline
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: .venv/ready  ## .venv with the pinned packages

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup  ## feedback in, policy trained, evaluated, registered, promoted; minutes on a CPU
	$(BIN)/amopo demo

lint: setup  ## style, formatting, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# More processes than a small machine has cores: a third of the time they wait for a server.
test: lint  ## lint, then every test, a real run of the flow in a temporary clone among them
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

bench-playground: setup  ## five seeds and three controls, as the README shows them
	$(BIN)/python bench/playground.py

bench-feedback: setup  ## FEEDBACK=file MODEL=folder or made [SCALE="1 5"] [CONTEXT=512]: reward accuracy before and after
	$(BIN)/python bench/feedback.py --feedback "$(FEEDBACK)" --model "$(MODEL)" \
		$(if $(SCALE),--scale $(SCALE)) $(if $(CONTEXT),--context $(CONTEXT))

bench-data: setup  ## a million rated responses from JSONL to pairs, beside datasets.map [ROWS=1000000]
	$(BIN)/python bench/data.py $(if $(ROWS),--rows $(ROWS))

bench-train: .venv/bench  ## the training step beside the published one and TRL's SimPO: speed, memory, ranks [ARGS=...]
	$(BIN)/python -m bench.train $(ARGS)

soak: setup  ## 30 random kills of a run, each followed by the same command until it ends; the tally [ARGS=...]
	$(BIN)/python -m bench.soak $(ARGS)

bench-pipeline: setup  ## what Prefect, DVC and MLflow add to the stages; 20 runs made again with REPRODUCE=20 [ARGS=...]
	$(BIN)/python -m bench.orchestration $(if $(REPRODUCE),--reproduce $(REPRODUCE)) $(ARGS)

bench-gpu: .venv/bench  ## the same on a GPU, shapes of Qwen2.5: utilisation, longest context [ARGS=...]
	$(BIN)/python -m bench.train_gpu $(ARGS)

.venv/bench: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $@
