"""The bulk path's function: what handlers.batches makes of the environment."""

from handlers.batches import create_handler
from settings import read_settings

handler = create_handler(read_settings())
