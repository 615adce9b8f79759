# Every verb, with its line of help; `make` alone lists them.
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
override export STACK := $(or $(value STACK),$(if $(ENV),litelens-$(ENV)))
override export ENV := $(value ENV)
override export VERSION := $(value VERSION)
override export BULK_VERSION := $(value BULK_VERSION)
override export FORCE := $(value FORCE)
export LITELENS_BUNDLE := $(BUNDLE)

RUN_ENV := .venv/.ready
DEV_ENV := .venv-dev/.ready
CHECK_ENV := .venv-check/.ready

.PHONY: help run local classify test lint check scan audit sbom bench cost load train deploy rollback logs tail redrive destroy site screenshots openapi lock clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

run: $(RUN_ENV) ## serve the API on http://127.0.0.1:8080 (PORT=8081 for another port, API_KEY=secret to ask for one)
	@.venv/bin/python -m local.gateway --port $(PORT)

local: $(DEV_ENV) ## serve the API and classify uploads, with an AWS of its own (PORT=8081, WORKERS=2)
	@.venv-dev/bin/python -m local --port $(PORT) --workers $(WORKERS)

classify: ## print the five best labels of a photo (IMAGE=photo.jpg)
	@test -n "$$IMAGE" || { echo "Which photo? make classify IMAGE=photo.jpg" >&2; exit 2; }
	@$(MAKE) --silent --no-print-directory $(RUN_ENV)
	@.venv/bin/python -m client classify -- "$$IMAGE"

test: $(DEV_ENV) ## run all tests (TESTS=tests/unit for some)
	.venv-dev/bin/python -m pytest $(TESTS)

lint: $(DEV_ENV) ## check style and types (those of the page need npx, which comes with Node)
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/mypy
	npx --yes --package $(TYPESCRIPT) -- tsc $(TYPESCRIPT_OPTIONS) web/main.js
	npx --yes $(PRETTIER) --print-width 120 --check "web/*.{html,css,js}" "web/views/*"

TYPESCRIPT := typescript@7.0.2
TYPESCRIPT_OPTIONS := --allowJs --checkJs --strict --noEmit --skipLibCheck --target es2024 \
	--lib es2024,dom,dom.iterable --module esnext --moduleResolution bundler
PRETTIER := prettier@3.10.1

check: lint scan audit ## run all that needs no test: lint, scan and audit

