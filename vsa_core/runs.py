"""A run: its identity, its summary, and its row, which makes its labels the current ones."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import vsa_core
from vsa_core.backends import load_backend
from vsa_core.config import Settings, fingerprint
from vsa_core.errors import ConfigError, VsaError
from vsa_core.fusion.data import standing_refs
from vsa_core.ingest.addresses import shown
from vsa_core.labels import Agreement, Modality, Origin, Sentiment, Status
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store
from vsa_core.story import (
    ERROR,
    FAILED,
    FOREIGN,
    NO_SPEECH,
    NO_VOTE,
    NOTED,
    UNSURE,
    in_order,
    kind_of_note,
    knowing,
    left_out,
)
from vsa_core.videos import name_of

# Labels are narrow and quick to make: few large files.
LABEL_SHARD_VIDEOS = 500
_VIDEO_COLUMNS = (
    "video_id", "status", "note", "captions_kind", "source_id", "source_url", "media_path",
    "duration_ms",
)  # fmt: skip


class RunFailedError(VsaError):
    """More videos failed, or a model at more segments, than allowed.

    Attributes:
        summary: as `record` gives it.
    """

    def __init__(self, summary: dict[str, Any]) -> None:
        failed, segments = summary["videos_failed"], summary["segments"]
        said = [f"{failed} of {summary['videos']} videos failed"] if failed else []
        said += [
            f"{modality} failed at {count} of {segments} segments"
            for modality, count in summary["errors"].items()
            if count
        ]
        super().__init__(
            f"{', '.join(said) or 'no video went through'}, more than run.max_failed_share "
            "allows: mend what failed and run again"
        )
        self.summary = summary


def backend_ids(settings: Settings) -> dict[Modality, str]:
    """The id of each modality's backend; loads those that are not loaded yet."""
    found = {}
    for modality, model in settings.backends.items():
        try:
            found[modality] = load_backend(model.name, model.options).id
        except ConfigError as error:
            raise ConfigError(f"backends.{modality}: {error}") from error
    return found


def identify(root: str, video_ids: Sequence[str], model_id: str, settings: Settings) -> str:
    """The run's id, `r` and 12 hex digits over everything its labels are made from."""
    store = Store(root)
    made_from = []
    for backend_id in backend_ids(settings).values():
        part = store.part_of(backend_id)
        refs = standing_refs(store, "predictions", video_ids, part=part)
        for video_id in video_ids:
            ref = refs.get(video_id)
            made_from.append([video_id, backend_id, ref.fingerprint if ref else None])
    return "r" + fingerprint("run/2", made_from, model_id, settings.fingerprint())


