#!/bin/sh
# Print the account, the region and the stack that the next commands change. Fails if the account is unknown.
set -eu

account=$(aws sts get-caller-identity --query Account --output text) || {
    echo "The AWS account is unknown, so nothing was changed; set credentials as for the AWS CLI, for example with AWS_PROFILE." >&2
    exit 1
}
echo "Account $account, region $AWS_REGION, stack $STACK"
