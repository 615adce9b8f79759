"""The bulk path's function: what handlers.batches makes of the environment."""

from adapters.calls import SERVICES
from adapters.snapshots import prepare_for_snapshots
from handlers.batches import create_handler
from settings import read_settings

handler = create_handler(read_settings())
prepare_for_snapshots(SERVICES)
