"""Views made of arrays: who is present, who is embedded, what is broken."""

from __future__ import annotations

import numpy as np
import pytest

from vsa_core.fusion.views import Held, Views, views_from_arrays

NAN, INF = np.nan, np.inf


def _views(x: np.ndarray, votes: np.ndarray | None = None) -> Views:
    n = len(x)
    probs = np.full((n, 2, 2), 0.5)
    if votes is not None:
        probs[~votes, 0] = NAN
    names, classes = ("text", "face"), ("no", "yes")
    videos = np.array(["b", "a"] * n)[:n]
    return views_from_arrays(videos, probs, [x, None], names=names, classes=classes)


def test_presence_is_a_vote_or_an_embedding() -> None:
    x = np.array([[1.0, 2], [NAN, NAN], [3, 4], [NAN, NAN]])
    views = _views(x, np.array([True, True, False, False]))
    assert views.present[:, 0].tolist() == [True, True, True, False]
    assert views.embedded[:, 0].tolist() == [True, False, True, False]
    assert views.present[:, 1].all()
    assert not views.embedded[:, 1].any()
    held = views.embeddings[0]
    assert isinstance(held, Held)
    assert held.rows.tolist() == [0, 2]
    assert held.vectors.tolist() == [[1, 2], [3, 4]]
    assert views.embeddings[1].width == 0
    assert views.notes == ()


@pytest.mark.parametrize("broken", [[1.0, NAN], [INF, 2], [-INF, -INF], [1e300, 0]])
def test_a_broken_embedding_makes_its_view_absent_with_a_note(broken: list[float]) -> None:
    with np.errstate(all="raise"):
        views = _views(np.array([[1.0, 2], broken]))
    assert views.present[:, 0].tolist() == [True, False]
    assert np.isnan(views.probs["label"][1, 0]).all()
    assert np.isfinite(views.probs["label"][1, 1]).all()
    assert views.notes == ("text: 1 embeddings are not finite: absent there",)


def test_videos_are_numbered_by_name() -> None:
    views = _views(np.ones((5, 2)))
    assert views.videos == ("a", "b")
    assert views.video.tolist() == [1, 0, 1, 0, 1]
    assert views.segment_ids.to_pylist() == ["0", "1", "2", "3", "4"]
    assert len(views) == 5


def test_blocks_cover_every_row_once_and_always_alike() -> None:
    held = Held(np.array([1, 4, 6, 7, 9]), np.arange(10, dtype=np.float32).reshape(5, 2), 2)
    blocks = list(held.blocks())
    assert [rows.tolist() for rows, _ in blocks] == [[1, 4], [6, 7], [9]]
    assert np.concatenate([x for _, x in blocks]).tolist() == held.vectors.tolist()
    assert [rows.tolist() for rows, _ in held.blocks()] == [rows.tolist() for rows, _ in blocks]
    assert held.width == 2
