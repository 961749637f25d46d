"""Score the labels of data/sample against its author's intent."""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from vsa_core.evaluate import Score, compare_to_truth
from vsa_core.labels import SENTIMENTS
from vsa_core.query import ask
from vsa_core.store import Store

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"

LABELS = """
    SELECT regexp_extract(v.media_path, '([^/]*)\\.[^.]*$', 1) AS video, l.segment_id,
           l.start_ms, l.end_ms, l.sentiment, l.emotion, l.origin
    FROM labels l JOIN videos v USING (video_id)
"""
VIEWS = """
    SELECT segment_id, modality, sentiment_probs, emotion_probs
    FROM predictions WHERE sentiment_probs IS NOT NULL
"""


def matched(truth: list[dict[str, str]], labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each line of truth the segment that covers most of it, if that is at least half."""
    by_video: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for label in labels:
        by_video[label["video"]].append(label)
    found = []
    for line in truth:
        start, end = int(line["start_ms"]), int(line["end_ms"])

        def overlap(label: dict[str, Any], start: int = start, end: int = end) -> int:
            return min(end, label["end_ms"]) - max(start, label["start_ms"])

        best = max(by_video[line["video"]], key=overlap, default=None)
        found.append(best if best and overlap(best) * 2 >= end - start else {})
    return found


def decisions(views: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Sentiment by segment: of text alone, of face alone, and of the mean of those there are."""
    probs: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for view in views:
        probs[view["segment_id"]][view["modality"]] = np.asarray(view["sentiment_probs"])
    by_name: dict[str, dict[str, str]] = {"text alone": {}, "face alone": {}, "late fusion": {}}
    for segment_id, by_modality in probs.items():
        for modality in ("text", "face"):
            if modality in by_modality:
                best = SENTIMENTS[int(by_modality[modality].argmax())]
                by_name[f"{modality} alone"][segment_id] = best
        mean = np.mean(list(by_modality.values()), axis=0)
        by_name["late fusion"][segment_id] = SENTIMENTS[int(mean.argmax())]
    return by_name


def score(store: Store) -> list[Score]:
    """Scores of each view and of the labels against data/sample/truth.csv."""
    with (SAMPLE / "truth.csv").open(encoding="utf-8", newline="") as file:
        truth = list(csv.DictReader(file))
    segments = matched(truth, list(ask(store, LABELS).rows()))
    ids = [segment.get("segment_id") for segment in segments]
    predictions: dict[str, list[str | None]] = {
        name: [by_segment.get(segment_id) for segment_id in ids]
        for name, by_segment in decisions(list(ask(store, VIEWS).rows())).items()
    }
    predictions["final labels"] = [segment.get("sentiment") for segment in segments]
    return compare_to_truth([line["sentiment"] for line in truth], predictions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="store the sample was run into")
    store = parser.parse_args().store
    scores = score(Store(store))
    console = Console(soft_wrap=True)
    table = Table(
        title=f"Sentiment against the author's intent, {scores[0].rows} lines of data/sample",
        title_justify="left",
    )
    for heading in ("decided by", "macro-F1", "accuracy", "coverage"):
        table.add_column(heading, justify="left" if heading == "decided by" else "right")
    for one in scores:
        figures = (one.macro_f1, one.accuracy)
        shown = ["-" if figure is None else f"{figure:.2f}" for figure in figures]
        table.add_row(one.name, *shown, f"{one.coverage:.0%}")
    console.print(table)
    console.print(
        "The sample is made: drawn faces, synthetic voices, authored lines. These figures show that"
        "\nthe line works, not how well it does on real people. Label your own videos:"
        "\n  .venv/bin/vsa run YOUR_FOLDER",
        highlight=False,
    )


if __name__ == "__main__":
    main()
