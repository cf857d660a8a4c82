# Every target sets itself up in .venv: `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --editable . --group check
	touch $@

demo: $(VENV)/.ready ## the main job: a run against the built-in sink
	$(BIN)/smtpbench demo

test: $(VENV)/.ready ## all tests, two at a time; real servers where they are installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(VENV)/.ready ## types, lint and layers
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

docs: $(VENV)/.ready ## the documentation, in site/index.html; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.ready ## CPU time of a message, compared with smtp-source and smtp-sink
	$(BIN)/python -m bench.bench $(BENCH)

truth: $(VENV)/.ready ## latencies compared with a packet capture, as root; three minutes
	$(BIN)/python -m bench.truth $(BENCH)

capacitybench: $(VENV)/.ready ## error of `smtpbench capacity` on a server with a known limit
	$(BIN)/python -m bench.capacity $(BENCH)

fuzzbench: $(VENV)/.ready ## cases a second of `smtpbench fuzz`, compared with boofuzz
	test -x $(VENV)-boofuzz/bin/boo || { $(PYTHON) -m venv $(VENV)-boofuzz && $(VENV)-boofuzz/bin/pip install --quiet boofuzz==0.4.2; }
	$(BIN)/python -m bench.fuzzing --python $(abspath $(VENV)-boofuzz/bin/python) $(BENCH)

comparebench: $(VENV)/.ready ## false positives and negatives of `smtpbench compare`
	$(BIN)/python -m bench.compare $(BENCH)

published: $(VENV)/.ready ## published comparisons and bugs again, as root; about half an hour
	$(BIN)/python -m bench.published.publish $(PUBLISH)

startbench: $(VENV)/.ready ## start time of `smtpbench --help` and of completion
	$(BIN)/python bench/start.py $(BENCH)

reportbench: $(VENV)/.ready ## CPU time and size of the HTML report of a long run
	PYTHONPATH=tests $(BIN)/python -m bench.report

docs-output: $(VENV)/.ready ## output shown in README.md and docs/ anew, on an idle machine; PAGES=… for some pages
	$(BIN)/python -m docs_tools $(PAGES)

docs-screenshot: $(VENV)/.ready ## docs/assets/report.png from a run, with chromium
	$(BIN)/python -m docs_tools.screenshot

.PHONY: docs-output docs-screenshot

clean: ## forget the virtual environment and every cache
	rm -rf $(VENV) $(VENV)-boofuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis site

.PHONY: help demo test check docs bench truth capacitybench fuzzbench comparebench startbench reportbench published clean
