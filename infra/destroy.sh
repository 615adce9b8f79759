#!/bin/sh
# Deletes the stack STACK, which samconfig.toml has as ENV, and the bucket of its uploads: infra/destroy.sh BUCKET.
# Images and results in it are deleted with FORCE=1 only.
set -eu

bucket=$1
site=$(aws cloudformation describe-stacks --stack-name "$STACK" --output text \
    --query "Stacks[0].Outputs[?OutputKey=='SiteBucketName'].OutputValue | [0] || ''")
force=
if [ "${FORCE:-}" = 1 ]; then
    force=--force
else
    found=$(aws s3api list-objects-v2 --bucket "$bucket" --max-items 1 --query "Contents[0].Key || ''" --output text)
    if [ -n "$found" ]; then
        echo "The bucket $bucket has images or results, such as $found, which would be lost." >&2
        echo "Nothing was deleted. Save what you need; make destroy ENV=$ENV FORCE=1 deletes the rest." >&2
        exit 1
    fi
fi

# CloudFormation leaves the buckets behind. The page's has nothing but a copy of web/.
sam delete --config-env "$ENV" --stack-name "$STACK" --no-prompts
aws s3 rb "s3://$bucket" $force
if [ -n "$site" ]; then
    aws s3 rb "s3://$site" --force
fi
echo "The stack $STACK is gone, and its buckets with it."
