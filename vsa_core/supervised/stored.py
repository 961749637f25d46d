"""Utterances in a store: a corpus put beside the pipeline's tables, and read back to learn from"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from vsa_core import progress
from vsa_core.config import Settings, fingerprint
from vsa_core.cues import Cue, Transcript
from vsa_core.errors import MediaError, UsageError
from vsa_core.ingest import Found, find_videos, ingest
from vsa_core.progress import Steps
from vsa_core.query import ask
from vsa_core.schemas import table_from_rows
from vsa_core.segment import segment
from vsa_core.store import Store
from vsa_core.supervised.meld import CORPUS_NAME, SPLITS, Meld, Problem
from vsa_core.supervised.utterances import TARGETS, Utterance
from vsa_core.table_files import write_table_file
from vsa_core.transcripts import bring
from vsa_core.videos import read_video

_LANGUAGE = "en"
_AT_ONCE = 4
_BEFORE = 8  # of a video's segments, before the one that is learned from
_COLUMNS = ("utterance_id", "split", "dialogue", "speaker", "text", *TARGETS, "segment_id")


# --- a corpus into the store --------------------------------------------------------------


def store_meld(meld: Meld, settings: Settings, store: Store) -> list[Problem]:
    """Put MELD into a store, so that the pipeline labels the same segments as people did.

    Each clip becomes a video with one segment, the whole of it, whose words are the corpus's: a
    later run over the clips neither transcribes nor cuts them again. Utterances go into the table
    `utterances`, also those without a clip. To do it again changes nothing.

    Args:
        meld: as `read_meld` gives it.
        settings: of runs; those of sources count.
        store: where to.

    Returns:
        What is wrong beyond the corpus's own problems: clips that are too long, or one clip that
        stands for two utterances.

    Raises:
        StoreError: it cannot be written.
    """
    everyone = [u for some in meld.utterances.values() for u in some]
    videos = _found([str(u.media) for u in everyone if u.media is not None], settings, store)
    first: dict[str, Utterance] = {}  # by video
    problems = []
    for one in everyone:
        if one.media is None:
            continue
        same = first.setdefault(videos[str(one.media)].video_id, one)
        if same is not one:
            what = f"its clip is that of {same.id}, and is labelled once"
            problems.append(Problem(one.id.split("-")[1], one.media.stem, what))
    progress.begin("store clips", len(first))

    def put(one: Utterance) -> tuple[str | None, str | None]:
        """Its segment, and why its clip was not taken."""
        try:
            return _put_clip(videos[str(one.media)], one, settings, store), None
        except MediaError as error:
            return None, str(error)
        finally:
            progress.advance("store clips", 1)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        contexts = [copy_context() for _ in first]
        done = pool.map(lambda one, context: context.run(put, one), first.values(), contexts)
        became = dict(zip(first, done, strict=True))
    for video_id, (_, reason) in became.items():
        if reason is not None:
            one = first[video_id]
            problems.append(Problem(one.id.split("-")[1], Path(str(one.media)).stem, reason))
    for split, some in meld.utterances.items():
        rows = []
        for one in some:
            if one.media is None:
                rows.append(_row(one, split, None, None, meld.notes.get(one.id)))
                continue
            video_id = videos[str(one.media)].video_id
            segment_id, reason = became[video_id]
            if segment_id is None and reason is None:
                reason = "nothing is said in it"
            taken = None if segment_id is None else video_id
            rows.append(_row(one, split, taken, segment_id, reason))
        _put_rows(f"{CORPUS_NAME}-{split}", rows, store)
    return problems


def _found(paths: Sequence[str], settings: Settings, store: Store) -> dict[str, Found]:
    """By path the file that is there; clips of the same content are the same video."""
    found: dict[str, Found] = {}
    left = list(dict.fromkeys(paths))
    while left:  # of files with the same content one is found at a time
        found.update((f.path, f) for f in find_videos(left, settings, store))
        left = [path for path in left if path not in found]
    return found


def _put_clip(found: Found, one: Utterance, settings: Settings, store: Store) -> str | None:
    """Put a clip's rows of videos, transcripts and segments; its segment, where words are said.

    Raises:
        MediaError: it does not decode, or is longer than allowed.
    """
    ingest(found, settings, store)
    length_ms = max(1, read_video(store, found.video_id)["duration_ms"] or 0)
    cues = () if one.text is None else (Cue(0, length_ms, one.text),)
    said = fingerprint(one.text, length_ms, _LANGUAGE)
    bring(store, found.video_id, Transcript(cues, "", _LANGUAGE), CORPUS_NAME, said)
    ref = segment(found.video_id, settings, store, Steps("segment"))
    return f"{found.video_id}-0-{length_ms}" if ref.rows else None


def _row(
    one: Utterance, split: str, video_id: str | None, segment_id: str | None, note: str | None
) -> dict[str, Any]:
    return {
        "utterance_id": one.id,
        "corpus": CORPUS_NAME,
        "split": split,
        "dialogue": one.group,
        "utterance": int(one.id.rpartition("-utt")[2]),
        "speaker": one.speaker,
        "text": one.text or "",
        **{
            target: names[one.labels[target]] if target in one.labels else None
            for target, names in TARGETS.items()
        },
        "video_id": video_id,
        "segment_id": segment_id,
        "note": note,
    }


def _put_rows(key: str, rows: list[dict[str, Any]], store: Store) -> None:
    made_from = fingerprint("utterances/1", rows)
    stands = store.fresh("utterances", key, made_from)
    if stands is None or stands.rows != len(rows):  # some of it may have been forgotten
        store.commit("utterances", key, table_from_rows("utterances", rows), made_from)


# --- out of the store ---------------------------------------------------------------------


def write_truth(store: Store, path: Path, splits: Sequence[str] = SPLITS) -> int:
    """Write what people say of a corpus's segments, as `vsa evaluate` reads it.

    A segment that stands for two utterances is left empty where they are labelled differently.

    Args:
        store: which.
        path: the file to write, as its ending says: segment_id, sentiment, emotion.
        splits: only of these.

    Returns:
        How many segments it has.

    Raises:
        UsageError: it cannot be written, or the store has no such utterances.
        StoreError: a table does not read.
    """
    truth: dict[str, dict[str, str | None]] = {}
    for row in _rows(store):
        if row["segment_id"] is None or row["split"] not in splits:
            continue
        said = {target: row[target] for target in TARGETS}
        stood = truth.setdefault(row["segment_id"], said)
        truth[row["segment_id"]] = {t: x if stood[t] == x else None for t, x in said.items()}
    if not truth:
        raise UsageError(
            f"{store.location} has no segments of MELD's {', '.join(splits)}: run `vsa meld "
            "prepare` on a folder that has the clips"
        )
    put_truth(path, ((name, said) for name, said in truth.items()))
    return len(truth)


def put_truth(path: Path, rows: Iterable[tuple[str, Mapping[str, str | None]]]) -> None:
    """Write what people say of segments, as `vsa evaluate` reads it.

    Args:
        path: the file to write, as its ending says: segment_id, sentiment, emotion.
        rows: (segment, its class by target); None or left out where it is not known.

    Raises:
        UsageError: it cannot be written.
    """
    schema = pa.schema([(name, pa.string()) for name in ("segment_id", *TARGETS)])
    table = pa.Table.from_pylist([{**said, "segment_id": name} for name, said in rows], schema)
    write_table_file(path, schema, table.to_batches())


def meld_from_store(store: Store) -> dict[str, list[Utterance]]:
    """MELD's utterances as `store_meld` left them, by split, each with what was said before it.

    Raises:
        UsageError: there are none.
        StoreError: a table does not read.
    """
    media = _media(store)
    spans = {
        row["segment_id"]: (row["video_id"], row["start_ms"], row["end_ms"])
        for table in store.scan(
            "segments", columns=["segment_id", "video_id", "start_ms", "end_ms"]
        )
        for row in table.to_pylist()
    }
    found: dict[str, list[Utterance]] = {}
    before: dict[str, tuple[tuple[str | None, str], ...]] = {}
    for row in _rows(store):
        said = before.get(row["dialogue"], ())
        one = Utterance(
            id=row["utterance_id"],
            group=row["dialogue"],
            text=row["text"] or None,
            speaker=row["speaker"],
            before=said,
            labels=_labels(row),
        )
        video_id, start_ms, end_ms = spans.get(row["segment_id"], ("", 0, 0))
        if video_id in media:
            one = replace(one, media=media[video_id], start_ms=start_ms, end_ms=end_ms)
        found.setdefault(row["split"], []).append(one)
        if one.text is not None:
            before[row["dialogue"]] = (*said, (one.speaker, one.text))
    if not found:
        raise UsageError(f"{store.location} has no utterances of MELD: run `vsa meld prepare DIR`")
    return {split: found[split] for split in SPLITS if split in found}


def segments_of_store(store: Store, labels: Literal["consensus", "reviews"]) -> list[Utterance]:
    """The pipeline's own segments to learn from, in order of video and time.

    Args:
        store: which.
        labels: `consensus`: what confident votes agree on and no person has decided; `reviews`:
            what people decided, and nothing else.

    Returns:
        Those that are labelled; `group` is the video, and before each stand up to 8 earlier
        segments of it.

    Raises:
        StoreError: a table does not read.
    """
    known = {row["segment_id"]: row for row in ask(store, _LABELS[labels]).rows()}
    media = _media(store)
    found = []
    video, before = "", list[str]()
    for row in ask(store, _SEGMENTS).rows():
        if row["video_id"] != video:
            video, before = row["video_id"], []
        text = row["text"].strip() or None
        if row["segment_id"] in known:
            found.append(
                Utterance(
                    id=row["segment_id"],
                    group=row["video_id"],
                    text=text,
                    before=tuple((None, said) for said in before[-_BEFORE:]),
                    media=media.get(row["video_id"]),
                    start_ms=row["start_ms"],
                    end_ms=row["end_ms"],
                    labels=_labels(known[row["segment_id"]]),
                )
            )
        if text is not None:
            before.append(text)
    return found


_SEGMENTS = """
SELECT video_id, segment_id, start_ms, end_ms, text FROM segments ORDER BY video_id, "index"
"""
_LABELS = {
    "consensus": "SELECT segment_id, sentiment, emotion FROM labels WHERE origin = 'consensus'",
    # As the view `labels` takes them: a null in a review leaves what an older one says.
    "reviews": """
        SELECT
          segment_id,
          arg_max(sentiment, (reviewed_at, review_id)) AS sentiment,
          arg_max(emotion, (reviewed_at, review_id)) AS emotion
        FROM reviews GROUP BY segment_id
        HAVING count(sentiment) + count(emotion) > 0
    """,
}


def _rows(store: Store) -> Iterator[dict[str, Any]]:
    """MELD's rows of `utterances`, each split in its order."""
    for table in store.scan("utterances", columns=["corpus", *_COLUMNS]):
        for row in table.to_pylist():
            if row["corpus"] == CORPUS_NAME:
                yield row


def _media(store: Store) -> dict[str, Path]:
    """By video the file it is in, of those that opened."""
    return {
        row["video_id"]: Path(row["media_path"])
        for table in store.scan("videos", columns=["video_id", "status", "media_path"])
        for row in table.to_pylist()
        if row["status"] == "ok"
    }


def _labels(row: Mapping[str, str | None]) -> dict[str, int]:
    return {
        target: names.index(word)
        for target, names in TARGETS.items()
        if (word := row[target]) in names
    }
