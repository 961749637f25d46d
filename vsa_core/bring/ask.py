"""A list of segments to have reviewed, as a table that comes back with labels filled in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from vsa_core.bring.files import batches, column_at, number_column, table_parts, text_column
from vsa_core.bring.truth import INCLUSION
from vsa_core.fusion.review import Chosen
from vsa_core.fusion.views import Views
from vsa_core.table_files import write_table_file

# What a predictions table may say of a segment, and where its medium lies: the first of these.
_TIMES = ("start_ms", "end_ms")
_ADDRESSES = ("link", "url", "source_url", "media_path")
_WORDS = ("text", *_ADDRESSES)
# A medium itself takes a media fragment, a page about it the parameter that pages know.
_MEDIA = (
    ".mp4", ".m4v", ".m4a", ".mp3", ".mov", ".mkv", ".webm", ".ogg", ".ogv", ".opus", ".wav",
    ".flac", ".mpg", ".avi",
)  # fmt: skip
_FACTS = ("time", "text", "link")
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("segment_id", "video_id", INCLUSION, "label", *_FACTS)]
)


def write_questions(
    path: str | Path, views: Views, chosen: Chosen, predictions: str | Path | None = None
) -> None:
    """Write a row per chosen segment: its ids, `inclusion`, `label`, empty, and what it is.

    That is `time`, `text` and `link`, as far as the predictions table has `start_ms` and `end_ms`,
    `text`, and one of `link`, `url`, `source_url` and `media_path`. What the models say is left
    out, so that nobody is led by it.

    Args:
        path: the file to write or replace; its ending says the format.
        views: the segments.
        chosen: which of them, with how probable each was to be chosen.
        predictions: the table they come from; None leaves out what a segment is.

    Raises:
        UsageError: the file cannot be written.
    """
    ids = views.segment_ids.take(pa.array(chosen.rows))
    about = {} if predictions is None else _facts(predictions, ids)
    rows = []
    for row, segment in zip(chosen.rows.tolist(), ids.to_pylist(), strict=True):
        facts = about.get(segment, {})
        start, end = (facts.get(name) for name in _TIMES)
        address = next((facts[name] for name in _ADDRESSES if name in facts), None)
        rows.append(
            {
                "segment_id": segment,
                "video_id": views.videos[views.video[row]],
                # Rounded up, for a chance of 0 would be refused when it comes back.
                INCLUSION: f"{max(chosen.inclusion[row], 1e-6):.6f}",
                "label": None,
                "time": None if start is None else " to ".join(map(_clock, (start, end or start))),
                "text": _tame(facts.get("text")),
                "link": None if address is None else _tame(link(address, start, end)),
            }
        )
    table = pa.Table.from_pylist(rows, _SCHEMA)
    nobody_says = [name for name in _FACTS if table[name].null_count == len(rows)]
    table = table.drop_columns(nobody_says)
    write_table_file(Path(path), table.schema, table.to_batches())


def link(address: str, start_ms: float | None, end_ms: float | None) -> str:
    """Where a segment is seen: a page's or file's address with its time.

    Args:
        address: http(s), or a path.
        start_ms, end_ms: from the start of the video; None where not known.
    """
    parts = urlsplit(address)
    web = parts.scheme in ("http", "https")
    if not web and not parts.scheme and Path(address).is_absolute():
        address = Path(address).as_uri()
    if start_ms is None or parts.fragment:
        return address
    if web and not parts.path.lower().endswith(_MEDIA):
        return f"{address}{'&' if parts.query else '?'}t={int(start_ms // 1000)}"
    end = "" if end_ms is None else f",{end_ms / 1000:g}"
    return f"{address}#t={start_ms / 1000:g}{end}"


def _facts(where: str | Path, ids: pa.Array) -> Mapping[str, Mapping[str, Any]]:
    """By segment what the rows of any modality say of it, the first that says something."""
    found: dict[str, dict[str, Any]] = {}
    parts = table_parts(where)
    for start, batch in batches(parts, ("segment_id", *_TIMES, *_WORDS)):
        named = text_column(batch.column("segment_id"), "segment_id")
        wanted = pc.is_in(named, ids)
        columns = {"segment_id": named.filter(wanted)}
        for name in batch.schema.names[1:]:
            read = number_column if name in _TIMES else text_column
            values = batch.column(name).filter(wanted)
            columns[name] = read(values, column_at(parts, start, name))
        for row in pa.table(columns).to_pylist():
            held = found.setdefault(row["segment_id"], {})
            held |= {name: x for name, x in row.items() if x is not None and name not in held}
    return found


def _tame(text: str | None) -> str | None:
    """Text of strangers that no spreadsheet takes for a formula."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text


def _clock(ms: float) -> str:
    return f"{int(ms // 60_000)}:{ms % 60_000 / 1000:04.1f}"
