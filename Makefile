# `make help` lists the targets. All of them set up what they need, in .venv and .local.
.DEFAULT_GOAL := help
.PHONY: help run chat test unit integration e2e faults clients bench lint docs check-docs check-words gen gen-clients check-gen buf protos-image protos-imports requirements clean

# Compiled once, not by each of the many processes that the tests and the benchmarks start.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3.11
BIN := .venv/bin
PROTOS := $(wildcard protos/godoty/v1/*.proto)
PROTOC := $(BIN)/python -m grpc_tools.protoc -Iprotos -I.local/protos
STUBS := clients/python
BUF = @bufbuild/buf@$(shell sed -n 's/^BUF=//p' clients/generate.sh)

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.venv/ready: requirements-dev.txt pyproject.toml clients/python/pyproject.toml
	@echo "Installing what is needed into .venv: once, about a minute."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e clients/python -e .
	@touch $@

# Published MCP servers for the tests, in an environment of their own: they need other versions of packages.
MCP_SERVERS := .local/mcp-servers
$(MCP_SERVERS)/ready: tests/requirements-mcp-servers.txt
	@echo "Installing published MCP servers for the tests into $(MCP_SERVERS): once, half a minute."
	@$(PYTHON) -m venv --clear $(MCP_SERVERS)
	@$(MCP_SERVERS)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

run: .venv/ready ## Start MongoDB, a sandbox OpenRouter and the service on this machine.
	@$(BIN)/godoty dev

chat: .venv/ready ## Talk to the running service in the terminal.
	@$(BIN)/python -m godoty.chat

# Most tests wait more than they work: three workers a core keep two cores busy.
PYTEST := $(BIN)/python -m pytest -n 6 --dist worksteal
test: .venv/ready $(MCP_SERVERS)/ready ## Run all tests but `clients` against a real mongod, real HTTP and a real gRPC server.
	$(PYTEST) tests --ignore tests/clients/polyglot

unit: .venv/ready ## Run the tests that need no database.
	$(PYTEST) tests/unit

integration: .venv/ready ## Run the tests of parts of the service on a real mongod.
	$(PYTEST) tests/integration

e2e: .venv/ready $(MCP_SERVERS)/ready ## Run the tests of a whole server, by gRPC.
	$(PYTEST) tests/e2e

faults: .venv/ready ## Run the long forms: the fault load of 400 turns and 36 kills (GODOTY_TEST_SEED=n replays one), and more.
	GODOTY_TEST_LONG=1 $(BIN)/python -m pytest tests/faults tests/e2e/turns tests/e2e/fuzz tests/e2e/answers tests/e2e/admin \
		tests/integration/budgets

bench: .venv/ready ## Measure Godoty beside its peers, and what it promises: 25 minutes (ONLY=peers,startup,metrics,tools,profile for parts).
	$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY))

lint: .venv/ready check-gen check-docs check-words ## Check style, types, imports, words, and that generated files are current.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/ready ## Generate docs/settings.md, docs/agent.schema.json and the service config of the clients.
	$(BIN)/python docs/generate_settings.py
	$(BIN)/python docs/generate_agent_schema.py
	$(BIN)/python docs/generate_service_config.py

check-docs: .venv/ready # Fails when a generated file of docs is not what it is generated from.
	@$(BIN)/python docs/generate_settings.py --check
	@$(BIN)/python docs/generate_agent_schema.py --check
	@$(BIN)/python docs/generate_service_config.py --check

# Recorded traffic, old databases and their migrations, and generated code have words of their own.
WORDS := git grep -nwE -f - -- godoty_service openrouter_sandbox tests bench clients docs protos '*.md' Makefile .ci \
	':!tests/data' ':!godoty_service/migrations' ':!tests/integration/migrations' ':!*.json' ':!*.svg' ':!*requirements*.txt' \
	':!clients/go/godoty' ':!clients/go/go.sum' ':!clients/typescript/src/gen' ':!clients/python/godoty/v1'
check-words: # Fails when a retired word has come back (CONTRIBUTING.md).
	@! { grep -v '^#\|[A-Z]' tests/data/retired_words.txt | LC_ALL=C $(WORDS:-nwE=-nwiE); \
		grep -v '^#' tests/data/retired_words.txt | grep '[A-Z]' | LC_ALL=C $(WORDS); } | grep . \
		|| { echo "retired words: docs/glossary.md has the field's"; exit 1; }

protos-imports: .venv/ready # Puts what the protos import where protoc and buf find it.
	@PYTHON=$(BIN)/python protos/imports.sh

gen: protos-imports ## Generate the Python stubs from protos/, and the client's types and errors.
	$(PROTOC) --python_out=$(STUBS) --pyi_out=$(STUBS) --grpc_python_out=$(STUBS) $(PROTOS)
	$(BIN)/python $(STUBS)/generate.py

check-gen: protos-imports # Fails when the committed stubs are not what the protos give.
	@rm -rf .local/check-gen && mkdir -p .local/check-gen
	@$(PROTOC) --python_out=.local/check-gen --pyi_out=.local/check-gen --grpc_python_out=.local/check-gen $(PROTOS)
	@for each in $$(cd .local/check-gen && find . -name '*_pb2*'); do \
		cmp -s .local/check-gen/$$each $(STUBS)/$$each || { echo "stale: $(STUBS)/$$each; run make gen"; exit 1; }; done
	@$(BIN)/python $(STUBS)/generate.py --check

gen-clients: .venv/ready ## Generate the clients' stubs for every language whose tools are here.
	clients/generate.sh

buf: protos-imports ## Lint the contract, and check that it breaks no client of protos/v1.binpb (needs npm).
	npx --yes $(BUF) lint protos
	npx --yes $(BUF) breaking protos --against protos/v1.binpb --exclude-imports

protos-image: protos-imports ## Write protos/v1.binpb, the contract that later ones must not break (needs npm; CONTRIBUTING.md says when).
	npx --yes $(BUF) build protos --exclude-source-info -o protos/v1.binpb

clients: .venv/ready ## Test the clients of the other languages against the service (needs go, node, mvn).
	$(BIN)/python -m pytest tests/clients/polyglot

COMPILE := pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	--no-annotate
requirements: .venv/ready ## Compile the pinned requirements and their hashes anew.
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv $(COMPILE) pyproject.toml -o requirements.txt
	$(BIN)/uv $(COMPILE) pyproject.toml --extra dev -o requirements-dev.txt
	$(BIN)/uv $(COMPILE) requirements-build.in -o requirements-build.txt
	$(BIN)/uv $(COMPILE) tests/requirements-mcp-servers.in -o tests/requirements-mcp-servers.txt

clean: ## Delete what was set up and what was kept: .venv and .local.
	rm -rf .venv .local
