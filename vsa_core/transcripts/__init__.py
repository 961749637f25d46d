"""Transcripts: from captions beside a video or inside it, else from speech recognition."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vsa_core.config import Settings, fingerprint
from vsa_core.cues import Transcript, cues_of
from vsa_core.errors import CaptionError
from vsa_core.language import detect, detector, mistagged, near, speaks, tag_of
from vsa_core.progress import Steps
from vsa_core.schemas import CORPUS, table_from_rows
from vsa_core.store import Store, TableRef
from vsa_core.story import NOBODY_SPEAKS
from vsa_core.transcripts.asr import Transcriber, load_transcriber
from vsa_core.transcripts.caption_files import ignored_captions, name_language
from vsa_core.transcripts.captions import Wanted, find_captions, read_captions, read_stream
from vsa_core.transcripts.embedded import embedded
from vsa_core.videos import media_of, note_on_video, read_video

NO_TRANSCRIPT = "none"
_MEGABYTE = 1_000_000


def transcribe(video_id: str, settings: Settings, store: Store, steps: Steps) -> TableRef:
    """What is said in a video, into the transcripts table: captions first, else recognition.

    Captions beside the video go before those inside it, both in a wanted language before any in
    another one, and these before recognition: they are taken as what they are. Captions that
    cannot be read are noted on the video, and so is all of them that was mended or left out; a
    video without a word gets an empty table. The language of captions is that of their tag, else
    of the info.json, unless the text is plainly in another one, which is noted too; that of
    recognised speech is what the transcriber says. Where nobody says, the text tells. Speech that
    the info.json says is in a language the transcriber does not understand is not recognised.
    What a corpus brought stands.

    Raises:
        BackendError: the transcriber cannot be loaded.
        MediaError: the video does not decode.
    """
    video = read_video(store, video_id)
    brought = store.find("transcripts", video_id)
    if brought is not None and brought.fingerprint.startswith(CORPUS):
        if not video["captions_kind"]:  # the video's row is new
            kind = brought.fingerprint.rpartition(":")[0]
            note_on_video(store, video_id, captions_kind=kind)
        return brought
    notes: list[str] = []
    captions = None
    try:
        captions = _file(video, settings)
    except CaptionError as error:
        notes.append(str(error))
    base = _base(video, captions, settings)
    made_from = _from_captions(base, video, captions, settings)
    ref = store.fresh("transcripts", video_id, made_from)
    if ref is not None and video["captions_kind"]:
        return ref
    if settings.transcripts.use_captions:
        said, noted = _captions(video, captions, settings)
        notes += noted
        if said is not None:
            return _commit(store, video, said, notes, made_from)
    transcriber = _transcriber(settings, video)
    made_from = fingerprint(base, transcriber.id if transcriber else None)
    ref = store.fresh("transcripts", video_id, made_from)
    if ref is not None and video["captions_kind"]:
        return ref
    if transcriber is None:
        transcript = Transcript((), NO_TRANSCRIPT, note=_why_silent(video, settings))
    elif ref is not None:  # the video's row is new, what was heard is not
        transcript = _heard(store.read(ref).to_pylist(), transcriber)
    else:
        transcript = transcriber.transcribe(media_of(video, steps))
        if transcript.language is None:
            transcript = replace(transcript, language=detect(_text(transcript)))
    return _commit(store, video, transcript, notes, made_from)


def standing(
    video: dict[str, Any], transcript: str, settings: Settings, names: Sequence[str]
) -> bool:
    """Whether a transcript of this fingerprint is what `transcribe` would make of a video now.

    Args:
        video: its row.
        transcript: fingerprint of the transcript that stands.
        settings: of the run.
        names: files beside the video that could be its captions, as `listed` has them.

    Raises:
        BackendError: the transcriber cannot be loaded.
    """
    if transcript.startswith(CORPUS):
        return True
    captions = _file(video, settings, names)
    base = _base(video, captions, settings)
    if transcript == _from_captions(base, video, captions, settings):
        return True
    # Also where there are captions: they may have turned out not to be readable.
    transcriber = _transcriber(settings, video)
    return transcript == fingerprint(base, transcriber.id if transcriber else None)


# --- captions -----------------------------------------------------------------------------


def _file(
    video: dict[str, Any], settings: Settings, names: Sequence[str] | None = None
) -> Path | None:
    """The caption file beside a video that is read before others."""
    if not settings.transcripts.use_captions:
        return None
    wanted = settings.transcripts.languages
    return find_captions(Path(video["media_path"]), wanted, video["language"], names)


def _captions(
    video: dict[str, Any], file: Path | None, settings: Settings
) -> tuple[Transcript | None, list[str]]:
    """What captions beside or inside a video say, and what to note about them."""
    path, spoken = Path(video["media_path"]), video["language"]
    wanted = settings.transcripts.languages
    limit = settings.transcripts.max_caption_mb * _MEGABYTE
    at = Wanted(wanted, video["duration_ms"] or 0)
    notes: list[str] = []
    readers: list[tuple[str | None, Callable[[], Transcript]]] = []
    if file is not None:
        readers.append((name_language(file, path), lambda: read_captions(file, limit, path, at)))
    if not readers or not _is_wanted(readers[0][0], wanted):
        stream, note = embedded(path, wanted, spoken, limit)
        notes += [note] if note else []
        if stream is not None:
            tag = tag_of(stream.language)
            readers.append((tag, lambda: read_stream(stream, at)))
            readers.sort(key=lambda reader: not _is_wanted(reader[0], wanted))
    failed = []
    for _, read in readers:
        try:
            transcript = read()
        except CaptionError as error:
            failed.append(str(error))
            continue
        language, said = _language(transcript, spoken, wanted)
        return replace(transcript, language=language), [*notes, *failed, *said]
    if file is None and (note := ignored_captions(path)):
        notes.append(note)
    recognised = "; its speech is recognised instead" if _transcriber(settings, video) else ""
    return None, [*notes, *(f"{reason}{recognised}" for reason in failed)]


def _is_wanted(tag: str | None, wanted: Sequence[str]) -> bool:
    return tag is None or not wanted or any(near(tag, language) for language in wanted)


def _base(video: dict[str, Any], captions: Path | None, settings: Settings) -> list[Any]:
    limit = settings.transcripts.max_caption_mb * _MEGABYTE
    track = [] if video["sound_track"] is None else [video["sound_track"]]
    return ["transcribe/2", video["sha256"], _caption_hash(captions, limit), limit, *track]


def _from_captions(
    base: list[Any], video: dict[str, Any], captions: Path | None, settings: Settings
) -> str:
    # What its name adds to the video's is its language; the video itself may be renamed.
    video_path = Path(video["media_path"])
    suffixes = captions and str(captions.relative_to(video_path.parent))
    suffixes = suffixes and suffixes.replace(video_path.stem, "", 1)
    wanted = settings.transcripts.languages if settings.transcripts.use_captions else "none"
    return fingerprint("captions/1", base, suffixes, video["language"], wanted, detector())


def bring(
    store: Store, video_id: str, transcript: Transcript, corpus: str, made_from: str
) -> TableRef:
    """Put what a corpus says of a video in the place of its transcript; no stage changes it.

    Args:
        store: which holds the video.
        video_id: the video.
        transcript: the cues are its segments, one each.
        corpus: its name.
        made_from: fingerprint of what the corpus says.

    Raises:
        StoreError: no such video in the store.
    """
    source = f"{CORPUS}{corpus}"
    made_from = f"{source}:{made_from}"
    ref = store.fresh("transcripts", video_id, made_from)
    video = read_video(store, video_id)
    if ref is not None and video["captions_kind"] == source:
        return ref
    return _commit(store, video, replace(transcript, source=source), [], made_from)


def _commit(
    store: Store, video: dict[str, Any], transcript: Transcript, notes: list[str], made_from: str
) -> TableRef:
    if transcript.note:
        notes.append(transcript.note)
    elif not transcript.cues:
        notes.append(NOBODY_SPEAKS)
    # The video's row first: a transcript that stands means that this stands too.
    note_on_video(store, video["video_id"], *notes, captions_kind=transcript.source)
    rows = _rows(video["video_id"], transcript)
    return store.commit(
        "transcripts", video["video_id"], table_from_rows("transcripts", rows), made_from
    )


def _heard(rows: list[dict[str, Any]], transcriber: Transcriber) -> Transcript:
    """What the store holds of an earlier recognition."""
    source = rows[0]["text_source"] if rows else f"asr:{transcriber.id.partition('@')[0]}"
    return Transcript(cues_of(rows), source, rows[0]["language"] if rows else None)


def _language(
    captions: Transcript, spoken: str | None, wanted: Sequence[str]
) -> tuple[str | None, list[str]]:
    """The language captions are in, and what to note where it is not the one they should be in."""
    said, notes = captions.language or spoken, []
    if said is None:
        said = detect(_text(captions))
    elif other := mistagged(said, [cue.text for cue in captions.cues]):
        source = "tagged" if captions.language else "by the info.json in"
        notes.append(f"captions {source} {said!r} are in {other!r} and taken for it")
        said = other
    if not _is_wanted(said, wanted):
        notes.append(f"captions are in {said!r}, no wanted language, and taken as they are")
    return said, notes


def _text(transcript: Transcript) -> str:
    return " ".join(cue.text for cue in transcript.cues)


def _transcriber(settings: Settings, video: dict[str, Any]) -> Transcriber | None:
    """What recognises a video's speech; None where there is nothing to hear, or in vain."""
    model = settings.transcripts.transcriber
    if model is None or not video["has_audio"]:
        return None
    transcriber = load_transcriber(model.name, model.options)
    understood = transcriber.language
    return transcriber if understood is None or speaks([understood], video["language"]) else None


def _why_silent(video: dict[str, Any], settings: Settings) -> str:
    model = settings.transcripts.transcriber
    if not video["has_audio"]:
        return "no captions and no sound"
    if model is None:
        return "no captions and no transcriber set"
    return (
        f"no captions, and spoken in {video['language']!r} by the info.json, which the transcriber "
        f"{model.name} does not understand: nothing is recognised"
    )


def _caption_hash(path: Path | None, limit: int) -> str | None:
    """SHA-256 of a caption file, or its size where it is too large to be read at all."""
    if path is None:
        return None
    try:
        size = path.stat().st_size
        return f"{size} bytes" if size > limit else hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _rows(video_id: str, transcript: Transcript) -> list[dict[str, Any]]:
    return [
        {
            "video_id": video_id,
            "index": index,
            "start_ms": cue.start_ms,
            "end_ms": cue.end_ms,
            "text": cue.text,
            "speaker": cue.speaker,
            "words": [
                {"start_ms": word.start_ms, "end_ms": word.end_ms, "text": word.text}
                for word in cue.words
            ]
            or None,
            "text_source": transcript.source,
            "language": transcript.language,
        }
        for index, cue in enumerate(transcript.cues)
    ]
