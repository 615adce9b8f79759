"""The entry point of the bulk function. Importing it loads the model."""

from litelens.aws.clients import BULK_SERVICES
from litelens.aws.snapstart import register_hooks
from litelens.bulk.batches import create_handler
from litelens.settings import read_settings

handler = create_handler(read_settings())
register_hooks(BULK_SERVICES)
