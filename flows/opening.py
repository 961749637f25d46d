"""How every flow begins: the store it was given, if it may be worked on."""

from __future__ import annotations

from vsa_core.errors import StoreError
from vsa_core.forget import unfinished
from vsa_core.migrate import check
from vsa_core.store import Store


def opened(store: str) -> Store:
    """The store of a folder or URL; there need not be one yet.

    Raises:
        StoreError: its tables are of another version, or a removal in it is not finished; says
            what to run.
    """
    tables = Store(store)
    check(tables)
    if (line := unfinished(tables)) is not None:
        raise StoreError(line)
    return tables
