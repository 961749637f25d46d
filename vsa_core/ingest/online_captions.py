"""Captions a page offers: those people made before automatic ones, in the languages wanted."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsa_core.config import Settings
from vsa_core.ingest.refusals import Refusal, retrying
from vsa_core.language import tag_of

if TYPE_CHECKING:
    from vsa_core.ingest.guard import Watch

_MEGABYTE = 1_000_000
_ORIGINAL = "-orig"  # yt-dlp's, for automatic captions in the language spoken
# In order of preference; others are not read. `json` is the podcast namespace's, made VTT here.
_FORMATS = ("vtt", "srt", "json3", "json")
_UNKNOWN = "und"

Offered = Mapping[str, Any]


def wanted_captions(info: Offered, languages: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Which of the captions of a page to fetch.

    Those people made in any of the languages. Only without one, automatic ones: of what is spoken
    where that is wanted, else a machine's translation into the first language that has one. Where
    nothing is in a wanted language, those people made in the one that is spoken, else in any, else
    automatic ones of what is spoken.

    Args:
        info: what yt-dlp found out about the page.
        languages: BCP 47, in order; empty for what is no machine's translation.

    Returns:
        The end of the file's name, `<language>.<format>`, and how yt-dlp fetches it. The language
        is that of the page; automatic ones in the language spoken end in `-orig`.
    """
    spoken = tag_of(info.get("language"))
    made = {key: one for key, one in _readable(info.get("subtitles")) if key != "live_chat"}
    heard = dict(_readable(info.get("automatic_captions")))
    own = [key for key in heard if key.endswith(_ORIGINAL) or (spoken and tag_of(key) == spoken)]
    if not languages:
        chosen = list(made) or own
    else:
        chosen = [key for tag in languages for key in made if _fits(key, tag)]
        chosen = chosen or [key for key in made if key == _UNKNOWN]  # the text will tell
        if not chosen:
            chosen = [key for tag in languages for key in own if _fits(key, tag)][:1]
        if not chosen:
            chosen = [key for tag in languages for key in heard if _fits(key, tag)][:1]
        if not chosen:
            spoken_in = [key for key in made if spoken and _fits(key, spoken)]
            chosen = spoken_in or list(made)[:1] or own[:1]
    found: dict[str, dict[str, Any]] = {}
    for key in chosen:
        one = made.get(key) or heard[key]
        auto = key not in made and key in own and not key.endswith(_ORIGINAL)
        language = tag_of(key) or _UNKNOWN
        ending = "vtt" if one["ext"] == "json" else one["ext"]
        original = _ORIGINAL if auto or key.endswith(_ORIGINAL) else ""
        found[f"{language}{original}.{ending}"] = one
    return list(found.items())


def _readable(offered: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """By language the format we read best."""
    for language, formats in offered.items() if isinstance(offered, Mapping) else ():
        ranked = [
            (_FORMATS.index(one["ext"]), number)
            for number, one in enumerate(formats or ())
            if one.get("ext") in _FORMATS and (one.get("url") or one.get("data") is not None)
        ]
        if ranked:
            yield str(language), formats[min(ranked)[1]]


def _fits(key: str, tag: str) -> bool:
    """Whether a page's name of a language is one wanted, or a regional form of it, or the other
    way round."""
    one, other = tag_of(key), tag_of(tag)
    if one is None or other is None:
        return False
    return one == other or one.startswith(f"{other}-") or other.startswith(f"{one}-")


def captions_of(
    ydl: Any, info: Offered, stem: str, folder: Path, settings: Settings, watch: Watch
) -> None:
    """Fetch the wanted captions of a page as `<stem>.<language>.<format>`.

    What is not there for good (404), or too large, is done without.

    Raises:
        Refusal: they are not to be had now, but may be later.
    """
    largest, before = settings.transcripts.max_caption_mb * _MEGABYTE, watch.max_bytes
    for name, one in wanted_captions(info, settings.transcripts.languages):
        path = folder / f"{stem}.{name}"
        if path.exists():
            continue
        if one.get("data") is not None:
            path.write_text(str(one["data"])[:largest], encoding="utf-8", newline="")
            continue
        copy = {**one, "http_headers": one.get("http_headers") or info.get("http_headers")}
        watch.max_bytes = largest
        try:
            retrying(lambda: _one(ydl, path, copy), settings, watch)  # noqa: B023 - used at once
            if one["ext"] == "json":
                _made_vtt(path)
        except Refusal as refused:
            if refused.again or refused.kind == "time_limit":
                raise Refusal(
                    refused.outcome, refused.kind, f"its captions: {refused.reason}"
                ) from refused
        finally:
            watch.max_bytes = before
            path.with_name(path.name + ".part").unlink(missing_ok=True)


def _one(ydl: Any, path: Path, caption: dict[str, Any]) -> None:
    ydl.dl(str(path), caption, subtitle=True)


def _made_vtt(path: Path) -> None:
    """Make WebVTT of a transcript in the podcast namespace's JSON; what is none is removed."""
    from vsa_core.ingest.guard import Stopped
    from vsa_core.ingest.limits import check_json

    try:
        text = path.read_text(encoding="utf-8-sig")
        check_json(text)
        cues = [_cue(one) for one in json.loads(text)["segments"]]
        path.write_text("\n\n".join(["WEBVTT", *cues, ""]), encoding="utf-8", newline="")
    except (ValueError, LookupError, TypeError, RecursionError, Stopped):
        path.unlink()


def _cue(segment: Mapping[str, Any]) -> str:
    times = [float(segment[key]) for key in ("startTime", "endTime")]
    start, end = (f"{int(s // 3600):02}:{int(s // 60) % 60:02}:{s % 60:06.3f}" for s in times)
    words = " ".join(html.escape(str(segment["body"]), quote=False).split())
    speaker = html.escape(" ".join(str(segment.get("speaker") or "").split()), quote=False)
    return f"{start} --> {end}\n" + (f"<v {speaker}>{words}" if speaker else words)
