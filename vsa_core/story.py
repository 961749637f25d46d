"""What a run or a store tells: what was labelled, what was not and why, and how sure that is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from vsa_core.incomplete import INCOMPLETE
from vsa_core.labels import MODALITIES, Origin, Sentiment
from vsa_core.media import ENDS_EARLY

Part = tuple[str, list[str]]  # a heading and its lines

FAILED, REFUSED, LATER, FILTERED = "failed", "refused", "later", "filtered"
FORGOTTEN, NO_SPEECH, UNFINISHED, NOTED = "forgotten", "no_speech", "unfinished", "noted"
FOREIGN, NO_VOTE, UNSURE, ERROR = "foreign", "no_vote", "unsure", "error_"
_VIDEO, _SEGMENT, _ADDRESS = ("video", "videos"), ("segment", "segments"), ("address", "addresses")
_ONE = ("", "")  # videos and addresses
# Kinds of what has no label, or not all of it, in the order they are told.
_KINDS: dict[str, tuple[tuple[str, str], str]] = {
    FAILED: (_ONE, "failed"),
    REFUSED: (_ADDRESS, "not to be had"),
    LATER: (_ADDRESS, "live or yet to come: tried again by the next run"),
    FILTERED: (_ADDRESS, "skipped by the filters"),
    FORGOTTEN: (_ONE, "not taken in again after `vsa forget`"),
    NO_SPEECH: (_VIDEO, "without speech: nothing to label"),
    UNFINISHED: (_VIDEO, "of a run that did not finish: run it again"),
    INCOMPLETE: (_VIDEO, "with an end that is missing or damaged"),
    FOREIGN: (_SEGMENT, "in a language the text model does not know, without its vote"),
    **{
        f"{ERROR}{modality}": (_SEGMENT, f"on which the {modality} model failed")
        for modality in ("text", "face", "audio")
    },
    NO_VOTE: (_SEGMENT, "without a label, as no model votes"),
    UNSURE: (_SEGMENT, "without a label, as no class is probable enough"),
    NOTED: (_VIDEO, "with a note"),
}
_ENDS = (f"{INCOMPLETE}: ", ENDS_EARLY)  # begin notes on media whose end is not there
_EXAMPLES = 2
NOBODY_SPEAKS = "nobody speaks: nothing to label"  # the note of a video without a word
_RECOGNISED = "asr:"
_AUTOMATIC = "auto_captions"
_TARGETS = ("sentiment", "emotion")


def left_out(
    kind: str,
    found: Collection[tuple[str, str | None]],
    *,
    count: int | None = None,
    asked: int | None = None,
) -> dict[str, Any]:
    """One kind of what has no label, or not all of it.

    Args:
        kind: of `_KINDS`.
        found: path or address of each, and why.
        count: how many there are, where `found` does not have each.
        asked: how many of them somebody asked for, and did not only come with a channel; None
            where that is not known.

    Returns:
        kind, count, asked (if known), and the first two `examples`, each with path and reason.
    """
    first = sorted(found, key=lambda one: one[0])[:_EXAMPLES]
    examples = [{"path": path, "reason": reason} for path, reason in first]
    told = {"kind": kind, "count": len(found) if count is None else count, "examples": examples}
    return told if asked is None else told | {"asked": asked}


def in_order(kinds: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of which there are any, as they are told."""
    order = list(_KINDS)
    return sorted((k for k in kinds if k["count"]), key=lambda kind: order.index(kind["kind"]))


def kind_of_note(note: str) -> tuple[str, str]:
    """Which kind a note on a video that was labelled is, and what of the note says so."""
    for one in note.split("; "):
        if one.startswith(_ENDS):
            return INCOMPLETE, note[note.index(one) :]
    return NOTED, note


def tell(facts: Mapping[str, Any], *, brief: bool = False) -> list[Part]:
    """What a person needs first, of a run or of a store.

    Args:
        facts: videos, videos_labelled, segments, labelled, emotions (counts); sentiments (count
            by class); words (videos by `captions_kind`); left_out, as above; estimates and
            warnings, as in a model's `knowing`.
        brief: leave out warnings where an estimate says already that nothing is known.
    """
    parts: list[Part] = [("Labelled", _labelled(facts))]
    left = [kind for kind in facts["left_out"] if kind["kind"] != NOTED]
    notes = [kind for kind in facts["left_out"] if kind["kind"] == NOTED]
    parts += [("Left out", [*map(_left, left)]), ("Notes", [*map(_left, notes)])]
    if facts["labelled"]:
        parts.append(("How sure", _sure(facts, brief)))
    parts.append(("Words", _words(facts["words"])))
    return [(heading, lines) for heading, lines in parts if lines]


def of_run(summary: Mapping[str, Any]) -> list[Part]:
    """What a person needs first, then how a run's labels came about.

    Args:
        summary: as `runs.record` gives it.
    """
    seen = {m.value: n for m in MODALITIES if (n := summary.get(f"with_{m}"))}
    decided = {f"by {o}": n for o, n in summary["origins"].items() if o != Origin.NONE}
    parts = [("Seen", counted(seen)), ("Votes", counted(summary["agreement"]))]
    parts.append(("Decided", counted(decided)))
    if because := summary["late_fusion_because"]:
        parts.append(("Fusion", f"late fusion where votes differ: {because}"))
    elif summary["model_card"]:
        parts.append(("Fusion", f"{summary['model_card']} in the store"))
    speed, new = summary["times_real_time"], summary.get("videos_new")
    took = f"{summary['seconds']:,.1f} s"
    if speed and new != 0:
        took += f", {speed:g} times real time"
    looked = "" if _unread(summary) else "; no video was new"
    if new:
        looked = f"; {_many(new, _VIDEO)} looked at"
    parts.append(("Time", took + (looked if summary["videos"] else "")))
    how = [(heading, [line]) for heading, line in parts if line]
    return [*tell(summary, brief=True), *(how if summary["segments"] else how[-1:])]


