"""Reading what backends said: order, absence, broken embeddings, missing tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fusion.made import AUDIO, BACKENDS, FACE, TEXT, Made, planted, put
from vsa_core.errors import StoreError
from vsa_core.fusion.data import read_views, standardisation
from vsa_core.schemas import table_from_rows


@pytest.fixture
def made() -> Made:
    return planted(n=40, videos=4, missing=0.3)


def test_views_are_what_was_put_there(tmp_path: Path, made: Made) -> None:
    views = read_views(put(tmp_path, made), made.video_ids, made.backends)
    assert views.segment_ids.tolist() == made.segment_ids
    assert views.video_ids.tolist() == made.videos
    assert views.modalities == (TEXT, FACE, AUDIO)
    for i, modality in enumerate(views.modalities):
        view = made.views[modality]
        here = view.present
        assert here is not None
        assert (views.present[:, i] == here).all()
        assert (views.embeddings[i][here] == view.embedding[here]).all()
        assert (views.embeddings[i][~here] == 0).all()
        assert np.isnan(views.sentiment_probs[~here, i]).all()
        if view.sentiment is None:
            assert np.isnan(views.sentiment_probs[:, i]).all()
            assert np.isnan(views.emotion_probs[:, i]).all()
        else:
            assert (views.sentiment_probs[here, i] == view.sentiment[here]).all()
    assert views.notes == ()


def test_the_order_of_backends_and_repeats_of_videos_do_not_matter(
    tmp_path: Path, made: Made
) -> None:
    store = put(tmp_path, made)
    turned = dict(reversed(made.backends.items()))
    views = read_views(store, [*made.video_ids, "v00", "v03"], turned)
    assert views.modalities == (TEXT, FACE, AUDIO)
    assert views.segment_ids.tolist() == made.segment_ids


def test_a_view_without_votes_may_abstain_on_some_rows(tmp_path: Path, made: Made) -> None:
    sentiment = made.views[TEXT].sentiment
    assert sentiment is not None
    sentiment[::2] = np.nan
    views = read_views(put(tmp_path, made), made.video_ids, made.backends)
    assert np.isnan(views.sentiment_probs[::2, 0]).all()
    assert (views.present[:, 0] == made.views[TEXT].present).all()


def test_an_embedding_that_is_not_finite_makes_the_view_absent_with_a_note(
    tmp_path: Path, made: Made
) -> None:
    for value, row in ((np.nan, 3), (np.inf, 4)):
        made.views[TEXT].embedding[row, 1] = value
        made.views[TEXT].present[row] = True  # type: ignore[index]
    views = read_views(put(tmp_path, made), made.video_ids, made.backends)
    assert not views.present[[3, 4], 0].any()
    assert np.isnan(views.sentiment_probs[[3, 4], 0]).all()
    assert all(np.isfinite(x).all() for x in views.embeddings)
    assert views.notes == ("text: 2 embeddings are not finite and count as absent",)


def test_missing_tables_are_absence(tmp_path: Path, made: Made) -> None:
    store = put(tmp_path, made)
    parts = {m: store.part_of(b) for m, b in BACKENDS.items()}
    (tmp_path / "predictions" / parts[TEXT] / "v01.parquet").unlink()
    (tmp_path / "embeddings" / parts[FACE] / "v02.parquet").unlink()
    for table in ("predictions", "embeddings"):
        for path in (tmp_path / table / parts[AUDIO]).iterdir():
            path.unlink()
    views = read_views(store, made.video_ids, made.backends)
    assert not views.present[views.video_ids == "v01", 0].any()
    assert not views.present[views.video_ids == "v02", 1].any()
    assert not views.present[:, 2].any()
    assert views.embeddings[2].shape == (40, 0)
    assert views.present[:, 0].any()


def test_videos_without_segments_add_nothing(tmp_path: Path, made: Made) -> None:
    store = put(tmp_path, made)
    assert len(read_views(store, ["nowhere"], made.backends)) == 0
    assert len(read_views(store, [], made.backends)) == 0
    empty = table_from_rows("segments", [])
    store.commit("segments", "v9", empty, "made")
    assert len(read_views(store, ["v9", *made.video_ids], made.backends)) == 40


def test_predictions_of_segments_that_are_gone_are_not_read(tmp_path: Path, made: Made) -> None:
    store = put(tmp_path, made)
    ref = store.find("segments", "v00")
    assert ref is not None
    kept = store.read(ref).slice(2)
    store.commit("segments", "v00", kept, "recut")
    views = read_views(store, made.video_ids, made.backends)
    assert views.segment_ids.tolist() == made.segment_ids[2:]
    assert (views.present[:, 0] == made.views[TEXT].present[2:]).all()  # type: ignore[index]


def test_embeddings_of_several_widths_are_refused(tmp_path: Path, made: Made) -> None:
    store = put(tmp_path, made)
    narrow = replace(made.views[TEXT], embedding=made.views[TEXT].embedding[:, :5])
    other = put(tmp_path / "other", Made(made.videos, {TEXT: narrow}, made.truth))
    part = store.part_of(BACKENDS[TEXT])
    ref = other.find("embeddings", "v01", part=part)
    assert ref is not None
    store.commit("embeddings", "v01", other.read(ref), "made", part=part)
    with pytest.raises(StoreError, match=r"made-text@0123 have several widths \(\[5, 8\]\)"):
        read_views(store, made.video_ids, made.backends)


def test_standardisation() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(1000, 4)) * [1, 10, 0.01, 0] + [0, 5, 100, 7]).astype(np.float32)
    mean, scale = standardisation(x)
    z = (x - mean) / scale
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(z.std(axis=0), [1, 1, 1, 0], atol=1e-2)
    assert scale[3] == 1
    mean, scale = standardisation(x[:0])
    assert (mean.tolist(), scale.tolist()) == ([0] * 4, [1] * 4)
