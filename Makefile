# Every command a person types. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# pyenv builds a Python without its optimisations unless told otherwise, and the service costs a fifth more with it. The
# system's is built with them, and taken instead if it is new enough and can make an environment.
PYTHON ?= $(shell if python3 -c 'import sysconfig as s; assert "--enable-optimizations" in s.get_config_var("CONFIG_ARGS")' 2> /dev/null; \
  then echo python3; elif /usr/bin/python3 -c 'import ensurepip, sys; assert sys.version_info >= (3, 11)' 2> /dev/null; \
  then echo /usr/bin/python3; else echo python3; fi)
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## List the commands
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[1m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# An .egg-info left in the checkout is found before the installed entry points, and is older.
define install_checkout
$(1)/pip install -qq --no-deps --no-build-isolation --editable . && rm -rf *.egg-info
endef

# One virtual environment; each stamp is newer than the lock file it installed. The lock files are complete: left to
# resolve them again, pip prefers the newest pydantic for `pydantic[email]`, then refuses it for its hash.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version); try: make PYTHON=python3.12"; exit 1; }
	@echo "==> creating the virtual environment .venv with $(PYTHON), $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

.venv/%.stamp: requirements/%.txt setup.cfg | .venv/bin/python
	@echo "==> installing requirements/$*.txt (locked, with hashes)"
	@$(BIN)/pip install -qq --no-deps --require-hashes -r requirements/$*.txt
	@$(call install_checkout,$(BIN))
	@touch $@

# The longer lock files hold the shorter ones, so a larger environment serves for the smaller need.
RUN := $(or $(wildcard .venv/dev.stamp),$(wildcard .venv/test.stamp),.venv/run.stamp)
TEST := $(or $(wildcard .venv/dev.stamp),.venv/test.stamp)
DEV := .venv/dev.stamp

.PHONY: run
run: $(RUN) ## Start the service on 127.0.0.1:8000 with database and demo data; Ctrl-C stops all
	@test -n "$$DATABASE_URL" || { echo "==> database and demo data"; \
	  PATH=$(CURDIR)/$(BIN):$$PATH python -m pake.embedded --folder "$${INSTANCE_PATH:-instance}/postgres" run \
	    sh -c 'flask db upgrade && flask pake demo-data'; }
	@exec $(BIN)/gunicorn

.PHONY: profile-memory
profile-memory: $(RUN) ## Does the running service leak, and where? (ARGS='--duration 60s --url 127.0.0.1:8000')
	@$(BIN)/python -m profilers memory $(ARGS)

.PHONY: memray-run memray-flamegraph memray-stats
memray-run: $(RUN) ## Start the service with every allocation tracked in each worker; Ctrl-C stops all
memray-flamegraph: $(RUN) ## What the workers held at their peak, as one flame graph
memray-stats: $(RUN) ## Sizes, allocators and the largest places, over all workers
memray-run memray-flamegraph memray-stats: memray-%:
	@$(BIN)/python -m profilers memray $* $(ARGS)

SCENARIOS := smoke normal peak stress endurance sessions mobile
.PHONY: $(SCENARIOS:%=perf-%)
perf-smoke: ## Drive the service with 10 users for a minute: a table, a verdict, reports/smoke/
perf-normal: ## 100 users, 10 minutes (USERS=20 RUN_TIME=2m make it smaller; WORKERS=4 Locust processes; HOST= ACCOUNTS=)
perf-peak: ## 500 users, 5 minutes
perf-stress: ## 1000 users, 3 minutes
perf-endurance: ## 50 users, 30 minutes
perf-sessions: ## 100 users who stay signed in, a token's life in each pause of 2 seconds, 5 minutes
perf-mobile: ## 100 phones on slow networks that break, 5 minutes
$(SCENARIOS:%=perf-%): perf-%: $(RUN)
	@$(BIN)/python -m locustfiles $* $(if $(USERS),--users $(USERS)) $(if $(RUN_TIME),--run-time $(RUN_TIME)) \
	  $(if $(ARRIVALS),--arrivals $(ARRIVALS)) $(if $(WORKERS),--workers $(WORKERS)) $(if $(HOST),--host $(HOST)) $(if $(ACCOUNTS),--accounts $(ACCOUNTS)) $(ARGS)

.PHONY: perf-trend
perf-trend: $(RUN) ## Draw the history of all runs, reports/trend.html, and say from which run on a figure was another
	@$(BIN)/python -m locustfiles.trend

.PHONY: perf-compare
perf-compare: $(RUN) ## Is this version slower than BASE=main, on which route, and by which line? (ARGS=--counts-only)
	@$(BIN)/python -m locustfiles.compare $(if $(BASE),--base $(BASE)) $(ARGS)

# The standard library is all that these need: no environment is made for them.
.PHONY: perf-gather perf-comment
perf-gather: ## Put the summaries of all runs in reports/ on one page, reports/summary.md
perf-comment: ## Post that page to a pull request, in place of the one before (in a workflow)
perf-gather perf-comment: perf-%:
	@$(PYTHON) -m locustfiles.publish $*

# Two more than there are cores: many tests wait for processes that they started.
TESTERS = $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 2)))

.PHONY: test
test: $(TEST) ## Run the whole test suite on real PostgreSQL
	@rm -rf *.egg-info
	@$(BIN)/python -m pytest -n $(TESTERS) $(ARGS)

.PHONY: test-metrics
test-metrics: $(TEST) ## /metrics over four workers, one of them killed, 50 of them replaced
	@METRICS_RECYCLES=50 $(BIN)/python -m pytest -q tests/pake/test_metrics.py -k recycles $(ARGS)