def knowing(report: Mapping[str, Any]) -> dict[str, Any]:
    """How right labels are as far as their model's report tells: `estimates` and `warnings`."""
    said = report.get("knowing", {})
    return {
        "estimates": {name: one["estimate"] for name, one in said.get("targets", {}).items()},
        "warnings": list(said.get("warnings", ())),
    }


def counted(counts: Mapping[str, int]) -> str:
    """Counts by name in one line, without those of which there are none."""
    return ", ".join(f"{n:,} {name}" for name, n in counts.items() if n)


def estimate_line(estimate: Mapping[str, Any]) -> str:
    """An estimate of accuracy (the fields of `Estimate`) in one line."""
    if estimate["value"] is None:
        return f"accuracy not known: {estimate['method']}"
    between = ""
    if estimate["low"] is not None:
        between = f" ({estimate['low']:.3f} to {estimate['high']:.3f})"
    return f"accuracy about {estimate['value']:.3f}{between}: {estimate['method']}"


def next_steps(facts: Mapping[str, Any]) -> list[str]:
    """What to ask next, without the name of the store."""
    asks = []
    if facts["labelled"]:
        asks += ["query @most_negative", 'query "SELECT sentiment, text FROM labels"']
    if facts["left_out"]:
        asks.append("query @not_labelled")
    return asks


def _labelled(facts: Mapping[str, Any]) -> list[str]:
    segments, labelled = facts["segments"], facts["labelled"]
    videos, spoken = facts["videos"], facts["videos_labelled"]
    if not videos:
        return ["nothing: no video was found"]
    if not segments and _unread(facts):
        return [f"nothing of {_many(videos, _VIDEO)}"]
    if not segments:
        return [f"nothing: no segment of speech in {_many(videos, _VIDEO)}"]
    share = f"{_part(labelled, segments)} {_SEGMENT[segments != 1]}"
    lines = [f"{share} in {_part(spoken, videos)} {_VIDEO[videos != 1]}"]
    if labelled:
        by_class = {s.value: facts["sentiments"].get(s, 0) for s in Sentiment}
        emotions = facts["emotions"]
        also = "" if emotions == labelled else f"; {emotions:,} of them with an emotion"
        lines.append(counted(by_class) + also)
    return lines


def _unread(facts: Mapping[str, Any]) -> bool:
    """Whether some was not even looked into, so that nobody knows whether it has speech."""
    return any(kind["kind"] in (FAILED, REFUSED, LATER) for kind in facts["left_out"])


def _left(kind: Mapping[str, Any]) -> str:
    unit, what = _KINDS[kind["kind"]]
    said = [_example(one["path"], one["reason"]) for one in kind["examples"]]
    named = f"{': ' if kind['count'] <= len(said) else ', e.g. '}{'; '.join(said)}" if said else ""
    return f"{_many(kind['count'], unit).rstrip()} {what}{named}"


def _example(path: str, reason: str | None) -> str:
    reason = (reason or "").removeprefix(f"{INCOMPLETE}: ")
    if reason in ("", NOBODY_SPEAKS):
        return path if "://" in path else path.rpartition("/")[2]
    return reason if path in reason else f"{path}: {reason}"


def _sure(facts: Mapping[str, Any], brief: bool) -> list[str]:
    estimates = facts["estimates"]
    if not estimates:
        return ["accuracy not known: nothing was learned that could tell; look at some labels"]
    known = {target for target, one in estimates.items() if one["value"] is not None}
    warnings = [w for w in facts["warnings"] if not brief or w.partition(": ")[0] in known]
    lines = [f"{target}: {estimate_line(estimates[target])}" for target in _targets(estimates)]
    return [*merged(lines), *(f"warning: {line}" for line in merged(warnings))]


def _targets(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (name != "sentiment", name))


def merged(lines: Iterable[str]) -> list[str]:
    """Lines about one target each; what is said of both is said once."""
    about: dict[str, list[str]] = {}
    for line in lines:
        target, colon, rest = line.partition(": ")
        if colon and target in _TARGETS:
            about.setdefault(rest, []).append(target)
        else:
            about.setdefault(line, [])
    return [
        f"{' and '.join(_targets(targets))}: {rest}" if targets else rest
        for rest, targets in about.items()
    ]


def _words(words: Mapping[str, int]) -> list[str]:
    """Where words come from, if some are not what people wrote down."""
    total = _many(sum(words.values()), _VIDEO)
    lines = []
    for source, n in sorted(words.items()):
        if source.startswith(_RECOGNISED):
            lines.append(f"recognised by {source.removeprefix(_RECOGNISED)} for {n:,} of {total}")
        elif source == _AUTOMATIC:
            lines.append(f"automatic captions for {n:,} of {total}")
    better = "expect errors; captions beside a video (name.vtt) are better"
    return [f"{'; '.join(lines)}: {better}"] if lines else []


def _part(some: int, of: int) -> str:
    return f"{some:,} of {of:,}"


def _many(count: int, unit: tuple[str, str]) -> str:
    return f"{count:,} {unit[count != 1]}"
