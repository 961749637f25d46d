"""Transcripts: from captions beside a video, else from speech recognition."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vsa_core.config import Settings, fingerprint
from vsa_core.cues import Transcript, cues_of
from vsa_core.errors import CaptionError
from vsa_core.language import detect, detector, mistagged
from vsa_core.progress import Steps
from vsa_core.schemas import CORPUS, table_from_rows
from vsa_core.store import Store, TableRef
from vsa_core.story import NOBODY_SPEAKS
from vsa_core.transcripts.asr import Transcriber, load_transcriber
from vsa_core.transcripts.captions import find_captions, read_captions
from vsa_core.videos import media_of, note_on_video, read_video

NO_TRANSCRIPT = "none"
_MEGABYTE = 1_000_000


def transcribe(video_id: str, settings: Settings, store: Store, steps: Steps) -> TableRef:
    """What is said in a video, into the transcripts table: captions first, else recognition.

    Captions that cannot be read are noted on the video and speech is recognised instead; a video
    without a word gets an empty table. The language of captions is that of their tag, else of the
    info.json, unless the text is plainly in another one, which is noted too; that of recognised
    speech is what the transcriber says. Where nobody says, the text tells. What a corpus brought
    stands.

    Raises:
        BackendError: the transcriber cannot be loaded.
        MediaError: the sound does not decode.
    """
    video = read_video(store, video_id)
    brought = store.find("transcripts", video_id)
    if brought is not None and brought.fingerprint.startswith(CORPUS):
        if not video["captions_kind"]:  # the video's row is new
            kind = brought.fingerprint.rpartition(":")[0]
            note_on_video(store, video_id, captions_kind=kind)
        return brought
    wanted, limit = settings.transcripts, settings.transcripts.max_caption_mb * _MEGABYTE
    notes: list[str] = []
    path, captions = Path(video["media_path"]), None
    try:
        if wanted.use_captions:
            captions = find_captions(path, wanted.languages, video["language"])
    except CaptionError as error:
        notes.append(str(error))
    base = _base(video, captions, settings)
    if captions is not None:
        made_from = _from_captions(base, video, captions)
        ref = store.fresh("transcripts", video_id, made_from)
        if ref is not None and video["captions_kind"]:
            return ref
        try:
            transcript = read_captions(captions, limit, path)
            language, doubt = _language(transcript, video["language"])
            notes += [doubt] if doubt else []
            transcript = replace(transcript, language=language)
            return _commit(store, video, transcript, notes, made_from)
        except CaptionError as error:
            notes.append(f"{error}; its speech is recognised instead")
    transcriber = _transcriber(settings, video)
    made_from = fingerprint(base, transcriber.id if transcriber else None)
    ref = store.fresh("transcripts", video_id, made_from)
    if ref is not None and video["captions_kind"]:
        return ref
    if transcriber is None:
        reason = "no sound" if not video["has_audio"] else "no transcriber set"
        transcript = Transcript((), NO_TRANSCRIPT, note=f"no captions and {reason}")
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
        names: files in the video's folder that could be its captions, in order.

    Raises:
        BackendError: the transcriber cannot be loaded.
    """
    if transcript.startswith(CORPUS):
        return True
    captions = None
    if settings.transcripts.use_captions:
        wanted = settings.transcripts.languages
        captions = find_captions(Path(video["media_path"]), wanted, video["language"], names)
    base = _base(video, captions, settings)
    if captions is not None and transcript == _from_captions(base, video, captions):
        return True
    # Also where there are captions: they may have turned out not to be readable.
    transcriber = _transcriber(settings, video)
    return transcript == fingerprint(base, transcriber.id if transcriber else None)


def _base(video: dict[str, Any], captions: Path | None, settings: Settings) -> list[Any]:
    limit = settings.transcripts.max_caption_mb * _MEGABYTE
    return ["transcribe/2", video["sha256"], _caption_hash(captions, limit), limit]


def _from_captions(base: list[Any], video: dict[str, Any], captions: Path) -> str:
    # What its name adds to the video's is its language; the video itself may be renamed.
    suffixes = captions.name.removeprefix(Path(video["media_path"]).stem)
    return fingerprint(base, suffixes, video["language"], detector())


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


def _language(captions: Transcript, spoken: str | None) -> tuple[str | None, str | None]:
    """The language captions are in, and what to note where it is not the one they should be in."""
    said = captions.language or spoken
    if said is None:
        return detect(_text(captions)), None
    other = mistagged(said, [cue.text for cue in captions.cues])
    if other is None:
        return said, None
    source = "tagged" if captions.language else "by the info.json in"
    return other, f"captions {source} {said!r} are in {other!r} and taken for it"


def _text(transcript: Transcript) -> str:
    return " ".join(cue.text for cue in transcript.cues)


def _transcriber(settings: Settings, video: dict[str, Any]) -> Transcriber | None:
    model = settings.transcripts.transcriber
    if model is None or not video["has_audio"]:
        return None
    return load_transcriber(model.name, model.options)


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
