#!/bin/sh
# Delete the stack STACK (the environment ENV in samconfig.toml), its buckets and its images: infra/destroy.sh
# Asks for the stack's name, and refuses if a bucket has images or results. With FORCE=1, it does neither.
set -eu

# Fail with sentences: refuse SENTENCE ...
refuse() {
    printf '%s\n' "$@" >&2
    exit 1
}

# Print a value of a stack, or nothing if the stack does not exist: describe STACK QUERY
describe() {
    if value=$(aws cloudformation describe-stacks --stack-name "$1" --output text --query "Stacks[0].$2" 2>/dev/null); then
        echo "$value"
        return
    fi
    error=$(aws cloudformation describe-stacks --stack-name "$1" 2>&1 >/dev/null) || true
    case $error in
        *"does not exist"*) ;;
        *) refuse "${error:-The stack $1 could not be read; try again.}" "Nothing was deleted." ;;
    esac
}

# Print the ids of the existing resources of a type in the stack $1: find_resources STACK TYPE
find_resources() {
    aws cloudformation list-stack-resources --stack-name "$1" --output text --query \
        "StackResourceSummaries[?ResourceType=='$2' && ResourceStatus!='DELETE_COMPLETE' && PhysicalResourceId].PhysicalResourceId"
}

# Set `buckets`, `site_buckets` and `tables`. A stack whose creation failed has no outputs, but CloudFormation still
# lists the resources that it retained, also those of nested stacks that it has deleted.
find_data() {
    buckets=$(find_resources "$STACK" AWS::S3::Bucket)
    tables=$(find_resources "$STACK" AWS::DynamoDB::Table)
    site_buckets=
    nested=$(aws cloudformation list-stack-resources --stack-name "$STACK" --output text --query \
        "StackResourceSummaries[?ResourceType=='AWS::CloudFormation::Stack' && PhysicalResourceId].[LogicalResourceId, PhysicalResourceId] | []")
    # Pairs of a name and an id.
    # shellcheck disable=SC2086
    set -- $nested
    while [ $# -gt 1 ]; do
        found=$(find_resources "$2" AWS::S3::Bucket)
        if [ "$1" = Site ]; then site_buckets="$site_buckets $found"; else buckets="$buckets $found"; fi
        found=$(find_resources "$2" AWS::DynamoDB::Table)
        tables="$tables $found"
        shift 2
    done
}

check_that_buckets_are_empty() {
    for bucket in $buckets; do
        is_readable "$bucket" || continue
        found=$(aws s3api list-objects-v2 --bucket "$bucket" --max-items 1 --query "Contents[0].Key || ''" --output text)
        if [ -n "$found" ]; then
            refuse "The bucket $bucket has images or results, such as $found." \
                "Nothing was deleted. Save what you need, then run make destroy ENV=$ENV FORCE=1."
        fi
    done
}

is_readable() {
    aws s3api head-bucket --bucket "$1" >/dev/null 2>&1
}

confirm() {
    if [ "${FORCE:-}" = 1 ]; then return; fi
    if [ ! -t 0 ]; then
        refuse "Nothing was deleted, because a confirmation needs a terminal; in a script, run make destroy ENV=$ENV FORCE=1."
    fi
    printf 'To delete it, type the name of the stack: '
    read -r typed || typed=
    if [ "$typed" != "$STACK" ]; then refuse "Nothing was deleted, because the name is not $STACK."; fi
}

# Delete a bucket: delete_bucket BUCKET [--force]
delete_bucket() {
    if ! is_readable "$1"; then
        echo "The bucket $1 does not exist any more, or you may not delete it." >&2
        return
    fi
    aws s3 rb "s3://$1" ${2:+"$2"} || refuse "The bucket $1 remains. To delete it with all that it has, run aws s3 rb --force s3://$1"
}

# CloudFormation cannot delete a protected table.
unprotect_tables() {
    for table in $tables; do
        protected=$(aws dynamodb describe-table --table-name "$table" --output text \
            --query "to_string(Table.DeletionProtectionEnabled)" 2>/dev/null) || continue
        if [ "$protected" = true ]; then
            aws dynamodb update-table --table-name "$table" --no-deletion-protection-enabled >/dev/null
            aws dynamodb wait table-exists --table-name "$table"
        fi
    done
}

delete_images() {
    if [ -z "$images_status" ]; then return; fi
    aws cloudformation delete-stack --stack-name "$STACK-images"
    aws cloudformation wait stack-delete-complete --stack-name "$STACK-images" ||
        refuse "The stack $STACK-images with the container images remains; run make destroy ENV=$ENV again."
}

infra/show_target.sh
status=$(describe "$STACK" StackStatus)
images_status=$(describe "$STACK-images" StackStatus)
if [ -z "$status$images_status" ]; then
    refuse "The stack $STACK does not exist in this account and region; nothing was deleted."
fi
if [ -z "$status" ]; then
    confirm
    delete_images
    echo "The stack $STACK did not exist; its images are deleted."
    exit 0
fi

protected=$(describe "$STACK" "[to_string(EnableTerminationProtection), Parameters[?ParameterKey=='ProtectData'].ParameterValue | [0]] | join(' ', [?@])")
# A stack that was never created has no data, and it cannot be deployed again.
case $status in
    CREATE_FAILED|ROLLBACK_COMPLETE|ROLLBACK_FAILED|REVIEW_IN_PROGRESS|DELETE_FAILED) is_complete= ;;
    *) is_complete=1 ;;
esac
case $protected,$is_complete in
    true*|*" true",1)
        refuse "The stack $STACK is protected, and nothing was deleted. Set ProtectData=false in samconfig.toml, run make deploy ENV=$ENV, then make destroy ENV=$ENV." ;;
esac

find_data
if [ "${FORCE:-}" != 1 ]; then check_that_buckets_are_empty; fi
confirm
if [ -z "$is_complete" ]; then
    unprotect_tables
fi
sam delete --config-env "$ENV" --stack-name "$STACK" --no-prompts

# CloudFormation does not delete the buckets. The page's bucket contains only a copy of web/.
force=
if [ "${FORCE:-}" = 1 ]; then force=--force; fi
for bucket in $buckets; do
    # shellcheck disable=SC2086
    delete_bucket "$bucket" $force
done
for bucket in $site_buckets; do
    delete_bucket "$bucket" --force
done
delete_images
echo "The stack $STACK, its buckets and its images are deleted."
