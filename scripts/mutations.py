"""Damages small files byte by byte and reads them: each has to give what it has, or one line

Media, captions, info.json and Parquet tables, made here, and damaged the same for the same seed.
`python scripts/mutations.py [--count N] [--seed S] [--only KIND …]` prints a line for each kind and
each finding; exit code 1 when there is one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests import bad_media
from tests.bring import tables
from tests.small_store import small_store
from vsa_core import media
from vsa_core.bring.predictions import read_predictions
from vsa_core.config import load_config
from vsa_core.errors import VsaError
from vsa_core.ingest import find_videos, ingest
from vsa_core.store import Store
from vsa_core.transcripts.captions import read_captions

# Damage makes nothing of this size take longer, but for a machine that does other things.
SLOW_S = 20.0

_CUES = [
    (500, 2_000, "I love this place."),
    (2_500, 4_000, "Really? No, it is awful."),
    (5_000, 9_000, "Née 😀"),
]
_EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1")


@dataclass(frozen=True, slots=True)
class Kind:
    """Files of a kind.

    Attributes:
        make: writes one into a folder.
        read: reads it, damaged.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], object]


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The bytes with one to four things done to them."""
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(made) + 1)
        # Headers are small, and say the most.
        at = min(at, draw.choice((64, 1024, len(made))))
        size = draw.choice((1, 1, 4, 16, 256))
        match draw.randrange(6):
            case 0:
                made[at : at + size] = draw.randbytes(size)
            case 1:
                extreme = draw.choice(_EXTREMES)
                made[at : at + len(extreme)] = extreme
            case 2:
                del made[at : at + size]
            case 3:
                made[at:at] = made[at : at + size]
            case 4:
                made[at:at] = draw.randbytes(size)
            case 5:
                del made[draw.randrange(len(made) + 1) :]
        if not made:
            break
    return bytes(made)


def findings(kind: str, count: int, seed: int, folder: Path) -> Iterator[str]:
    """What went wrong with `count` damaged files of a kind, a line each."""
    path = KINDS[kind].make(folder)
    whole = path.read_bytes()
    KINDS[kind].read(path)  # it is right before anything is done to it
    for number in range(count):
        path.write_bytes(damaged(whole, random.Random(f"{kind} {seed} {number}")))
        began = time.perf_counter()
        try:
            KINDS[kind].read(path)
        except VsaError as error:
            if len(str(error).splitlines()) != 1:
                yield f"{kind} {number}: not one line: {error!r}"
        except Exception as error:  # noqa: BLE001 - which is what is looked for
            yield f"{kind} {number}: {type(error).__name__}: {error}"
        if time.perf_counter() - began > SLOW_S:
            yield f"{kind} {number}: took {time.perf_counter() - began:.0f} s"


def _film(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        options = {"movflags": "faststart"} if name.endswith(("mp4", "mov")) else {}
        sound = "mp2" if name.endswith("mpg") else "aac"
        return bad_media.write(
            folder / name,
            bad_media.film(25),
            bad_media.sweep(1),
            audio_codec=sound,
            options=options,
        )

    return make


def _read_film(path: Path) -> None:
    found = media.probe(path, ("en",))
    assert found.has_video or found.has_audio
    for frame in found.frames(4, 64):
        assert frame.rgb.shape[2] == 3
    for _, samples in found.audio():
        assert samples.ndim == 1
    found.audio_between(200, 600)
    media.subtitles(path, 1000)


def _times(ms: int, mark: str) -> str:
    return f"00:00:{ms // 1000:02}{mark}{ms % 1000:03}"


def _text_captions(name: str, start: str, mark: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        blocks = [
            f"{number}\n{_times(begin, mark)} --> {_times(end, mark)}\n<i>{text}</i>\n"
            for number, (begin, end, text) in enumerate(_CUES, 1)
        ]
        path = folder / name
        path.write_text("\n".join([start, *blocks]), encoding="utf-8")
        return path

    return make


def _json3(folder: Path) -> Path:
    events = [
        {"tStartMs": start, "dDurationMs": end - start, "segs": [{"utf8": text, "tOffsetMs": 0}]}
        for start, end, text in _CUES
    ]
    path = folder / "a.en.json3"
    path.write_text(json.dumps({"wireMagic": "pb3", "events": events}), encoding="utf-8")
    return path


def _info(folder: Path) -> Path:
    bad_media.write(folder / "a.mp4", bad_media.film(5))
    said = {"id": "a", "title": "Née 😀", "channel": "C", "timestamp": 1.7e9, "language": "en"}
    path = folder / "a.info.json"
    path.write_text(json.dumps({**said, "upload_date": "20260101", "view_count": 7}))
    return path


def _read_info(path: Path) -> None:
    store, settings = Store(path.parent / "store"), load_config()
    for found in find_videos([str(path.with_name("a.mp4"))], settings, store):
        ref = ingest(found, settings, store)
        assert store.read(ref).num_rows == 1


def _table(folder: Path) -> Path:
    return tables.write(folder / "a.parquet", tables.rows(20))


def _store_file(table: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        store = small_store(folder / table)
        return next(iter(sorted((store.root / table).rglob("*.parquet"))))

    return make


def _read_store(path: Path) -> None:
    root = next(p for p in path.parents if (p / "labels").is_dir() and (p / "videos").is_dir())
    for table in ("videos", "labels"):
        for rows in Store(root).scan(table):
            rows.to_pylist()


KINDS = {
    **{name: Kind(_film(f"a.{name}"), _read_film) for name in ("mp4", "mov", "mkv", "mpg", "ts")},
    "vtt": Kind(_text_captions("a.en.vtt", "WEBVTT\n", "."), read_captions),
    "srt": Kind(_text_captions("a.en.srt", "", ","), read_captions),
    "json3": Kind(_json3, read_captions),
    "info.json": Kind(_info, _read_info),
    "table": Kind(_table, read_predictions),
    "videos": Kind(_store_file("videos"), _read_store),
    "labels": Kind(_store_file("labels"), _read_store),
}


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1000, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    wrong = 0
    for kind in given.only:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            found = list(findings(kind, given.count, given.seed, Path(folder)))
        print(
            f"{kind}: {given.count} files, {time.perf_counter() - began:.0f} s, {len(found)} wrong"
        )
        for line in found:
            print(f"  {line}")
        wrong += len(found)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
