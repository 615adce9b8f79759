"""The entry point of the authorizer function. Importing it fails if the issuer or the audience is not set."""

from litelens.access.authorizer import create_handler
from litelens.settings import read_settings

handler = create_handler(read_settings())
