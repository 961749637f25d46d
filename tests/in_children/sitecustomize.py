"""Read by every Python that starts with this folder on its path: the fakes are backends there."""

from tests.fakes import register

register()
