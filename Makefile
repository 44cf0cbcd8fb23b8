# Everything a developer or a visitor runs. `make` alone lists the targets.
SHELL := /bin/bash
BIN := .venv/bin
LOG ?= embedded
# Where it is set, each of the hundreds of commands that tests start would compile the project anew.
unexport PYTHONDONTWRITEBYTECODE
# A process per core, up to four: each that meets a Kafka test starts a broker of its own.
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo serve test quick soak lint format docs bench chaos kafka-up kafka-down clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/.installed ## make .venv with the command .venv/bin/coupon-ledger

.venv/.installed: pyproject.toml constraints.txt
	@python=$$(for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done); \
	if [ -z "$$python" ]; then echo "Python 3.11 or newer is needed, and none was found"; exit 1; fi; \
	echo "installing into .venv with $$($$python --version) (about a minute)"; \
	$$python -m venv .venv && \
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]' && touch $@

demo: install ## a real retail year: import, consume, look at it (LOG=kafka: on a real Kafka)
	@LOG=$(LOG) scripts/demo.sh

serve: install ## pages and HTTP API over the real year and a sale that goes on now (PORT=8642; Ctrl-C stops it)
	@scripts/serve.sh

test: install ## the tests, those on a real Kafka broker and in a browser included (EXAMPLES=10: ten times as many random ones)
	@$(BIN)/python -m tests.kafka_broker check
	@$(BIN)/python -m tests.browser install
	$(PYTEST) -m "(not slow or browser or vital) and not soak"

quick: install ## the fast tests, without Kafka (less than a minute)
	$(PYTEST) -q -m "not (long or slow or kafka)"

soak: install ## the long proofs beside them: random worlds, mutations, brokers that die (an hour and more)
	$(PYTEST) -m "slow and not browser and not vital and not soak"
	$(BIN)/python -m pytest -m soak

lint: install ## style, static types, import directions, changes of schemas
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	$(BIN)/coupon-ledger schemas check

format: install ## format the code
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

docs: install ## write the documents that are made from the code
	$(BIN)/python -m scripts.make_docs

bench: install ## the benchmarks (results go to benchmarks/latest.json)
	$(BIN)/python -m benchmarks.run

chaos: install ## kill the consumer at least 200 times per log and compare with an uninterrupted run
	$(BIN)/python -m benchmarks.chaos

kafka-up: install ## start a real Kafka broker on 127.0.0.1:9092
	$(BIN)/python -m tests.kafka_broker up

kafka-down: install ## stop it
	$(BIN)/python -m tests.kafka_broker down

clean: ## remove what the targets above made
	rm -rf .venv .demo .serve .kafka build *.egg-info
