# Every target sets up what it needs, in .venv beside this file. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv installs in a fraction of the time, where it is at hand.
INSTALL := $(if $(shell command -v uv),uv pip install --python $(BIN)/python,$(BIN)/python -m pip --disable-pip-version-check install) --quiet
SHARED := ../shared
# Tests start hundreds of Python processes: each would compile lmdeck again where nothing may be kept.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help system-packages openmp demo demo-batch batch-kills test lint types tests core coverage pythons package live fuzz round-trips wire soak gateway-soak races docs pictures bench shared shared-reports format clean

help:
	@echo "make demo                a real conversation with a small model, no LM Studio needed"
	@echo "make demo-batch          fifty prompts as a batch, killed and resumed"
	@echo "make test                lint, types and every test that needs no LM Studio"
	@echo "make lint, types, tests  one part of it"
	@echo "make core                the tests of the code that reads answers, with its coverage"
	@echo "make coverage            every test, with the coverage of the whole source"
	@echo "make pythons             a short set of tests on every Python that is installed"
	@echo "make package             wheel and source distribution, built and tried in a bare environment"
	@echo "make system-packages     what some tests need from Debian, where root may install it"
	@echo "make live                the same conversations against LM Studio at LMDECK_LIVE_URL"
	@echo "make fuzz                a hundred million random characters through the parser"
	@echo "make round-trips         many calls of every dialect, written and read again"
	@echo "make wire                every fault on the wire at every operation"
	@echo "make batch-kills         10,000 rows killed at 20 random moments, by one and by two workers"
	@echo "make soak                ten minutes of random faults over 64 chats at once"
	@echo "make gateway-soak        half an hour of faults, restarts and kills of the gateway"
	@echo "make races               1,000 races of requests for a model that is not loaded"
	@echo "make docs                the documentation site, in site/"
	@echo "make pictures            the pictures of the README"
	@echo "make bench               lmdeck beside other clients, CPU and memory, with a report in bench.html"
	@echo "make format              lay out the code"
	@echo "make clean               remove what these targets made"

demo: $(VENV)/.installed-demo openmp
	@$(BIN)/lmdeck demo

# Fifty prompts for the same model as a batch that is killed on purpose.
demo-batch: $(VENV)/.installed-demo openmp
	@$(BIN)/python scripts/demo_batch.py

# mypy uses one core for half a minute: it runs beside the tests, which often wait.
test: lint
	@$(MAKE) --no-print-directory --jobs=2 types tests

# The commands of these stand in noxfile.py; here they run in .venv instead of separate environments.
lint types tests core coverage: $(VENV)/.installed-dev
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/nox --no-venv --session $@

# The short set of tests on every Python from 3.12 on that this machine has; pyenv shows all of its versions only when asked.
pythons: $(VENV)/.installed-dev
	@if command -v pyenv >/dev/null 2>&1; then export PYENV_VERSION=$$( (pyenv global; pyenv versions --bare) | paste -sd: -); fi; \
	for version in 3.12 3.13 3.14; do \
		if python$$version --version >/dev/null 2>&1; then $(BIN)/nox --session short-$$version || exit 1; \
		else echo "SKIPPED Python $$version: it is not installed here"; fi; \
	done

package: $(VENV)/.installed-dev
	@$(BIN)/nox --session package

live: $(VENV)/.installed-dev
	@test -n "$(LMDECK_LIVE_URL)" || { echo "Set LMDECK_LIVE_URL, for example: make live LMDECK_LIVE_URL=http://localhost:1234"; exit 2; }
	@LMDECK_LIVE_URL="$(LMDECK_LIVE_URL)" $(BIN)/python -m pytest tests/live -m live

# A hundred million random characters through the parser, on every core; LMDECK_FUZZ_MINUTES bounds it, the same seed goes on where it stopped.
fuzz: $(VENV)/.installed-dev
	@PYTHONPATH=tests $(BIN)/python -m laws.fuzz --characters $${LMDECK_FUZZ_CHARACTERS:-100000000} --minutes $${LMDECK_FUZZ_MINUTES:-inf} \
		--seed $${LMDECK_FUZZ_SEED:-$$(date +%Y%m%d)}

# The documentation site, in site/.
docs: .venv-docs/.installed
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet && echo "site/index.html"

# The pictures of the README, in docs/pictures; they need Chromium.
pictures: $(VENV)/.installed-dev
	@$(BIN)/python scripts/pictures.py

# A thousand seeded races of requests for a model that is not loaded; in `make test` it is a dozen.
races: $(VENV)/.installed-dev
	@LMDECK_RACES=$${LMDECK_RACES:-1000} $(BIN)/python -m pytest tests/gateway/test_fairness.py -k every_race -s --timeout 3600

# Half an hour of faults, restarts and kills of the gateway; in `make test` it is twelve seconds.
gateway-soak: $(VENV)/.installed-dev
	@$(BIN)/python scripts/gateway_soak.py --minutes $${LMDECK_SOAK_MINUTES:-30}

# Ten minutes of random faults over 64 chats at once; in `make test` it is eight seconds.
soak: $(VENV)/.installed-dev
	@LMDECK_SOAK_SECONDS=$${LMDECK_SOAK_SECONDS:-600} LMDECK_SOAK_SEED=$${LMDECK_SOAK_SEED:-$$(date +%s)} $(BIN)/python -m pytest tests/testing/test_soak.py -s --timeout 900

