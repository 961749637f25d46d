"""Score the labels of data/sample against its author's intent."""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from vsa_core.assess import TargetAssessment, assess
from vsa_core.assess.given import predictions_of, read_known, read_predictions
from vsa_core.labels import SENTIMENTS
from vsa_core.query import ask
from vsa_core.store import Store

TRUTH = Path(__file__).resolve().parent.parent / "data" / "sample" / "truth.csv"
VIEWS = """
    SELECT segment_id, modality, sentiment_probs
    FROM predictions WHERE sentiment_probs IS NOT NULL
"""


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


def scores(store: Store, truth: Path = TRUTH) -> dict[str, TargetAssessment]:
    """How right each view and the labels are, as `vsa evaluate STORE truth.csv` has it."""
    labels = read_predictions(store.location)
    known, _ = read_known(truth, labels)
    systems = {"final labels": labels}
    for name, said in decisions(list(ask(store, VIEWS).rows())).items():
        if said:
            columns = {"segment_id": pa.array(said), "sentiment": pa.array(map(str, said.values()))}
            systems[name] = predictions_of(columns, name)
    found = {
        name: assess(system, known, targets=("sentiment",)).targets["sentiment"]
        for name, system in systems.items()
    }
    return {name: found[name] for name in [*list(found)[1:], "final labels"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="store the sample was run into")
    store = parser.parse_args().store
    found = scores(Store(store))
    lines = found["final labels"].n
    console = Console(soft_wrap=True)
    table = Table(
        title=f"Sentiment against the author's intent, {lines} lines of data/sample",
        title_justify="left",
    )
    for heading in ("decided by", "macro-F1", "accuracy", "coverage"):
        table.add_column(heading, justify="left" if heading == "decided by" else "right")
    for name, about in found.items():
        figures = (about.macro_f1.value, about.accuracy.value)
        shown = ["-" if figure is None else f"{figure:.2f}" for figure in figures]
        table.add_row(name, *shown, f"{about.coverage.value:.0%}")
    console.print(table)
    console.print(
        "The sample is made: drawn faces, synthetic voices, authored lines. These figures show that"
        "\nthe line works, not how well it does on real people. Label your own videos:"
        "\n  .venv/bin/vsa run YOUR_FOLDER",
        highlight=False,
    )


if __name__ == "__main__":
    main()
