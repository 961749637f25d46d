"""A run: its identity, its summary, and its row, which makes its labels the current ones."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import vsa_core
from vsa_core.backends import load_backend
from vsa_core.config import Settings, fingerprint
from vsa_core.errors import VsaError
from vsa_core.fusion.data import standing_refs
from vsa_core.labels import Agreement, Modality, Origin, Status
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store

# Labels are narrow and quick to make: few large files.
LABEL_SHARD_VIDEOS = 500


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
    return {
        modality: load_backend(model.name, model.options).id
        for modality, model in settings.backends.items()
    }


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
    store: Store, run_id: str, video_ids: Sequence[str], settings: Settings
) -> dict[str, Any]:
    """Counts over a run's labels.

    Returns:
        segments; with_<modality>: segments its backend could look at; foreign: segments in a
        language the text model does not speak; errors: by modality the segments its backend
        failed at; agreement: count by state; origins: count by origin; media_seconds: length of
        the videos.
    """
    summary: dict[str, Any] = {"segments": 0}
    summary["foreign"] = 0
    summary["errors"] = {}
    for modality, backend_id in backend_ids(settings).items():
        part = store.part_of(backend_id)
        seen = store.scan("predictions", part=part, keys=video_ids, columns=["status"])
        states = _counted(seen)["status"]
        summary[f"with_{modality}"] = states[Status.OK]
        summary["errors"][modality.value] = states[Status.ERROR]
        if modality is Modality.TEXT:
            summary["foreign"] = states[Status.FOREIGN]
    labels = _counted(store.scan("labels", part=run_id, columns=["agreement", "origin"]))
    agreement, origins = labels["agreement"], labels["origin"]
    summary["segments"] = agreement.total()
    summary["agreement"] = {state.value: agreement[state.value] for state in Agreement}
    summary["origins"] = {o.value: origins[o.value] for o in Origin if o is not Origin.HUMAN}
    summary["media_seconds"] = round(
        sum(
            (pc.sum(table["duration_ms"]).as_py() or 0) / 1000
            for table in store.scan("videos", keys=video_ids, columns=["duration_ms"])
        ),
        1,
    )
    return summary


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
    failures: Sequence[Mapping[str, str]],
    model: tuple[str, Mapping[str, Any] | None, str | None],
    settings: Settings,
    started: datetime,
) -> dict[str, Any]:
    """Put the run's row in place, after its labels, and return its summary.

    Args:
        store: where its labels lie.
        run_id: as `identify` gives it.
        sources: what was asked for.
        video_ids: the videos that were labelled.
        asked: how many videos were found, failed ones too.
        failures: video_id, path and reason of each that failed.
        model: the fusion model's id, its card (None for a strategy that learns nothing), why late
            fusion decides though the strategy was to learn (None where it does).
        settings: of the run.
        started: when it began.
    """
    model_id, card, reason = model
    now = datetime.now(UTC)
    finished = _after_all_others(store, run_id, now)
    seconds = max(0.0, (now - started).total_seconds())
    failed = len({failure["video_id"] or failure["path"] for failure in failures})
    counts = summarise(store, run_id, video_ids, settings)
    allowed, errors = settings.run.max_failed_share, counts["errors"].values()
    status = "complete"
    if failed or any(errors):
        over = failed > allowed * asked or max(errors, default=0) > allowed * counts["segments"]
        status = "failed" if over or not video_ids else "partial"
    model_card = f"models/{model_id}/card.json" if card is not None else None
    row = {
        "run_id": run_id,
        "status": status,
        "started_at": started,
        "finished_at": finished,
        "seconds": seconds,
        "sources": list(sources),
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
        "metrics": json.dumps((card or {}).get("report", {}), sort_keys=True),
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
        "model_id": model_id,
        "model_card": model_card,
        "late_fusion_because": reason,
        "seconds": round(seconds, 2),
        "times_real_time": round(counts["media_seconds"] / seconds, 1) if seconds else None,
        "failures": [dict(failure) for failure in failures],
    }


def _after_all_others(store: Store, run_id: str, now: datetime) -> datetime:
    """Now; where the clock was moved back, just after the run that ended last: the latest wins."""
    ended = [
        row["finished_at"]
        for table in store.scan("runs", columns=["run_id", "finished_at"])
        for row in table.to_pylist()
        if row["run_id"] != run_id
    ]
    return max([now, *(other + timedelta(microseconds=1) for other in ended)])
