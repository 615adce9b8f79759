#!/bin/sh
# Deploy the environment ENV in samconfig.toml as the stack STACK: infra/deploy.sh [OPTION OF SAM DEPLOY ...]
set -eu

# Print a value of a stack: describe STACK QUERY
describe() {
    aws cloudformation describe-stacks --stack-name "$1" --output text --query "Stacks[0].$2"
}

# Print the names of the change sets that wait for their execution.
open_change_sets() {
    aws cloudformation list-change-sets --stack-name "$STACK" --output text \
        --query "join(' ', sort(Summaries[?ExecutionStatus=='AVAILABLE'].ChangeSetName))"
}

# The policies keep updates from replacing or deleting tables, buckets and queues, or the nested stack Storage, which owns
# all but the page's bucket. CloudFormation does not pass a stack's policy on to nested stacks.
set_stack_policies() {
    aws cloudformation set-stack-policy --stack-name "$STACK" --stack-policy-body file://infra/stack-policy.json
    nested=$(aws cloudformation list-stack-resources --stack-name "$STACK" --output text --query \
        "StackResourceSummaries[?LogicalResourceId=='Storage' || LogicalResourceId=='Site'].PhysicalResourceId")
    for each in $nested; do
        aws cloudformation set-stack-policy --stack-name "$each" --stack-policy-body file://infra/nested-stack-policy.json
    done
}

set_termination_protection() {
    protects=$(describe "$STACK" "Parameters[?ParameterKey=='ProtectData'].ParameterValue | [0]")
    if [ "$protects" = true ]; then protection=--enable-termination-protection
    else protection=--no-enable-termination-protection
    fi
    aws cloudformation update-termination-protection --stack-name "$STACK" "$protection" >/dev/null
}

infra/show_target.sh
aws cloudformation deploy --stack-name "$STACK-images" --template-file infra/images.yaml --no-fail-on-empty-changeset \
    --tags application=litelens "environment=$ENV" >/dev/null
repository=$(describe "$STACK-images" "Outputs[?OutputKey=='RepositoryUri'].OutputValue | [0]")
sam build --config-env "$ENV"
# A new stack has no change sets; the call after the deployment reports any other error.
open_before=$(open_change_sets 2>/dev/null) || open_before=
# Without changes, the next steps may still have something to do.
sam deploy --config-env "$ENV" --stack-name "$STACK" --image-repository "$repository" --no-fail-on-empty-changeset "$@"

# Without a confirmation of the changes, sam leaves their change set and reports success. CloudFormation removes all
# change sets of a stack when it executes one.
open_now=$(open_change_sets)
if [ -n "$open_now" ] && [ "$open_now" != "$open_before" ]; then
    echo "The stack $STACK was not changed, because its changes were not confirmed. Deploy again, or, if the stack is new, delete it with make destroy ENV=$ENV." >&2
    exit 1
fi
set_stack_policies
set_termination_protection
