"""Reading what backends said: order, absence, broken embeddings, missing tables, scratch files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fusion.made import AUDIO, BACKENDS, FACE, TEXT, Made, planted, put
from vsa_core.errors import StoreError
from vsa_core.fusion.data import read_views
from vsa_core.fusion.spool import Spooled
from vsa_core.fusion.views import Embedding, Held, Views
from vsa_core.schemas import table_from_rows


@pytest.fixture
def made() -> Made:
    return planted(n=40, videos=4, missing=0.3)


def whole(embedding: Embedding, n: int) -> NDArray[np.float32]:
    """(n, d) in one piece, NaN where there is none; each row may come once only."""
    found = np.full((n, embedding.width), np.nan, np.float32)
    for rows, vectors in embedding.blocks():
        assert np.isnan(found[rows]).all()
        found[rows] = vectors
    return found


def videos_of(views: Views) -> list[str]:
    return [views.videos[i] for i in views.video]


def test_views_are_what_was_put_there(tmp_path: Path, made: Made) -> None:
    views = read_views(put(tmp_path, made), made.video_ids, made.backends)
    assert views.segment_ids.to_pylist() == made.segment_ids
    assert videos_of(views) == made.videos
    assert views.names == ("text", "face", "audio")
    assert list(views.probs) == list(views.classes) == ["sentiment", "emotion"]
    assert views.classes["sentiment"] == ("negative", "neutral", "positive")
    for i, modality in enumerate((TEXT, FACE, AUDIO)):
        view = made.views[modality]
        here = view.present
        assert here is not None
        assert (views.present[:, i] == here).all()
        assert (views.embedded[:, i] == here).all()
        read = whole(views.embeddings[i], 40)
        assert (read[here] == view.embedding[here]).all()
        assert np.isnan(read[~here]).all()
        for target, said in (("sentiment", view.sentiment), ("emotion", view.emotion)):
            found = views.probs[target][:, i]
            assert np.isnan(found[~here]).all()
            assert np.isnan(found).all() if said is None else (found[here] == said[here]).all()
    assert views.notes == ()


def test_the_order_of_backends_and_repeats_of_videos_do_not_matter(
    tmp_path: Path, made: Made
) -> None:
    store = put(tmp_path, made)
    turned = dict(reversed(made.backends.items()))
    views = read_views(store, [*made.video_ids, "v00", "v03"], turned)
    assert views.names == ("text", "face", "audio")
    assert views.segment_ids.to_pylist() == made.segment_ids


def test_a_target_nobody_votes_on_is_left_out_but_for_the_sentiment(
    tmp_path: Path, made: Made
) -> None:
    for view in made.views.values():
        view.sentiment = view.emotion = None
    store = put(tmp_path, made)
    assert list(read_views(store, made.video_ids, made.backends).probs) == ["sentiment"]
    asked = read_views(store, made.video_ids, made.backends, targets=["sentiment", "emotion"])
    assert list(asked.probs) == list(asked.classes) == ["sentiment", "emotion"]
    assert np.isnan(asked.probs["emotion"]).all()


def test_a_view_may_abstain_on_some_rows_and_is_present_by_its_embedding(
    tmp_path: Path, made: Made
) -> None:
    for said in (made.views[TEXT].sentiment, made.views[TEXT].emotion):
        assert said is not None
        said[::2] = np.nan
    views = read_views(put(tmp_path, made), made.video_ids, made.backends)
    assert np.isnan(views.probs["sentiment"][::2, 0]).all()
    assert (views.present[:, 0] == made.views[TEXT].present).all()


def test_an_embedding_that_is_not_finite_makes_the_view_absent_vote_and_all_with_a_note(
    tmp_path: Path, made: Made
) -> None:
    for value, row in ((np.nan, 3), (np.inf, 4)):
        made.views[TEXT].embedding[row, 1] = value
        made.views[TEXT].present[row] = True  # type: ignore[index]
    store = put(tmp_path, made)
    for held_bytes in (10**6, 0):
        views = read_views(store, made.video_ids, made.backends, held_bytes=held_bytes)
        assert not views.present[[3, 4], 0].any()
        assert not views.embedded[[3, 4], 0].any()
        assert np.isnan(views.probs["sentiment"][[3, 4], 0]).all()
        assert np.isnan(views.probs["emotion"][[3, 4], 0]).all()
        assert all(np.isfinite(x).all() for e in views.embeddings for _, x in e.blocks())
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
    of = np.array(videos_of(views))
    assert not views.present[of == "v01", 0].any()
    assert not views.embedded[of == "v02", 1].any()
    # What it votes stands without an embedding too.
    assert (views.present[:, 1] == made.views[FACE].present)[of == "v02"].all()
    assert not views.present[:, 2].any()
    assert views.embeddings[2].width == 0
    assert list(views.embeddings[2].blocks()) == []
    assert views.present[:, 0].any()


def test_videos_without_segments_add_nothing(tmp_path: Path, made: Made) -> None:
    store = put(tmp_path, made)
    assert len(read_views(store, ["nowhere"], made.backends)) == 0
    assert read_views(store, [], made.backends).videos == ()
    empty = table_from_rows("segments", [])
    store.commit("segments", "v9", empty, "made")
    views = read_views(store, ["v9", *made.video_ids], made.backends)
    assert len(views) == 40
    assert views.videos == tuple(made.video_ids)


def test_predictions_of_segments_that_are_gone_are_not_read(tmp_path: Path, made: Made) -> None:
    store = put(tmp_path, made)
    ref = store.find("segments", "v00")
    assert ref is not None
    kept = store.read(ref).slice(2)
    store.commit("segments", "v00", kept, "recut")
    views = read_views(store, made.video_ids, made.backends)
    assert views.segment_ids.to_pylist() == made.segment_ids[2:]
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
    store.compact()
    with pytest.raises(StoreError, match=r"several widths \(\[5, 8\]\)|differ in width \(\[5, 8"):
        read_views(store, made.video_ids, made.backends)


class TestTooLargeToHold:
    def test_scratch_files_give_what_is_held_in_the_same_blocks(
        self, tmp_path: Path, made: Made
    ) -> None:
        made.views[TEXT].embedding[5] = np.nan
        store = put(tmp_path, made)
        # As a compacted store may have them: not in the order of the segments.
        part = store.part_of(BACKENDS[TEXT])
        ref = store.find("embeddings", "v01", part=part)
        assert ref is not None
        store.commit("embeddings", "v01", store.read(ref)[::-1], "turned", part=part)
        held = read_views(store, made.video_ids, made.backends)
        spooled = read_views(store, made.video_ids, made.backends, held_bytes=0)
        for one, other in zip(held.embeddings, spooled.embeddings, strict=True):
            assert isinstance(one, Held)
            assert isinstance(other, Spooled)
            assert other.width == one.width
            assert (np.diff(one.rows) > 0).all()
            for (at, vectors), (also, same) in zip(one.blocks(), other.blocks(), strict=True):
                np.testing.assert_array_equal(at, also)
                np.testing.assert_array_equal(vectors, same)
        text = whole(held.embeddings[0], 40)
        known = np.isfinite(text).all(axis=1)
        np.testing.assert_array_equal(text[known], made.views[TEXT].embedding[known])

    def test_only_what_fits_is_held(self, tmp_path: Path, made: Made) -> None:
        store = put(tmp_path, made)
        text = 4 * 8 * int(made.views[TEXT].present.sum())  # type: ignore[union-attr]
        views = read_views(store, made.video_ids, made.backends, held_bytes=text + 100)
        kinds = [type(e) for e in views.embeddings]
        assert kinds == [Held, Spooled, Spooled]

    def test_a_compacted_store_gives_the_same(self, tmp_path: Path, made: Made) -> None:
        before = read_views(put(tmp_path / "a", made), made.video_ids, made.backends)
        store = put(tmp_path / "b", made)
        # A video committed anew after compaction supersedes its rows in the joined file.
        stale = replace(made.views[TEXT], embedding=made.views[TEXT].embedding + 9)
        put(tmp_path / "b", Made(made.videos, {**made.views, TEXT: stale}, made.truth))
        store.compact()
        part = store.part_of(BACKENDS[TEXT])
        fresh = put(tmp_path / "c", made)
        for video in made.video_ids:
            ref = fresh.find("embeddings", video, part=part)
            assert ref is not None
            store.commit("embeddings", video, fresh.read(ref), "anew", part=part)
        for held_bytes in (10**6, 0):
            wanted = made.video_ids
            after = read_views(store, wanted, made.backends, held_bytes=held_bytes)
            assert after.segment_ids == before.segment_ids
            np.testing.assert_array_equal(after.present, before.present)
            for target, said in before.probs.items():
                np.testing.assert_array_equal(after.probs[target], said)
            for one, other in zip(before.embeddings, after.embeddings, strict=True):
                np.testing.assert_array_equal(whole(other, 40), whole(one, 40))
        some = read_views(store, ["v02"], made.backends)
        assert set(videos_of(some)) == {"v02"}
        assert some.present.any(axis=0).all()

    def test_a_damaged_file_is_one_clear_line(self, tmp_path: Path, made: Made) -> None:
        store = put(tmp_path, made)
        store.compact()
        (path,) = (tmp_path / "embeddings" / store.part_of(BACKENDS[TEXT])).iterdir()
        content = bytearray(path.read_bytes())
        content[200:260] = bytes(60)
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"does not read .*verify --repair") as error:
            read_views(store, made.video_ids, made.backends)
        assert "\n" not in str(error.value)