scan: $(DEV_ENV) $(CHECK_ENV) ## look for faults in templates, workflows and code that tools know, and for secrets
	for template in template.yaml infra/*.yaml; do \
		SAM_CLI_TELEMETRY=0 .venv-dev/bin/sam validate --lint --region us-east-1 --template "$$template" || exit 1; done
	.venv-check/bin/checkov
	.venv-check/bin/bandit --quiet --configfile pyproject.toml --recursive lambda client local training .ci
	.venv-check/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.venv-check/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	.venv-check/bin/zizmor --offline --quiet .github

audit: $(CHECK_ENV) ## look up the locked packages among the known vulnerabilities (needs PyPI's service for that)
	for locked in $(LOCKED); do \
		.venv-check/bin/pip-audit --strict --disable-pip --require-hashes --requirement "$$locked" || exit 1; done

LOCKED := lambda/requirements-litert.txt lambda/requirements-openvino.txt requirements-local.txt requirements-dev.txt \
	requirements-check.txt

sbom: $(CHECK_ENV) ## list what the image for x86_64 installs in build/sbom.json (ENGINE=openvino for the other engine)
	@.venv-check/bin/python .ci/sbom.py $(ENGINE) build/sbom.json

bench: $(DEV_ENV) ## measure speed, accuracy, starts and memory beside what else there is (ARGS="--only contest" for some)
	@.venv-dev/bin/python -m benchmarks $(ARGS)

cost: $(DEV_ENV) ## tell what a million images cost and what bursts do, by what was measured; renews the pages' tables
	@.venv-dev/bin/python -m benchmarks.cost --write README.md docs/costs.md
	@.venv-dev/bin/python -m benchmarks.bursts --write docs/scale.md

load: $(DEV_ENV) ## time the answers to requests at a rate (RATE=5,10,20 SECONDS=30, ARGS="--url ..." for a deployed API)
	@.venv-dev/bin/python -m benchmarks.load --rates $(RATE) --seconds $(SECONDS) $(ARGS)

train: $(DEV_ENV) ## make a bundle of your own photos (DATA=photos NAME=pets; PRESET=cifar100 for another recipe)
	@.venv-dev/bin/python -m training all $(PRESET) $${DATA:+--data "$$DATA"} $${NAME:+--name "$$NAME"} $(ARGS)

deploy: ## build and deploy a stack as samconfig.toml says (ENV=dev or ENV=prod)
	@$(call need_environment,deploy)
	sam build --config-env "$$ENV"
	sam deploy --config-env "$$ENV" $(ARGS)

rollback: ## answer by the versions before those in use (ENV=prod; VERSION=7 BULK_VERSION=5 for others)
	@$(call need_stack,rollback)
	@$(call read_output,ApiFunctionName,is it one of litelens?) && \
	$(call read_output,BulkFunctionName,is it one of litelens?) && \
	infra/rollback.sh "$$ApiFunctionName" "$$BulkFunctionName"

logs: ## print what the functions logged (ENV=prod SINCE=1h)
	@$(call need_stack,logs)
	@$(call read_logs) && \
	aws logs tail "$$ApiLogsName" --since "$(SINCE)" --format short && \
	aws logs tail "$$BulkLogsName" --since "$(SINCE)" --format short

tail: ## print what the functions log, as it comes (ENV=prod)
	@$(call need_stack,tail)
	@$(call read_logs) && \
	{ aws logs tail "$$ApiLogsName" --follow --format short & aws logs tail "$$BulkLogsName" --follow --format short; wait; }

redrive: ## send uploads that failed three times back to the queue (ENV=prod)
	@$(call need_stack,redrive)
	@$(call read_output,ImagesDeadLettersArn,is it one of litelens?) && \
	aws sqs start-message-move-task --source-arn "$$ImagesDeadLettersArn" >/dev/null && \
	echo "The uploads that failed are on their way back to the queue."

destroy: ## delete a stack, once its bucket is empty or with FORCE=1 (ENV=dev)
	@$(call need_environment,destroy)
	@$(call need_stack,destroy)
	@$(call read_output,UploadBucketName,is it one of litelens?) && infra/destroy.sh "$$UploadBucketName"

site: ## put the page in web/ where a stack serves it (ENV=prod)
	@$(call need_stack,site)
	@test -f web/index.html || { echo "There is no page to put anywhere; web/index.html is missing." >&2; exit 2; }
	@$(call read_output,SiteBucketName,is it one of litelens with Page=true?) && \
	$(call read_output,SiteDistributionId,is it one of litelens with Page=true?) && \
	$(call read_output,PageUrl,is it one of litelens with Page=true?) && \
	aws s3 cp web "s3://$$SiteBucketName" --recursive --cache-control no-cache && \
	aws s3 sync web "s3://$$SiteBucketName" --delete && \
	aws cloudfront create-invalidation --distribution-id "$$SiteDistributionId" --paths '/*' >/dev/null && \
	echo "The page is at $$PageUrl"

define need_environment
test -n "$$ENV" || { echo "Which environment of samconfig.toml? make $(1) ENV=dev" >&2; exit 2; }
grep -q "^\[$$ENV\." samconfig.toml || { echo "samconfig.toml has no environment $$ENV; add one, or choose another" >&2; exit 2; }
command -v sam >/dev/null || { echo "make $(1) needs the SAM CLI, the command sam; install it first" >&2; exit 2; }
endef

define read_logs
$(call read_output,ApiLogsName,is it one of litelens?) && $(call read_output,BulkLogsName,is it one of litelens?)
endef

define need_stack
test -n "$$STACK" || { echo "Which stack? make $(1) ENV=prod, or STACK=litelens" >&2; exit 2; }
command -v aws >/dev/null || { echo "make $(1) needs the AWS CLI, the command aws; install it first" >&2; exit 2; }
endef

# An output of the stack, as the shell's variable of the same name.
define read_output
$(1)=$$(aws cloudformation describe-stacks --stack-name "$$STACK" --output text \
	--query "Stacks[0].Outputs[?OutputKey=='$(1)'].OutputValue | [0] || ''") && \
{ test -n "$$$(1)" || { echo "The stack $$STACK has no output $(1); $(2)" >&2; exit 2; }; }
endef

screenshots: $(DEV_ENV) ## take pictures of the page into docs/screenshots (needs Chromium)
	@.venv-dev/bin/python tests/screenshots.py

openapi: $(DEV_ENV) ## write the API's description to docs/openapi.json
	@.venv-dev/bin/python -m handlers.openapi > docs/openapi.json

lock: $(DEV_ENV) ## resolve pyproject.toml into the hash-locked requirements files
	.venv-dev/bin/uv pip compile $(LOCK) --all-extras --output-file requirements-dev.txt
	.venv-dev/bin/uv pip compile $(LOCK) --constraint requirements-dev.txt --extra local --extra litert --output-file requirements-local.txt
	.venv-dev/bin/uv pip compile $(LOCK_OPTIONS) --group check --output-file requirements-check.txt
	for engine in litert openvino; do .venv-dev/bin/uv pip compile $(LOCK) --constraint requirements-dev.txt \
		--extra $$engine --output-file lambda/requirements-$$engine.txt; done

LOCK_OPTIONS := --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make lock"
LOCK := pyproject.toml $(LOCK_OPTIONS)

clean: ## remove the environments and caches
	rm -rf .venv .venv-dev .venv-check .aws-sam build .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(RUN_ENV): requirements-local.txt
	@$(call create_environment,.venv,requirements-local.txt)
	@touch $@

$(DEV_ENV): requirements-dev.txt
	@$(call create_environment,.venv-dev,requirements-dev.txt)
	@touch $@

$(CHECK_ENV): requirements-check.txt
	@$(call create_environment,.venv-check,requirements-check.txt)
	@touch $@

define create_environment
$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
	"litelens needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d; choose one: make PYTHON=python3.13 ..." % sys.version_info[:2])'
echo "Installing $(2) into $(1), once ..."
$(PYTHON) -m venv --clear $(1)
$(1)/bin/python -m pip install --disable-pip-version-check --no-deps --only-binary :all: --require-hashes --requirement $(2) --quiet --progress-bar on
$(1)/bin/python -c 'import pathlib, sysconfig; here = pathlib.Path.cwd(); \
	pathlib.Path(sysconfig.get_path("purelib"), "litelens.pth").write_text(f"{here}\n{here}/lambda\n")'
$(1)/bin/python -c 'import pathlib, shlex, sys; launcher = pathlib.Path("$(1)/bin/litelens"); \
	launcher.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m client \"$$@\"\n"); launcher.chmod(0o755)'
endef
