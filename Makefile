# make help lists the targets. Installs leave a stamp in the environment, so they happen once per change of pyproject.toml.

# The first Python here that is new enough; override with: make PYTHON=/path/to/python demo
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
endif
VENV ?= .venv
VENV_NEXT ?= .venv-next
BIN := $(VENV)/bin
BASE := $(VENV)/.installed-base
DEV := $(VENV)/.installed-dev
NEXT := $(VENV_NEXT)/.installed-next
DEMO_BUNDLE ?= demo-bundle
DEMO_QUESTION ?= Mia has 14 apples. Then Mia finds 3 bags of 6 apples. Mia gives away 7 apples. How many apples does Mia have now?
# Where to look for PyTorch besides the default index, for instance its index of CPU builds (see CONTRIBUTING.md).
TORCH_INDEX ?=
TORCH_OPTIONS := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
ARGS ?=
# A worker per core, each with a run of neighbouring tests (ARGS=-n0: one process); the summary says why a test was skipped.
PARALLEL := -n auto --dist worksteal --durations=10 -rs
# Byte code is kept whatever the environment says: workers and the commands they start would each compile it anew.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest
PIP_OPTIONS := --disable-pip-version-check

.PHONY: help demo test fuzz test-next families lint format types bench bench-export bench-load bench-runtime bench-plan bench-verify bench-verify-minutes bench-gate bench-quality bench-speculate bench-peers bench-serve bench-trajectories bench-answers bench-kv bench-hybrid bench-masks bench-prefill bench-operators bench-tune bench-sensitivity bench-tui torture docs coverage wheel-test mutation lock test-slow test-all screenshots clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(BASE) ## export the built-in model, open the bundle, ask it a question
	@echo; echo "== export tiny-reasoner for the profile laptop-cpu"
	@$(BIN)/edgedistill export tiny-reasoner --profile laptop-cpu --out $(DEMO_BUNDLE) --force
	@echo; echo "== open the bundle"
	@$(BIN)/edgedistill inspect $(DEMO_BUNDLE)
	@echo; echo "== $(DEMO_QUESTION)"
	@$(BIN)/edgedistill run $(DEMO_BUNDLE) "$(DEMO_QUESTION)" --temperature 0
	@echo; echo "Talk to it: $(BIN)/edgedistill chat $(DEMO_BUNDLE)"

test: $(DEV) ## the tests but the slow ones, on all cores (installs the extras, PyTorch among them, first)
	$(PYTEST) $(PARALLEL) -m "not slow" $(ARGS)

test-slow: $(DEV) ## the tests that are marked slow, the slow blocks of the site among them
	$(PYTEST) $(PARALLEL) -m slow $(ARGS)

test-all: $(DEV) ## both
	$(PYTEST) $(PARALLEL) $(ARGS)

fuzz: $(DEV) ## mutations of every file format against its parser (ARGS="--executions 1000 --target manifest")
	$(BIN)/python tests/fuzz/fuzz.py $(ARGS)

test-next: $(NEXT) ## the parity tests against the newest transformers, in an environment of their own
	$(VENV_NEXT)/bin/pytest -m next $(ARGS)

families: $(DEV) $(NEXT) ## what the parity tests show of every family, written into the table that `edgedistill families` prints
	$(BIN)/pytest -n0 tests/graph/test_parity*.py --record-levels $(ARGS)
	$(VENV_NEXT)/bin/pytest -n0 -m next tests/graph/test_parity*.py --record-levels $(ARGS)

lint: $(DEV) ## ruff: rules and format; import-linter: the order of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(DEV) ## apply ruff's format and safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV) ## the site, built into site/ with strict links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet $(ARGS)

types: $(DEV) ## mypy --strict; what is installed also for Windows and macOS
	$(BIN)/mypy --platform linux
	$(BIN)/mypy --platform win32 src tui
	$(BIN)/mypy --platform darwin src tui

coverage: $(DEV) ## the not-slow tests with branch coverage, a table and htmlcov/
	$(PYTEST) $(PARALLEL) -m "not slow" --cov --cov-report=term:skip-covered --cov-report=html $(ARGS)

