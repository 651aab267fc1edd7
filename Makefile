PYTHON ?= python3
BIN := .venv/bin
RUNS ?= runs

.PHONY: demo test test-system lint bench tensorboard reproduce reproduce-table report mongo test-slurm

demo: .venv/installed  ## train DPSOM on the bundled digits and say where to look
	$(BIN)/python experiments/dpsom.py with digits tracking.runs_dir=$(RUNS)
	@folder=$$(ls -td $(RUNS)/dpsom/[0-9]* | head -n 1); \
	echo; echo "pictures:     $$folder/figures"; \
	echo "TensorBoard:  make tensorboard   (then open http://localhost:6006)"

test: .venv/installed-dev  ## everything that pip can install, on two cores
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not system and not slurm" tests

test-system: .venv/installed-dev  ## what needs Debian packages: installs them, then runs those tests
	scripts/install_system_packages.sh
	$(BIN)/python -m pytest -m system tests

test-slurm: .venv/installed-dev  ## a sweep on a real Slurm of two nodes, with kills and time limits; takes minutes
	scripts/install_system_packages.sh
	$(BIN)/python -m pytest -m slurm tests

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/installed  ## samples per second and memory by phase, fp32 and bf16
	$(BIN)/python scripts/benchmark.py

tensorboard: .venv/installed  ## browse all runs
	$(BIN)/tensorboard --logdir $(RUNS)

reproduce: .venv/installed  ## train what the tables still lack, then render all, even if a run has failed
	$(BIN)/python scripts/reproduce.py; status=$$?; \
	$(MAKE) reproduce-table && exit $$status

reproduce-table: .venv/installed  ## render the tables from the committed records
	$(BIN)/python scripts/tables.py
	$(MAKE) report

report: .venv/installed  ## one page of all results, results/report/index.html, and the README's pictures
	$(BIN)/python scripts/pictures.py
	$(BIN)/python scripts/report.py

mongo:  ## a MongoDB for the Mongo observer, and Omniboard to browse it on http://localhost:9000
	docker compose up -d

.venv/installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
