# Each target has a line of help; `make` without arguments lists them.
PYTHON ?= python3
PORT ?= 8080
PRESET ?= folder
ENGINE ?= litert
BUNDLE ?= models/everyday
TESTS ?= tests
WORKERS ?= 1
RATE ?= 10
SECONDS ?= 30
SINCE ?= 1h

override export IMAGE := $(value IMAGE)
override export DATA := $(value DATA)
override export NAME := $(value NAME)
override export API_KEY := $(value API_KEY)
override export STACK := $(value STACK)
override export ENV := $(value ENV)
override export REGION := $(value REGION)
override export VERSION := $(value VERSION)
override export BULK_VERSION := $(value BULK_VERSION)
override export FORCE := $(value FORCE)
export LITELENS_BUNDLE := $(BUNDLE)

# The folder of this file, also with `make --file`.
HERE := $(dir $(lastword $(MAKEFILE_LIST)))

RUN_ENV := .venv/.ready
DEV_ENV := .venv-dev/.ready
TRAIN_ENV := .venv-train/.ready
CHECK_ENV := .venv-check/.ready
UV := .venv-dev/bin/uv

.PHONY: help run local classify test lint check scan audit sbom bench cost load train deploy smoke rollback logs tail redrive destroy site screenshots openapi lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

run: $(RUN_ENV) ## serve the models in models/ and the page on http://127.0.0.1:8080 (PORT=8081 API_KEY=secret BUNDLE=models/NAME ARGS=--log-json)
	@.venv/bin/litelens serve --port $(PORT) $(ARGS)

local: $(DEV_ENV) ## serve the API and classify uploads with a local AWS emulator (PORT=8081 WORKERS=2)
	@.venv-dev/bin/python -m local --port $(PORT) --workers $(WORKERS)

classify: ## print the five best labels of a photo (IMAGE=photo.jpg)
	@test -n "$$IMAGE" || { echo "Which photo? make classify IMAGE=photo.jpg" >&2; exit 2; }
	@$(MAKE) --silent --no-print-directory $(RUN_ENV)
	@.venv/bin/litelens classify -- "$$IMAGE"

# Tests of training need TensorFlow, which only .venv-train has. Each `test::` rule runs one part; without --keep-going,
# make stops at the first part that fails.
ifeq ($(patsubst %/,%,$(TESTS)),tests)
UNIT_TESTS := tests/unit
TRAINING_TESTS := tests/training
OTHER_TESTS := tests --ignore=tests/unit --ignore=tests/training
else
UNIT_TESTS := $(filter tests/unit%,$(TESTS))
TRAINING_TESTS := $(filter tests/training%,$(TESTS))
OTHER_TESTS := $(filter-out tests/unit% tests/training%,$(TESTS))
endif
# In CI, all unit tests together must reach the coverage in pyproject.toml.
COVERAGE := $(if $(filter true,$(CI)),$(if $(filter tests/unit tests/unit/,$(UNIT_TESTS)),--cov))

test:: $(if $(UNIT_TESTS),$(DEV_ENV)) ## run all tests (TESTS=tests/unit for some, ARGS="-k upload" for pytest)
	$(if $(UNIT_TESTS),.venv-dev/bin/python -m pytest --numprocesses 2 --dist loadfile $(UNIT_TESTS) $(ARGS) $(COVERAGE))
test:: $(if $(OTHER_TESTS),$(DEV_ENV))
	$(if $(OTHER_TESTS),.venv-dev/bin/python -m pytest $(OTHER_TESTS) $(ARGS))
test:: $(if $(TRAINING_TESTS),$(TRAIN_ENV))
	$(if $(TRAINING_TESTS),.venv-train/bin/python -m pytest --numprocesses 2 --dist loadfile $(TRAINING_TESTS) $(ARGS))

lint: $(DEV_ENV) ## check style and types (the checks of web/ need npx, a part of Node.js)
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/mypy
	npx --yes --package $(TYPESCRIPT) -- tsc $(TYPESCRIPT_OPTIONS) web/main.js
	npx --yes $(PRETTIER) --print-width 120 --check "web/*.{html,css,js}" "web/views/*"

TYPESCRIPT := typescript@7.0.2
TYPESCRIPT_OPTIONS := --allowJs --checkJs --strict --noEmit --skipLibCheck --target es2024 \
	--lib es2024,dom,dom.iterable --module esnext --moduleResolution bundler
PRETTIER := prettier@3.10.1

