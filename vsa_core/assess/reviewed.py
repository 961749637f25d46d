"""A store's labels as its models gave them, and the reviews that they did not learn from."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vsa_core.errors import StoreError, UsageError
from vsa_core.fusion.card import read_card
from vsa_core.fusion.registry import known_since
from vsa_core.labels import MODALITIES
from vsa_core.query import ask
from vsa_core.schemas import vote_column
from vsa_core.store import Store
from vsa_core.truths import CLASSES, Truth

_COLUMNS = f"""
SELECT segment_id, video_id, sentiment, emotion, confidence, emotion_confidence, start_ms, end_ms,
  text, {", ".join(map(vote_column, MODALITIES))}, origin, channel_id, run_id FROM label_history
"""
# Of each video's finished runs the latest, as the view `labels` takes them, before reviews.
CURRENT = f"{_COLUMNS} JOIN current_runs USING (video_id, run_id)"
OF_RUN = f"{_COLUMNS} WHERE run_id = $run"
# A null leaves what an older review said, as in `labels`.
_REVIEWS = """
SELECT
  segment_id,
  arg_max(sentiment, (reviewed_at, review_id)) AS sentiment,
  arg_max(emotion, (reviewed_at, review_id)) AS emotion,
  min(reviewed_at) AS first_at
FROM reviews GROUP BY segment_id
"""


def not_learned(store: Store, found: pa.Table) -> tuple[pa.Table, int]:
    """The segments whose label cannot have learned from their review, and how many others."""
    since = known_since(store)
    fair = np.zeros(found.num_rows, np.bool_)
    columns = ["run_id", "model_id", "model_card"]
    for run in [row for rows in store.scan("runs", columns=columns) for row in rows.to_pylist()]:
        mine = pc.equal(found["run_id"], run["run_id"]).to_numpy()
        if not mine.any():
            continue
        if run["model_card"] is None or not _learned_from_reviews(store, run["model_id"]):
            fair |= mine
        else:
            stood = pa.scalar(since[run["model_id"]], found["first_at"].type)
            fair |= mine & pc.greater(found["first_at"], stood).to_numpy()
    return found.filter(pa.array(fair)), int((~fair).sum())


def _learned_from_reviews(store: Store, model_id: str) -> bool:
    """Whether it may have; a model whose card is gone may."""
    try:
        return bool(read_card(store, model_id)["data"]["reviewed"])
    except StoreError:
        return True


def of_reviews(store: Store) -> Truth:
    """What the reviews of a store say of its segments.

    Raises:
        UsageError: there are none.
    """
    answer = ask(store, _REVIEWS)
    found = pa.Table.from_batches(answer.batches, answer.schema)
    if not found.num_rows:
        raise UsageError(
            f"{store.location} has no reviews: give a file of segment_id and sentiment or emotion"
        )
    columns = {name: found[name].combine_chunks() for name in found.column_names}
    return Truth(
        "reviews",
        columns["segment_id"],
        {target: columns[target] for target in CLASSES},
        columns["first_at"],
    )