# Hostile values in calls of every dialect; in `make test` they are a sample.
round-trips: $(VENV)/.installed-dev
	@LMDECK_ROUND_TRIPS=$${LMDECK_ROUND_TRIPS:-200} $(BIN)/python -m pytest -n auto tests/laws/test_round_trip.py --timeout 3600

# Every fault on the wire at every operation, sync and async, with a table of the outcomes; in `make test` it is a sample.
wire: $(VENV)/.installed-dev
	@LMDECK_WIRE=$${LMDECK_WIRE:-all} $(BIN)/python -m pytest tests/transport/test_wire_matrix.py -s

# A batch killed at random moments, full size; in `make test` it is a sample.
batch-kills: $(VENV)/.installed-dev
	@LMDECK_BATCH_ROWS=$${LMDECK_BATCH_ROWS:-10000} LMDECK_BATCH_KILLS=$${LMDECK_BATCH_KILLS:-20} \
		$(BIN)/python -m pytest tests/batch/test_batch_kills.py -s --timeout 1800

# With BENCH=--keep the figures go into benchmarks/results and the documents; BENCH='--keep --rounds 3' takes half of the time.
bench: .venv-bench/.installed openmp
	@.venv-bench/bin/python benchmarks/run.py --json bench.json --html bench.html $(BENCH)

# Recorded answers of LM Studio and of models, where the checkout has them beside it. Most of the time they wait: two run at once.
shared: $(VENV)/.installed-dev
	@if ! test -d $(SHARED)/checks; then echo "SKIPPED the shared checks: $(SHARED)/checks is not there"; \
	else $(MAKE) --no-print-directory --jobs=2 --output-sync=target shared-replays-dev shared-replays-kinds \
		shared-corpus-dev shared-corpus-kinds shared-corpus-fresh shared-corpus-negatives shared-reports; fi

# Each file with the share that must pass.
shared-replays-dev: SHARE := 0.99
shared-replays-kinds: SHARE := 1.0
shared-corpus-dev: SHARE := 0.995
shared-corpus-kinds shared-corpus-fresh: SHARE := 0.98
shared-corpus-negatives: SHARE := 1.0

shared-replays-%:
	@echo "replays $*"; $(BIN)/python $(SHARED)/checks/check_replays.py $(SHARED)/replays/$*.jsonl --min-pass $(SHARE)

shared-corpus-%:
	@echo "corpus $*"; $(BIN)/python $(SHARED)/checks/check_corpus.py $(SHARED)/corpus/$*.jsonl --min-firm $(SHARE) --show 5

shared-reports:
	@if test -f $(SHARED)/reports/run.py; then echo "public reports"; $(BIN)/python $(SHARED)/reports/run.py --min-pass 0.97; fi

format: $(VENV)/.installed-dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .venv-bench .venv-docs .fuzz.json site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "lmdeck needs Python 3.11 or newer: make PYTHON=python3.12 …"; exit 2; }
	@echo "Making $(VENV) …"
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 2; }
	@$(INSTALL) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed-demo: $(VENV)/.created pyproject.toml
	@echo "Installing lmdeck with its command line, its engine and openai-python, to compare (about 75 MB to download) …"
	@$(INSTALL) --editable '.[cli,engine,openai]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml
	@echo "Installing lmdeck and what its tests need (about 90 MB to download) …"
	@$(INSTALL) --editable '.[all]' --group dev
	@touch $@ $(VENV)/.installed-demo

# Debian's packages that some tests need; where they cannot be installed, those tests are skipped and say so.
SYSTEM_PACKAGES := chromium libgomp1 nginx-light php-cli php-curl postgresql prometheus redis-server systemd
APT := DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends $(SYSTEM_PACKAGES)
system-packages:
	@if test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null 2>&1; then \
		echo "SKIPPED system packages: install $(SYSTEM_PACKAGES) to run the tests that need them"; \
	elif dpkg --status $(SYSTEM_PACKAGES) >/dev/null 2>&1; then :; \
	else echo "Installing $(SYSTEM_PACKAGES) …"; \
		{ $(APT) || { apt-get update --quiet && $(APT); }; } >/dev/null 2>&1 || echo "They could not be installed: tests that need them are skipped"; fi

# The library of OpenMP, which the engine needs; most systems have it.
openmp:
	@if test "$$(uname)" != Linux || PATH="$$PATH:/sbin" ldconfig -p 2>/dev/null | grep -q 'libgomp\.so\.1'; then :; \
	elif test "$$(id -u)" = 0 && command -v apt-get >/dev/null 2>&1; then \
		echo "Installing libgomp1 …"; { apt-get install --yes --quiet libgomp1 || { apt-get update --quiet && apt-get install --yes --quiet libgomp1; }; } >/dev/null 2>&1; \
	else echo "The engine needs libgomp; on Debian and Ubuntu: apt-get install libgomp1"; fi

.venv-docs/.installed: pyproject.toml
	@$(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip --disable-pip-version-check --quiet install --upgrade 'pip>=25.1'
	@.venv-docs/bin/python -m pip --disable-pip-version-check --quiet install --editable '.[all]' --group docs
	@touch $@

.venv-bench/.installed: pyproject.toml
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip --disable-pip-version-check --quiet install --upgrade 'pip>=25.1'
	@.venv-bench/bin/python -m pip --disable-pip-version-check --quiet install --editable '.[cli,django,engine,fastapi,flask,testing]' --group bench
	@touch $@
