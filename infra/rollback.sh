#!/bin/sh
# Leads a function's alias `live` back: infra/rollback.sh FUNCTION [VERSION], without one to the version before.
set -eu

function=$1 wanted=${2:-}
current=$(aws lambda get-alias --function-name "$function" --name live --query FunctionVersion --output text)

# Numbers only ever grow, and a deployment that failed leaves its version behind, above the one in use.
if [ -z "$wanted" ]; then
    for version in $(aws lambda list-versions-by-function --function-name "$function" \
        --query 'Versions[].Version' --output text); do
        case $version in *[!0-9]*) continue ;; esac
        if [ "$version" -lt "$current" ] && [ "$version" -gt "${wanted:-0}" ]; then
            wanted=$version
        fi
    done
fi
if [ -z "$wanted" ]; then
    echo "$function has no version before $current, so that there is none to go back to." >&2
    exit 1
fi

# Without weights, which a deployment that is under way gives to its new version.
aws lambda update-alias --function-name "$function" --name live --function-version "$wanted" \
    --routing-config 'AdditionalVersionWeights={}' >/dev/null
echo "$function: version $wanted answers in place of $current."