def summarise(
    store: Store,
    run_id: str,
    video_ids: Sequence[str],
    settings: Settings,
    listed: Collection[str] = (),
) -> dict[str, Any]:
    """Counts over a run's labels.

    Args:
        store: where they lie.
        run_id: whose.
        video_ids: the videos it labelled.
        settings: of the run.
        listed: those of them that came with a channel or another list.

    Returns:
        segments; labelled: segments with a sentiment; emotions: with an emotion; videos_labelled:
        videos with a labelled segment; with_<modality>: segments its backend could look at;
        foreign: segments in a language the text model does not speak; errors: segments on which
        a backend failed, by modality; agreement: count by state; origins: count by origin;
        sentiments: count by class; words: videos with speech by `captions_kind`; media_seconds:
        length of the videos; left_out: what has no label, or not all of it, by `story.left_out`.
    """
    summary: dict[str, Any] = {"segments": 0, "foreign": 0, "errors": {}}
    videos = {
        row["video_id"]: row
        for table in store.scan("videos", keys=video_ids, columns=_VIDEO_COLUMNS)
        for row in table.to_pylist()
    }
    left = []
    for modality, backend_id in backend_ids(settings).items():
        part = store.part_of(backend_id)
        seen = store.scan("predictions", part=part, keys=video_ids, columns=["status"])
        states = _counted(seen)["status"]
        summary[f"with_{modality}"] = states[Status.OK]
        summary["errors"][modality.value] = states[Status.ERROR]
        kinds = {Status.ERROR: f"{ERROR}{modality}"}
        if modality is Modality.TEXT:
            summary["foreign"] = states[Status.FOREIGN]
            kinds[Status.FOREIGN] = FOREIGN
        for status, kind in kinds.items():
            if states[status]:
                left.append(_noted(store, part, status, kind, video_ids, videos, listed))
    columns = ["video_id", "agreement", "origin", "sentiment", "emotion"]
    labelled: set[str] = set()
    totals: defaultdict[str, Counter[Any]] = defaultdict(Counter)
    for table in store.scan("labels", part=run_id, columns=columns):
        given = pc.is_valid(table["sentiment"])
        labelled.update(pc.unique(table["video_id"].filter(given)).to_pylist())
        for name, counts in _counted([table.drop_columns("video_id")]).items():
            totals[name] += counts
        for row in _grouped(table.filter(pc.invert(given)), "video_id", "agreement"):
            kind = NO_VOTE if row["agreement"] == Agreement.ABSENT else UNSURE
            totals[kind][_name(videos, row["video_id"])] += row["count_all"]
    agreement, origins, sentiments = (totals[c] for c in ("agreement", "origin", "sentiment"))
    summary["segments"] = agreement.total()
    summary["labelled"] = sum(sentiments[s.value] for s in Sentiment)
    summary["emotions"] = sum(n for emotion, n in totals["emotion"].items() if emotion is not None)
    summary["videos_labelled"] = len(labelled)
    summary["agreement"] = {state.value: agreement[state.value] for state in Agreement}
    summary["origins"] = {o.value: origins[o.value] for o in Origin if o is not Origin.HUMAN}
    summary["sentiments"] = {s.value: sentiments[s.value] for s in Sentiment}
    summary["media_seconds"] = round(
        sum((row["duration_ms"] or 0) / 1000 for row in videos.values()), 1
    )
    cut = standing_refs(store, "segments", list(videos))
    spoken = {video_id for video_id in videos if video_id in cut and cut[video_id].rows}
    summary["words"] = dict(Counter(videos[v]["captions_kind"] for v in sorted(spoken)))
    left += _by_video(videos, spoken, listed)
    for kind in (NO_VOTE, UNSURE):
        where = [(name, None) for name in totals[kind]]
        left.append(left_out(kind, where, count=totals[kind].total(), asked=0))
    summary["left_out"] = in_order(left)
    return summary


def _noted(
    store: Store,
    part: str,
    status: Status,
    kind: str,
    video_ids: Sequence[str],
    videos: Mapping[str, Mapping[str, Any]],
    listed: Collection[str],
) -> dict[str, Any]:
    """The segments of which a backend says so, with what it notes."""
    found: Counter[tuple[str, str | None]] = Counter()
    asked = 0
    columns = ["video_id", "status", "note"]
    for table in store.scan("predictions", part=part, keys=video_ids, columns=columns):
        said = table.filter(pc.equal(table["status"], status.value))
        for row in _grouped(said, "video_id", "note"):
            found[_name(videos, row["video_id"]), row["note"]] += row["count_all"]
            # A model's failure is nobody's wish, also in a video that only came with a channel.
            asked += 0 if kind == FOREIGN and row["video_id"] in listed else row["count_all"]
    return left_out(kind, found, count=found.total(), asked=asked)


def _grouped(table: pa.Table, *columns: str) -> list[dict[str, Any]]:
    """Each combination of values of some columns, and its `count_all`."""
    rows: list[dict[str, Any]] = table.group_by(columns).aggregate([([], "count_all")]).to_pylist()
    return rows


def _name(videos: Mapping[str, Mapping[str, Any]], video_id: str) -> str:
    return name_of(videos[video_id]) if video_id in videos else video_id


def _by_video(
    videos: Mapping[str, Mapping[str, Any]], spoken: Collection[str], listed: Collection[str]
) -> list[dict[str, Any]]:
    """Videos that went through every stage, and of which there is something to say."""
    found: defaultdict[str, list[tuple[str, str | None]]] = defaultdict(list)
    asked: Counter[str] = Counter()
    for video_id, row in videos.items():
        if row["status"] != "ok":  # among the failures
            continue
        if row["note"] and video_id in spoken:
            kind, why = kind_of_note(row["note"])
        elif video_id not in spoken:
            kind, why = NO_SPEECH, row["note"]
        else:
            continue
        found[kind].append((name_of(row), why))
        asked[kind] += kind != NOTED and video_id not in listed
    return [left_out(kind, which, asked=asked[kind]) for kind, which in found.items()]