wheel-test: | $(BIN)/python ## build the wheel, install it into an empty environment, export and run there
	$(BIN)/python tests/support/wheel_check.py $(ARGS)

mutation: $(DEV) ## small changes of gate, statistics, reader of answers and staging: how many the tests notice (ARGS="--sample 600 --seed 1")
	$(BIN)/python tests/support/mutation.py $(ARGS)

lock: | $(BIN)/python ## constraints.txt anew: the newest versions that the extras and constraints-dev.txt allow (ARGS=--upgrade)
	$(BIN)/pip install $(PIP_OPTIONS) uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --constraint constraints-dev.txt \
		--no-header --no-annotate --no-emit-index-url --output-file constraints.txt $(ARGS)

bench: $(BASE) ## tokens/s, load time and memory of the demo bundle
	@test -f $(DEMO_BUNDLE)/manifest.json || \
		$(BIN)/edgedistill export tiny-reasoner --profile laptop-cpu --out $(DEMO_BUNDLE)
	$(BIN)/edgedistill bench $(DEMO_BUNDLE)

bench-export: $(DEV) ## peak memory and time of exporting random 4B- and 8B-shaped checkpoints (needs 30 GB of disk)
	$(BIN)/python bench/export.py $(ARGS)

bench-runtime: $(DEV) ## decode speed next to onnxruntime-genai on a bundle of the same format
	$(BIN)/python bench/runtime.py $(ARGS)

bench-load: $(DEV) ## seconds from process start to the first token, by phase; private memory as multiples of the weights (ARGS=--large: Qwen3-4B's shape too)
	$(BIN)/python bench/load.py $(ARGS)

bench-plan: $(DEV) ## what plan predicts beside what is then measured (ARGS=--quick: the built-in model only)
	$(BIN)/python bench/plan.py $(ARGS)

bench-verify: $(DEV) ## samples/s of the verification engine next to one at a time and transformers
	$(BIN)/python bench/verify.py $(ARGS)

bench-verify-minutes: $(DEV) ## whether verify --time-budget ends in its time: a 0.5B shape in 20 minutes, a 4B one in an hour (ARGS="--shapes qwen2.5-0.5b --budget 6m")
	$(BIN)/python bench/verify_minutes.py $(ARGS)

bench-gate: $(DEV) ## how often the gate passes at its margin, on populations where gates go wrong; its power
	$(BIN)/python bench/gate.py $(ARGS)

bench-quality: $(DEV) ## mean KL over size next to llama.cpp's formats of the same original, with memory, a verdict per path, tiny-reasoner as GGUF too (hours; ARGS=--quick)
	$(BIN)/python bench/quality.py $(ARGS)

bench-answers: $(DEV) ## false merges and false splits of the reader of answers by kind, beside math-verify (ARGS="--pairs 2000")
	$(BIN)/python bench/answers.py $(ARGS)

bench-kv: $(DEV) ## a quantized KV cache by position in the context: divergence, memory, speed
	$(BIN)/python bench/kv.py $(ARGS)

bench-masks: $(DEV) ## what a form of the answer, and tools, cost a token, by size of the vocabulary (ARGS="--sizes 32768", ARGS=--quick)
	$(BIN)/python bench/masks.py $(ARGS)

bench-hybrid: $(DEV) ## hybrid models beside an attention model of the same size: decode, prefill and memory by tokens held (ARGS=--quick)
	$(BIN)/python bench/hybrid.py $(ARGS)

bench-prefill: $(DEV) ## a W8A8 form for prompts next to 4 bits for everything: first token, prefill, decode, memory, quality (ARGS=--quick)
	$(BIN)/python bench/prefill.py $(ARGS)

bench-operators: $(DEV) ## the share of matrices and of attention in prompts of growing length, of the demo bundle or ARGS=BUNDLE
	$(BIN)/python bench/operators.py $(or $(ARGS),$(DEMO_BUNDLE))

