#!/bin/sh
# Move the aliases of the stack STACK back to the previous versions: infra/rollback.sh API_FUNCTION BULK_FUNCTION
# Set VERSION and BULK_VERSION to choose other versions. A release in progress is stopped instead.
set -eu

live_version() {
    aws lambda get-alias --function-name "$1" --name live --query FunctionVersion --output text
}

stack_resource() {
    aws cloudformation describe-stack-resources --stack-name "$STACK" --output text \
        --query "StackResources[?ResourceType=='$1'].PhysicalResourceId | [0] || ''"
}

deployments() {
    aws deploy list-deployments --application-name "$application" --deployment-group-name "$group" \
        --query "join(' ', deployments)" --output text --include-only-statuses $1
}

# The next lower number may be a version that a deployment refused. The deployment that led to the live version says which
# version was live before.
version_before_deployment() {
    for deployment in $(deployments Succeeded); do
        appspec=$(aws deploy get-deployment --deployment-id "$deployment" \
            --query deploymentInfo.revision.string.content --output text)
        case $appspec in
            *'"TargetVersion":"'"$1"'"'*)
                appspec=${appspec#*'"CurrentVersion":"'}
                echo "${appspec%%\"*}"
                return ;;
        esac
    done
}

# The bulk function never gets a refused version, so its previous version is the next lower number.
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

move_alias() {
    aws lambda update-alias --function-name "$1" --name live --function-version "$3" \
        --routing-config 'AdditionalVersionWeights={}' >/dev/null
    echo "$1: moved from version $2 to version $3."
}

api=$1 bulk=$2
application=$(stack_resource AWS::CodeDeploy::Application)
group=$(stack_resource AWS::CodeDeploy::DeploymentGroup)
in_progress=$(deployments "Created Queued InProgress Ready")
if [ -n "$in_progress" ]; then
    for deployment in $in_progress; do
        aws deploy stop-deployment --deployment-id "$deployment" --auto-rollback-enabled >/dev/null
    done
    echo "A release was in progress and is being stopped; the previous version gets all requests again. Uploads never reached the new one."
    exit 0
fi

api_now=$(live_version "$api") bulk_now=$(live_version "$bulk")
api_before=${VERSION:-$(version_before_deployment "$api_now")}
bulk_before=${BULK_VERSION:-$(version_below "$bulk" "$bulk_now")}
if [ -z "$api_before" ]; then
    echo "No deployment led to version $api_now of $api, so its previous version is unknown. Choose one of these" >&2
    aws lambda list-versions-by-function --function-name "$api" --output table \
        --query 'Versions[].[Version, LastModified]' >&2
    echo "and run make rollback again with VERSION=..." >&2
    exit 1
fi
move_alias "$api" "$api_now" "$api_before"
if [ -n "$bulk_before" ]; then
    move_alias "$bulk" "$bulk_now" "$bulk_before"
else
    echo "$bulk has no version before $bulk_now and stays at it."
fi
