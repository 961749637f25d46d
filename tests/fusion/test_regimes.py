"""The network on tables of the study: clearly better than chance, trained on consensus only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.fusion.made import BACKENDS, Made, put, regime
from vsa_core.config import Fusion, NamedModel, Settings
from vsa_core.evaluate import Score, compare_to_truth
from vsa_core.fusion.data import read_views
from vsa_core.fusion.resolve import late_fusion, resolve
from vsa_core.fusion.train import train_fusion
from vsa_core.labels import SENTIMENTS

NAMES = [str(s) for s in SENTIMENTS]


def measure(root: Path, made: Made, fusion: Fusion) -> tuple[list[Score], list[Score], str]:
    """Scores of each vote, late fusion and the labels: on all, and on those that do not agree."""
    store = put(root, made)
    given = Settings(backends={m: NamedModel(name=m.value) for m in BACKENDS}, fusion=fusion)
    start = time.process_time()
    model = train_fusion(store, made.video_ids, made.backends, given)
    trained = time.process_time() - start
    ref = resolve(store, "r1", 0, made.video_ids, made.backends, model, given)
    took = f"{model.model_id}, cpu: training {trained:.1f} s"
    rows = store.read(ref).to_pylist()
    late = late_fusion(read_views(store, made.video_ids, made.backends))
    decided: dict[str, list[Any]] = {
        f"{m} vote": [row[f"{m}_vote"] for row in rows] for m in made.views
    }
    decided["late mean"] = [NAMES[int(p.argmax())] if p[0] == p[0] else None for p in late]
    decided["labels"] = [row["sentiment"] for row in rows]
    truth = [NAMES[i] for i in made.truth]
    confidence = [row["confidence"] for row in rows]
    differ = [i for i, row in enumerate(rows) if row["agreement"] != "agree"]
    every = compare_to_truth(truth, decided, confidences={"labels": confidence})
    hard = compare_to_truth(
        [truth[i] for i in differ],
        {name: [said[i] for i in differ] for name, said in decided.items()},
        confidences={"labels": [confidence[i] for i in differ]},
    )
    return every, hard, took


@pytest.mark.parametrize("name", ["random-0", "missing-0"])
def test_what_is_learned_from_consensus_labels_the_rest(
    shared: Path, tmp_path: Path, name: str
) -> None:
    made = regime(shared, name).first(1000)
    fusion = Fusion(width=32, max_epochs=25, learning_rate=3e-3)
    _, hard, took = measure(tmp_path, made, fusion)
    assert not took.startswith("late-mean")
    assert hard[-1].macro_f1 is not None
    assert hard[-1].macro_f1 > 0.5
    assert hard[-1].coverage == 1.0