def _counted(tables: Iterable[pa.Table]) -> defaultdict[str, Counter[str]]:
    """How often each value occurs, by column."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for table in tables:
        for name in table.column_names:
            for pair in pc.value_counts(table[name]).to_pylist():
                counts[name][pair["values"]] += pair["counts"]
    return counts


def record(
    store: Store,
    run_id: str,
    *,
    sources: Sequence[str],
    video_ids: Sequence[str],
    asked: int,
    failures: Sequence[Mapping[str, Any]],
    model: tuple[str, Mapping[str, Any] | None, str | None],
    settings: Settings,
    started: datetime,
    passed_over: Sequence[Mapping[str, Any]] = (),
    listed: Collection[str] = (),
) -> dict[str, Any]:
    """Put the run's row in place, after its labels, and return its summary.

    Args:
        store: where its labels lie.
        run_id: as `identify` gives it.
        sources: what was asked for.
        video_ids: the videos that were labelled.
        asked: how many videos were found, failed ones too.
        failures: video_id, path and reason of each that failed, and maybe its kind.
        model: the fusion model's id, its card (None for a strategy that learns nothing), why late
            fusion decides though the strategy was to learn (None where it does).
        settings: of the run.
        started: when it began.
        passed_over: the same of addresses that are left alone, and whether somebody asked for each.
        listed: those of the videos that came with a channel or another list.
    """
    model_id, card, reason = model
    now = datetime.now(UTC)
    finished = _after_all_others(store, run_id, now)
    seconds = max(0.0, (now - started).total_seconds())
    failed = len({failure["video_id"] or failure["path"] for failure in failures})
    counts = summarise(store, run_id, video_ids, settings, listed)
    counts["left_out"] = in_order([*_not_taken([*failures, *passed_over]), *counts["left_out"]])
    allowed, errors = settings.run.max_failed_share, counts["errors"].values()
    status = "complete"
    if failed or any(errors):
        over = failed > allowed * asked or max(errors, default=0) > allowed * counts["segments"]
        status = "failed" if over or not video_ids else "partial"
    model_card = f"models/{model_id}/card.json" if card is not None else None
    report = (card or {}).get("report", {})
    row = {
        "run_id": run_id,
        "status": status,
        "started_at": started,
        "finished_at": finished,
        "seconds": seconds,
        "sources": [shown(source) for source in sources],
        "profile": settings.profile,
        "config": settings.model_dump_json(),
        "config_id": settings.fingerprint(),
        "fingerprint": run_id[1:],
        "backends": list(backend_ids(settings).values()),
        "model_id": model_id,
        "model_card": model_card,
        "videos": asked,
        "videos_failed": failed,
        "segments": counts["segments"],
        "counts": json.dumps(counts, sort_keys=True),
        "metrics": json.dumps(report, sort_keys=True),
        "failures": [f"{failure['path']}: {failure['reason']}" for failure in failures],
        "version": vsa_core.__version__,
    }
    store.commit("runs", run_id, table_from_rows("runs", [row]), run_id[1:])
    return {
        "run_id": run_id,
        "status": status,
        "store": store.location,
        "videos": asked,
        "videos_failed": failed,
        **counts,
        **knowing(report),
        "model_id": model_id,
        "model_card": model_card,
        "late_fusion_because": reason,
        "seconds": round(seconds, 2),
        "times_real_time": round(counts["media_seconds"] / seconds, 1) if seconds else None,
        "failures": [dict(failure) for failure in failures],
        "passed_over": [dict(one) for one in passed_over],
    }


def _not_taken(failures: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Videos and addresses that did not go through every stage, each once, by kind.

    Without a kind it failed, and was asked for.
    """
    found: defaultdict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for one in failures:
        found[one.get("kind", FAILED)].setdefault(one["video_id"] or one["path"], one)
    return [
        left_out(
            kind,
            [(one["path"], one["reason"]) for one in each.values()],
            asked=sum(one.get("asked", True) for one in each.values()),
        )
        for kind, each in found.items()
    ]


def _after_all_others(store: Store, run_id: str, now: datetime) -> datetime:
    """Now; where the clock was moved back, just after the run that ended last: the latest wins."""
    ended = [
        row["finished_at"]
        for table in store.scan("runs", columns=["run_id", "finished_at"])
        for row in table.to_pylist()
        if row["run_id"] != run_id
    ]
    return max([now, *(other + timedelta(microseconds=1) for other in ended)])
