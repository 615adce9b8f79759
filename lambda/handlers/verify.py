"""The hook's function, which tries a new version before it gets traffic: what handlers.verification makes of it."""

from handlers.verification import create_handler
from settings import read_settings

handler = create_handler(read_settings)
