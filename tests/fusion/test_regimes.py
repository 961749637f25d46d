"""The default strategy on tables of the study: labels in the store against late fusion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.fusion.made import BACKENDS, put, regime
from vsa_core.config import NamedModel, Settings
from vsa_core.fusion import late
from vsa_core.fusion.data import read_views
from vsa_core.fusion.resolve import resolve
from vsa_core.fusion.train import train_fusion
from vsa_core.labels import SENTIMENTS

NAMES = [str(s) for s in SENTIMENTS]


@pytest.mark.parametrize(("name", "margin"), [("shifted-0", 0.1), ("prior-0", 0.1)])
def test_labels_in_the_store_beat_late_fusion(
    shared: Path, tmp_path: Path, name: str, margin: float
) -> None:
    made = regime(shared, name)
    store = put(tmp_path, made)
    given = Settings(backends={m: NamedModel(name=m.value) for m in BACKENDS})
    model = train_fusion(store, made.video_ids, made.backends, given)
    assert model.reason is None
    ref = resolve(store, "r1", 0, made.video_ids, made.backends, model, given)
    rows = store.read(ref).to_pylist()
    views = read_views(store, made.video_ids, made.backends)
    mean = late.mean(views.probs["sentiment"]).argmax(axis=1)
    label = np.array([NAMES.index(row["sentiment"]) for row in rows])
    differ = np.array([row["agreement"] == "disagree" for row in rows])
    for some in (np.ones(len(rows), bool), differ):
        late_right = (mean == made.truth)[some].mean()
        assert (label == made.truth)[some].mean() > late_right + margin
    confidence = np.array([row["confidence"] for row in rows])
    assert abs(confidence.mean() - (label == made.truth).mean()) < 0.06
