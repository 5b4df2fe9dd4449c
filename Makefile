# `make demo` and `make test` are all that a newcomer needs. Both set up first; a second run skips what is there.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
stage = @printf '\n\033[1m── %s\033[0m\n' '$(1)'

.PHONY: help setup demo test check format lint types layers tests bench clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## make .venv, install everything, bring a headless GL
	@bash scripts/setup.sh

demo: setup ## pictures from text, a robot following instructions, one HTML report
	@$(BIN)/ornstein demo

test: setup check tests ## what CI runs: set-up, format, lint, types, layers, tests

check: lint types layers

format: ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint:
	$(call stage,format and lint)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types:
	$(call stage,types)
	@$(BIN)/mypy

layers:
	$(call stage,layers)
	@$(BIN)/lint-imports

tests:
	$(call stage,tests)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup

bench: ## measure the shipped models (writes benchmarks/results and the README's figures)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/tabletop.py legibility experts pipeline rt1 speed floor cluster
	$(BIN)/python benchmarks/doubt.py
	$(BIN)/python benchmarks/languages.py
	$(BIN)/python benchmarks/pictures.py
	$(BIN)/python benchmarks/reader.py
	$(BIN)/python benchmarks/readme.py
	$(BIN)/python benchmarks/cards.py

clean: ## delete what was built here, .venv included
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist demo
