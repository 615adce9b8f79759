#!/bin/sh
# Has the functions of the stack STACK answer by versions that they had before: infra/rollback.sh API_FUNCTION
# BULK_FUNCTION, with VERSION and BULK_VERSION for others than the ones before those in use.
set -eu

in_use() {
    aws lambda get-alias --function-name "$1" --name live --query FunctionVersion --output text
}

resource() {
    aws cloudformation describe-stack-resources --stack-name "$STACK" --output text \
        --query "StackResources[?ResourceType=='$1'].PhysicalResourceId | [0] || ''"
}

deployments() {
    aws deploy list-deployments --application-name "$application" --deployment-group-name "$group" \
        --query "join(' ', deployments)" --output text --include-only-statuses $1
}

# A version that a deployment refused is still there, so that the number below is not always one that has answered:
# the deployment that led to the version in use knows where it came from.
version_before_deployment() {
    for deployment in $(deployments Succeeded); do
        led=$(aws deploy get-deployment --deployment-id "$deployment" \
            --query deploymentInfo.revision.string.content --output text)
        case $led in
            *'"TargetVersion":"'"$1"'"'*)
                led=${led#*'"CurrentVersion":"'}
                echo "${led%%\"*}"
                return ;;
        esac
    done
}

# What classifies uploads only ever gets versions that the API has answered by.
version_below() {
    below=
    for version in $(aws lambda list-versions-by-function --function-name "$1" \
        --query "join(' ', Versions[].Version)" --output text); do
        case $version in *[!0-9]*) continue ;; esac
        if [ "$version" -lt "$2" ] && [ "$version" -gt "${below:-0}" ]; then
            below=$version
        fi
    done
    echo "$below"
}

lead_to() {
    aws lambda update-alias --function-name "$1" --name live --function-version "$3" \
        --routing-config 'AdditionalVersionWeights={}' >/dev/null
    echo "$1: version $3 answers in place of $2."
}

api=$1 bulk=$2
application=$(resource AWS::CodeDeploy::Application)
group=$(resource AWS::CodeDeploy::DeploymentGroup)
under_way=$(deployments "Created Queued InProgress Ready")
if [ -n "$under_way" ]; then
    for deployment in $under_way; do
        aws deploy stop-deployment --deployment-id "$deployment" --auto-rollback-enabled >/dev/null
    done
    echo "A release was under way and is stopped; the version before it answers again. Uploads never met the new one."
    exit 0
fi

api_now=$(in_use "$api") bulk_now=$(in_use "$bulk")
api_before=${VERSION:-$(version_before_deployment "$api_now")}
bulk_before=${BULK_VERSION:-$(version_below "$bulk" "$bulk_now")}
if [ -z "$api_before" ]; then
    echo "No deployment led to version $api_now of $api, so that it is not known what answered before. Choose one of" >&2
    aws lambda list-versions-by-function --function-name "$api" --output table \
        --query 'Versions[].[Version, LastModified]' >&2
    echo "by VERSION=..." >&2
    exit 1
fi
lead_to "$api" "$api_now" "$api_before"
if [ -n "$bulk_before" ]; then
    lead_to "$bulk" "$bulk_now" "$bulk_before"
else
    echo "$bulk has no version before $bulk_now; it stays."
fi
