#!/bin/sh
# Delete the stack STACK (the environment ENV in samconfig.toml) and its buckets: infra/destroy.sh UPLOAD_BUCKET
# Refuses if the upload bucket has images or results, unless FORCE=1.
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
        echo "The bucket $bucket has images or results, such as $found." >&2
        echo "Nothing was deleted. Save what you need, then run make destroy ENV=$ENV FORCE=1." >&2
        exit 1
    fi
fi

# CloudFormation does not delete the buckets. The page's bucket contains only a copy of web/.
sam delete --config-env "$ENV" --stack-name "$STACK" --no-prompts
aws s3 rb "s3://$bucket" $force
if [ -n "$site" ]; then
    aws s3 rb "s3://$site" --force
fi
echo "The stack $STACK and its buckets are deleted."