check: lint scan audit ## run lint, scan and audit

scan: $(DEV_ENV) $(CHECK_ENV) ## scan templates, workflows and code for known problems and for secrets
	for template in template.yaml infra/*.yaml; do \
		SAM_CLI_TELEMETRY=0 .venv-dev/bin/sam validate --lint --region us-east-1 --template "$$template" || exit 1; done
	.venv-check/bin/checkov
	.venv-check/bin/bandit --quiet --configfile pyproject.toml --recursive lambda client infra local training .ci
	.venv-check/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.venv-check/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	.venv-check/bin/zizmor --offline --quiet .github

# The other lock files are subsets of requirements/train.txt.
audit: $(CHECK_ENV) ## check the locked packages for known vulnerabilities (needs PyPI's vulnerability service)
	for lock in train check; do .venv-check/bin/pip-audit --strict --disable-pip --require-hashes \
		--requirement "requirements/$$lock.txt" || exit 1; done

sbom: $(CHECK_ENV) ## write the image's software bill of materials to build/sbom.json (ENGINE=openvino for the other engine)
	@.venv-check/bin/python .ci/sbom.py $(ENGINE) build/sbom.json

bench: $(TRAIN_ENV) ## benchmark against the alternatives (ARGS="--only peers" for one part, BUNDLE=models/NAME for your own)
	@.venv-train/bin/python -m benchmarks $(ARGS)

cost: $(DEV_ENV) ## estimate the costs and update the tables in the README and docs (ARGS=--json only prints)
	@.venv-dev/bin/python -m benchmarks.cost $(or $(ARGS),$(if $(filter models/everyday,$(BUNDLE)),--write README.md docs/costs.md docs/scale.md))

load: $(DEV_ENV) ## measure response times of a running API (RATE=5,10,20 SECONDS=30 ARGS="--url https://...")
	@.venv-dev/bin/python -m benchmarks.load --rates $(RATE) --seconds $(SECONDS) $(ARGS)

train: $(TRAIN_ENV) ## train a bundle from your photos (DATA=photos NAME=pets; PRESET=cifar100 for another preset)
	@.venv-train/bin/python -m training all $(PRESET) $${DATA:+--data "$$DATA"} $${NAME:+--name "$$NAME"} $(ARGS)

deploy: ## build, deploy and test a stack with the settings in samconfig.toml (ENV=dev or ENV=prod)
	@$(call use_stack,deploy) && $(call need_sam,deploy)
	@$(MAKE) --silent --no-print-directory $(RUN_ENV)
	@$(call use_stack,deploy) && infra/deploy.sh $(ARGS) && { $(SMOKE_TEST) || { \
		echo "The stack $$STACK is deployed, but it failed the smoke test." >&2; exit 1; }; }

smoke: ## classify a golden image through a stack's URL and through its bucket (ENV=prod)
	@$(call use_stack,smoke)
	@$(MAKE) --silent --no-print-directory $(RUN_ENV)
	@$(call use_stack,smoke) && $(SMOKE_TEST)

rollback: ## switch a stack back to its previous versions (ENV=prod; VERSION=7 BULK_VERSION=5 for others)
	@$(call use_stack,rollback) && infra/show_target.sh && \
	$(call read_output,ApiFunctionName,is it a litelens stack?) && \
	$(call read_output,BulkFunctionName,is it a litelens stack?) && \
	infra/rollback.sh "$$ApiFunctionName" "$$BulkFunctionName"

logs: ## print the functions' logs (ENV=prod SINCE=1h)
	@$(call use_stack,logs) && $(call read_logs) && \
	aws logs tail "$$ApiLogsName" --since "$(SINCE)" --format short && \
	aws logs tail "$$BulkLogsName" --since "$(SINCE)" --format short

tail: ## follow the functions' logs (ENV=prod)
	@$(call use_stack,tail) && $(call read_logs) && \
	{ aws logs tail "$$ApiLogsName" --follow --format short & aws logs tail "$$BulkLogsName" --follow --format short; wait; }

redrive: ## send uploads that failed three times back to the queue (ENV=prod)
	@$(call use_stack,redrive) && $(call read_output,ImagesDeadLettersArn,is it a litelens stack?) && \
	aws sqs start-message-move-task --source-arn "$$ImagesDeadLettersArn" >/dev/null && \
	echo "The messages of failed uploads are being moved back to the queue."

destroy: ## delete a stack, after asking for its name; with FORCE=1 without asking, and with all images (ENV=dev)
	@$(call use_stack,destroy) && $(call need_sam,destroy) && infra/destroy.sh

site: ## upload the page in web/ to a stack (ENV=prod)
	@$(call use_stack,site)
	@PYTHONPATH="$(HERE)client" $(PYTHON) -m litelens_client.page web build/site
	@$(call use_stack,site) && $(call read_output,SiteBucketName,is it a litelens stack with Page=true?) && \
	$(call read_output,PageUrl,is it a litelens stack with Page=true?) && \
	version=$$(cd build/site && echo v-*) && \
	aws s3 cp "build/site/$$version" "s3://$$SiteBucketName/$$version" --recursive \
		--cache-control "public, max-age=31536000, immutable" && \
	aws s3 cp build/site "s3://$$SiteBucketName" --recursive --exclude "v-*" --cache-control no-cache && \
	echo "The page is at $$PageUrl"

# Export the stack and its region to the other commands of the line.
define use_stack
{ command -v aws >/dev/null || { echo "make $(1) needs the AWS CLI, the command aws; install it first" >&2; exit 2; }; } && \
target=$$($(PYTHON) $(HERE)infra/target.py $(1)) && eval "$$target"
endef

define need_sam
{ command -v sam >/dev/null || { echo "make $(1) needs the SAM CLI, the command sam; install it first" >&2; exit 2; }; }
endef

SMOKE_TEST = $(dir $(RUN_ENV))bin/python infra/smoke.py

define read_logs
$(call read_output,ApiLogsName,is it a litelens stack?) && $(call read_output,BulkLogsName,is it a litelens stack?)
endef

# Set a shell variable to the stack's output of the same name.
define read_output
$(1)=$$(aws cloudformation describe-stacks --stack-name "$$STACK" --output text \
	--query "Stacks[0].Outputs[?OutputKey=='$(1)'].OutputValue | [0] || ''") && \
{ test -n "$$$(1)" || { echo "The stack $$STACK has no output $(1); $(2)" >&2; exit 2; }; }
endef

screenshots: $(DEV_ENV) ## take screenshots of the page for docs/screenshots (needs Chromium)
	@.venv-dev/bin/python tests/screenshots.py

openapi: $(DEV_ENV) ## write the API's OpenAPI description to lambda/litelens/api/openapi.json
	@.venv-dev/bin/python -m litelens.api.openapi > lambda/litelens/api/openapi.json

lock: $(DEV_ENV) ## resolve pyproject.toml into the lock files in requirements/
	$(COMPILE) pyproject.toml --all-extras $(foreach group,build test train bench,--group $(group)) \
		--output-file requirements/train.txt
	$(COMPILE_SUBSET) pyproject.toml --extra openvino --group build --group test --output-file requirements/dev.txt
	$(COMPILE_SUBSET) pyproject.toml --group build --output-file requirements/run.txt
	for engine in litert openvino; do \
		$(COMPILE_SUBSET) --group image-$$engine --output-file requirements/image-$$engine.txt || exit 1; done
	$(COMPILE) --group check --output-file requirements/check.txt

COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --only-binary :all: --generate-hashes --no-annotate \
	--custom-compile-command "make lock"
COMPILE_SUBSET := $(COMPILE) --constraint requirements/train.txt

clean: ## remove the environments and caches
	rm -rf .venv .venv-dev .venv-train .venv-check .aws-sam build .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

# A changed lock creates the environment again; changed metadata of litelens only installs litelens again.
.venv/.locked: requirements/run.txt
.venv-dev/.locked: requirements/dev.txt
.venv-train/.locked: requirements/train.txt
.venv-check/.locked: requirements/check.txt

%/.locked:
	@$(call create_environment,$*,$<)
	@touch $@

$(RUN_ENV) $(DEV_ENV) $(TRAIN_ENV): %/.ready: %/.locked pyproject.toml
	@$*/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable . --quiet
	@touch $@

# The tools of .venv-check do not import litelens.
$(CHECK_ENV): %/.ready: %/.locked
	@touch $@

define create_environment
$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
	"litelens needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d; choose one: make PYTHON=python3.13 ..." % sys.version_info[:2])'
echo "Installing $(2) into $(1), once ..."
$(PYTHON) -m venv --clear $(1)
$(1)/bin/python -m pip install --disable-pip-version-check --no-deps --only-binary :all: --require-hashes --requirement $(2) --quiet --progress-bar on
endef