.PHONY: test-reloads
test-reloads: $(TEST) ## 100 reloads under load on kept connections, and not one failed request
	@RELOADS=100 $(BIN)/python -m pytest -q tests/faults/test_processes.py -k reloads $(ARGS)

.PHONY: test-faults
test-faults: $(TEST) ## Keep every promise of docs/guarantees.md, and print the table with a verdict for each
	@$(BIN)/python -m tests.faults.guarantees -n auto $(ARGS)

.PHONY: fuzz
fuzz: $(TEST) ## Hold the running service to its OpenAPI document with schemathesis, 10 minutes (RUN_TIME=60)
	@$(BIN)/python -m tests.fuzz $(or $(RUN_TIME),600)

.venv-bench/bench.stamp: requirements/bench.txt setup.cfg
	@echo "==> creating .venv-bench from requirements/bench.txt (locked, with hashes)"
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/pip install -qq --no-deps --require-hashes -r requirements/bench.txt
	@$(call install_checkout,.venv-bench/bin)
	@touch $@

.PHONY: bench-queries bench-history
bench-queries: $(RUN) ## The read side, lazy against eager: statements and time
bench-history: $(RUN) ## Routes with 1,000,000 health checks against 1,000: at most 1.2 times the time
bench-queries bench-history: bench-%:
	@$(BIN)/python -m benchmarks.bench_$* $(ARGS)

.PHONY: bench-routes bench-sign-in bench-login-flood
bench-routes: $(RUN) ## /protected beside bare Flask, the list of services beside raw psycopg2, under Gunicorn
bench-sign-in: $(RUN) ## Whether the time of a refused sign-in tells if the name has an account
bench-login-flood: $(RUN) ## /protected while 200 clients sign in at once, against calm
bench-routes bench-sign-in bench-login-flood: bench-%:
	@$(BIN)/python -m benchmarks.bench_$(subst -,_,$*) $(ARGS)

.PHONY: bench-console
bench-console: $(RUN) ## The console's pages over 100,000 requests, against an empty store
	@$(BIN)/python -m benchmarks.bench_console $(ARGS)

.PHONY: bench-overhead
bench-overhead: $(RUN) .venv-bench/bench.stamp ## What each profiler costs a request, others beside it (ARGS=--quick)
	@$(BIN)/python -m benchmarks.bench_overhead $(ARGS)

.PHONY: bench-compare
bench-compare: $(RUN) ## Is perf-compare right? Itself, and planted faults (ARGS='same --runs 5 --load'; cpu; counts; summary)
	@$(BIN)/python -m benchmarks.bench_compare $(or $(ARGS),summary)

.PHONY: bench-leaks
bench-leaks: $(TEST) ## Planted leaks and their healthy twins under Gunicorn, and what the verdict says (20 minutes)
	@$(BIN)/python -m tests.profilers.leaks.load $(ARGS)

# The profilers promise SQLAlchemy 2.0 as well: the same environment with its newest 2.0 on top.
.venv-sa20/test.stamp: requirements/test.txt setup.cfg
	@echo "==> creating .venv-sa20 with the newest SQLAlchemy 2.0"
	@$(PYTHON) -m venv .venv-sa20
	@.venv-sa20/bin/pip install -qq --no-deps --require-hashes -r requirements/test.txt
	@$(call install_checkout,.venv-sa20/bin)
	@.venv-sa20/bin/pip install -qq --no-deps 'sqlalchemy >= 2.0.50, < 2.1'
	@touch $@

# These ask SQLAlchemy nothing, and take a third of the time.
NOT_SQL := memory allocations leak_verdict find_a_leak no_growth

.PHONY: test-sqlalchemy20
test-sqlalchemy20: .venv-sa20/test.stamp ## Run the profilers' tests on the newest SQLAlchemy 2.0
	@.venv-sa20/bin/python -m pytest -n $(TESTERS) tests/profilers $(NOT_SQL:%=--ignore-glob='tests/profilers/test_%*') $(ARGS)

.PHONY: lint
lint: $(DEV) ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory lint-deploy

.PHONY: lint-deploy
lint-deploy: $(DEV) ## Check Dockerfile, Compose file and workflows
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.performance.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml
	@$(BIN)/zizmor --offline --quiet --pedantic .github/workflows

.PHONY: compose-secrets
compose-secrets: ## Make the passwords that docker-compose.performance.yml asks for, into .env.performance
	@test -e .env.performance || (umask 077; for name in POSTGRES_PASSWORD REDIS_PASSWORD GRAFANA_PASSWORD SECRET_KEY; do \
	  echo "$$name=$$($(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(48))')"; done > .env.performance)

.PHONY: docs
docs: $(TEST) ## Write docs/configuration.md from the settings, docs/guarantees.md from the tests
	@$(BIN)/python -c 'from pake.config import documentation; print(documentation(), end="")' \
	  > docs/configuration.md
	@$(BIN)/python -m tests.faults.guarantees page

.PHONY: dashboards
dashboards: $(RUN) ## Write the Grafana dashboards from monitoring/dashboards.py
	@$(BIN)/python monitoring/dashboards.py

.PHONY: test-rules
test-rules: ## Try each alert on its fault and on its healthy twin (needs promtool, of Debian's prometheus)
	@promtool test rules monitoring/prometheus/rules_test.yml

.PHONY: pictures
pictures: $(TEST) ## Make the pictures of the documentation (needs Chromium)
	@$(BIN)/python docs/pictures.py

.PHONY: lock
lock: $(DEV) ## Resolve the dependencies of setup.cfg into requirements/*.txt
	@$(BIN)/python requirements/lock.py

.PHONY: clean
clean: ## Remove the environment, reports and caches; the database under instance/ stays
	@rm -rf .venv .venv-* reports build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
