"""Write docs/tables.md from the schemas and the views: every column of every table.

Usage: python scripts/make_tables_doc.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from vsa_core.query import VIEWS, shipped
from vsa_core.query_views import table_of
from vsa_core.schemas import TABLES, TableSpec
from vsa_core.store import COMPACTABLE

TARGET = Path(__file__).resolve().parent.parent / "docs" / "tables.md"

_TYPES = {"float": "float32", "double": "float64", "timestamp[us, tz=UTC]": "timestamp"}

_HEAD = """\
# Tables

<!-- Made by scripts/make_tables_doc.py from the schemas and the views: do not edit. -->

A store is a folder of Parquet files, `STORE/<table>/…/<key>.parquet`, that anything can read:

```sql
SELECT sentiment, count(*) FROM read_parquet('STORE/labels/**/*.parquet') GROUP BY ALL;
```

Times are integer milliseconds, timestamps are UTC, `*_probs` sum to 1, and null means that there is
nothing, as the column says. `vsa query` offers the tables as views. They leave out what plain
Parquet still shows: labels of other runs than the current one, and, of a video done anew after
`vsa store compact`, the old rows in the joined file.
"""


def document() -> str:
    """The text of docs/tables.md."""
    parts = [_HEAD, "\n".join(_views()), *("\n".join(_table(spec)) for spec in TABLES.values())]
    return "\n".join([*parts, "\n".join(_queries())])


def _views() -> Iterator[str]:
    yield "## Views of `vsa query`\n"
    yield "| view | columns of | rows |"
    yield "|---|---|---|"
    for view, rows in VIEWS.items():
        table = table_of(view)
        yield f"| `{view}` | [{table}](#{table}) | {rows} |"
    yield ""


def _table(spec: TableSpec) -> Iterator[str]:
    yield f"## {spec.name}\n"
    compacted = "; `vsa store compact` joins them" if spec.name in COMPACTABLE else ""
    key = ", ".join(f"`{column}`" for column in spec.id)
    yield f"One row: {spec.row}. One file: {spec.file}{compacted}."
    yield f"Key: {key}. Schema: `{spec.tag}`.\n"
    yield "| column | type | null | meaning |"
    yield "|---|---|---|---|"
    for field in spec.schema:
        doc = (field.metadata or {}).get(b"doc", b"").decode().replace("|", "\\|")
        null = "yes" if field.nullable else ""
        yield f"| `{field.name}` | {_type(field.type)} | {null} | {doc} |"
    yield ""


def _type(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"{_type(kind.value_type)}[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"{_type(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return "{" + ", ".join(f"{f.name} {_type(f.type)}" for f in kind) + "}"
    return _TYPES.get(str(kind), str(kind))


def _queries() -> Iterator[str]:
    yield "## Shipped queries\n"
    yield "`vsa query @NAME [--param NAME=VALUE]` runs one of `configs/queries`.\n"
    yield "| query | answers | parameters |"
    yield "|---|---|---|"
    for query in shipped():
        params = "; ".join(
            f"`{name}`" + (f" = {default}" if default else "") + f": {meaning}"
            for name, (default, meaning) in query.params.items()
        )
        yield f"| `@{query.name}` | {query.description} | {params} |"
    yield ""


def main(arguments: list[str]) -> int:
    """Write the file, or with --check say whether it is as it would be written."""
    if arguments != ["--check"]:
        TARGET.write_text(document(), encoding="utf-8")
        print(f"wrote {TARGET}")
        return 0
    if TARGET.read_text(encoding="utf-8") == document():
        return 0
    print(f"{TARGET} is out of date: run python scripts/make_tables_doc.py")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