bench-serve: $(DEV) ## throughput of the server at 1, 4 and 16 clients, beside one at a time (ARGS="--peer PYTHON": and llama-cpp-python's server)
	$(BIN)/python bench/serve.py $(ARGS)

bench-tune: $(DEV) ## what tuning gains on a calibrated 4-bit bundle, and how long it takes (ARGS="--minutes 30", ARGS=--quick)
	$(BIN)/python bench/tune.py $(ARGS)

bench-sensitivity: $(DEV) ## estimated sensitivities next to measured ones: rank correlation and time
	$(BIN)/python bench/sensitivity.py $(ARGS)

bench-speculate: $(DEV) ## decode speed with guessed tokens against without, by task (ARGS="--models tiny-reasoner", ARGS=--quick)
	$(BIN)/python bench/speculate.py $(ARGS)

bench-peers: $(DEV) ## speed, load and memory beside llama.cpp, OpenVINO GenAI and onnxruntime-genai, built in an environment of their own (hours; ARGS=--quick)
	$(BIN)/python bench/peers.py $(ARGS)

bench-trajectories: $(DEV) ## several attempts: accuracy and tokens of one, a vote, a deliberation; time against sequence
	$(BIN)/python bench/trajectories.py $(ARGS)

bench-tui: $(BASE) ## the terminal UI against the bare runtime: idle CPU, memory, keys while generating, decode speed
	@test -f $(DEMO_BUNDLE)/manifest.json || \
		$(BIN)/edgedistill export tiny-reasoner --profile laptop-cpu --out $(DEMO_BUNDLE)
	$(BIN)/python bench/tui.py $(or $(BUNDLE),$(DEMO_BUNDLE)) $(ARGS)

torture: $(DEV) ## kill commands at random moments and let their disk fail; a table of what survived (ARGS="--seconds 3600")
	$(BIN)/python bench/torture.py $(ARGS)

screenshots: $(BASE) ## docs/tui-chat.svg, docs/tui-profiler.svg and docs/tui-tools.svg from the real program
	@test -f $(DEMO_BUNDLE)/manifest.json || \
		$(BIN)/edgedistill export tiny-reasoner --profile laptop-cpu --out $(DEMO_BUNDLE)
	$(BIN)/python examples/tui_screenshots.py $(DEMO_BUNDLE) docs

clean: ## remove what the targets made, environments included
	rm -rf $(VENV) $(VENV_NEXT) $(DEMO_BUNDLE) .$(DEMO_BUNDLE).partial .mypy_cache .ruff_cache .hypothesis build dist site htmlcov .coverage

# $(1): environment. Debian and Ubuntu ship Python without ensurepip; say so instead of failing half-way.
define make_venv
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found. Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $$($(PYTHON) --version) found, 3.11 or newer expected. Name another: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "error: $(PYTHON) has no ensurepip. On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(1)
endef

$(BIN)/python:
	$(call make_venv,$(VENV))

$(VENV_NEXT)/bin/python:
	$(call make_venv,$(VENV_NEXT))

# The interpreter is an order-only prerequisite: its symlink has the system's date, not the environment's.
$(BASE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing edgedistill and its exporter into $(VENV) ..."
	$(BIN)/pip install $(PIP_OPTIONS) --constraint constraints.txt --editable '.[export]'
	@touch $@

# PyTorch first and pinned, so that a later step cannot replace the chosen build with another one.
$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install $(PIP_OPTIONS) $(TORCH_OPTIONS) --constraint constraints.txt torch
	$(BIN)/pip install $(PIP_OPTIONS) $(TORCH_OPTIONS) --constraint constraints.txt --editable '.[torch,optimum,dev]'
	@touch $@ $(BASE)

$(NEXT): pyproject.toml constraints-dev.txt | $(VENV_NEXT)/bin/python
	grep '^torch==' constraints-dev.txt | xargs $(VENV_NEXT)/bin/pip install $(PIP_OPTIONS) $(TORCH_OPTIONS)
	$(VENV_NEXT)/bin/pip install $(PIP_OPTIONS) $(TORCH_OPTIONS) --editable '.[torch,dev]' 'transformers>=5'
	@touch $@
