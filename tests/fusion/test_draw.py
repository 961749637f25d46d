"""Which videos are drawn, and that a model of a part is told from one of the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

import vsa_core.fusion.train
from tests.fusion.made import AUDIO, BACKENDS, Made, planted, put, settings
from tests.fusion.test_train import review
from vsa_core.fusion.data import input_fingerprints, read_views
from vsa_core.fusion.draw import draw
from vsa_core.fusion.resolve import resolve
from vsa_core.store import Store

train_fusion = vsa_core.fusion.train.train_fusion
SIZES = {f"v{i:03d}": 20 + i % 7 for i in range(200)}


@pytest.fixture(scope="module")
def made() -> Made:
    return planted(n=1200, videos=24)


class TestDraw:
    def test_all_where_there_are_no_more_than_asked_for(self) -> None:
        assert draw(SIZES, sum(SIZES.values()), 0) == sorted(SIZES)

    def test_whole_videos_up_to_the_number(self) -> None:
        drawn = draw(SIZES, 1000, 0)
        assert drawn == sorted(set(drawn))
        assert 1000 <= sum(SIZES[v] for v in drawn) < 1000 + max(SIZES.values())
        assert drawn != sorted(SIZES)[: len(drawn)]
        assert drawn != draw(SIZES, 1000, 1)

    def test_growth_keeps_most_of_it(self) -> None:
        before = set(draw(SIZES, 1000, 0))
        more = SIZES | {f"w{i:03d}": 22 for i in range(20)}
        after = set(draw(more, 1000, 0))
        assert len(before & after) >= 0.8 * len(before)
        # A video whose turn comes later than all that were drawn changes nothing.
        late = next(v for v in sorted(more) if v not in after)
        assert set(draw({k: n for k, n in more.items() if k != late}, 1000, 0)) == after

    def test_reviewed_videos_always_and_never_too_few_to_hold_some_out(self) -> None:
        out = sorted(set(SIZES) - set(draw(SIZES, 1000, 0)))[:5]
        assert set(out) <= set(draw(SIZES, 1000, 0, always=[*out, "no such video"]))
        assert len(draw(SIZES, 1, 0)) == 10


class TestModelOfAPart:
    def test_below_the_limit_the_limit_is_no_part_of_the_model(
        self, tmp_path: Path, made: Made
    ) -> None:
        few = made.first(120)
        store = put(tmp_path, few)
        ids = {
            train_fusion(store, few.video_ids, few.backends, settings(max_segments=n)).model_id
            for n in (120, 121, 10**6)
        }
        assert len(ids) == 1

    def test_the_card_says_of_how_many_and_the_others_are_labelled_as_new(
        self, tmp_path: Path, made: Made
    ) -> None:
        store = put(tmp_path, made)
        given = settings(max_segments=600)
        model = train_fusion(store, made.video_ids, made.backends, given)
        assert model.card is not None
        data = model.card["data"]
        assert data["drawn_from"] == {"videos": 24, "segments": 1200}
        assert (data["videos"], data["segments"]) == (12, 600)
        assert model.card["limits"][-1].startswith("It learned from 600 of 1200 segments, 12 of 24")
        whole = train_fusion(store, made.video_ids, made.backends, settings())
        assert whole.card is not None
        assert whole.model_id != model.model_id
        assert not any("It learned from" in line for line in whole.card["limits"])
        ref = resolve(store, "r1", 0, made.video_ids, made.backends, model, given)
        rows = store.read(ref).to_pylist()
        right = [
            row["sentiment"] == ("negative", "neutral", "positive")[truth]
            for row, truth in zip(rows, made.truth, strict=True)
        ]
        drawn = set(draw(dict.fromkeys(made.video_ids, 50), 600, 0))
        new = [r for r, v in zip(right, made.videos, strict=True) if v not in drawn]
        assert len(new) == 600
        assert sum(new) / len(new) > 0.8  # what votes alone give is .6

    def test_it_stands_while_videos_come_that_are_not_drawn(
        self, tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = put(tmp_path, made)
        given = settings(max_segments=600)
        drawn = set(draw(dict.fromkeys(made.video_ids, 50), 600, 0))
        late = next(v for v in made.video_ids if v not in drawn)
        before = [v for v in made.video_ids if v != late]
        model = train_fusion(store, before, made.backends, given)

        def again(*_: object, **__: object) -> None:
            raise AssertionError("trained again")

        monkeypatch.setattr(vsa_core.fusion.train, "fuse", again)
        assert train_fusion(store, made.video_ids, made.backends, given) == model
        with pytest.raises(AssertionError, match="trained again"):
            train_fusion(store, [*before[1:], late], made.backends, settings(max_segments=500))

    def test_what_people_said_is_learned_from_wherever_they_looked(
        self, tmp_path: Path, made: Made
    ) -> None:
        store = put(tmp_path, made)
        drawn = set(draw(dict.fromkeys(made.video_ids, 50), 600, 0))
        row = next(i for i, v in enumerate(made.videos) if v not in drawn)
        review(store, made, (row, "positive"))
        model = train_fusion(store, made.video_ids, made.backends, settings(max_segments=600))
        assert model.card is not None
        assert model.card["data"]["reviewed"] == 1


class TestListing:
    """The same fingerprints, by asking for each video or by one listing."""

    def test_joined_files_are_listed_once(
        self, tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = put(tmp_path, made)
        videos = made.video_ids
        part = store.part_of(BACKENDS[AUDIO])
        (tmp_path / "embeddings" / part / f"{videos[3]}.parquet").unlink()
        one_by_one = [input_fingerprints(store, [v], made.backends)[0] for v in videos]
        assert one_by_one[3][-1] is None
        assert one_by_one[2][-1] == "made"
        assert input_fingerprints(store, videos, made.backends) == one_by_one
        store.compact()
        asked = []

        def find(*_: object, **__: object) -> None:
            asked.append(1)

        monkeypatch.setattr(Store, "find", find)
        assert input_fingerprints(Store(tmp_path), videos, made.backends) == one_by_one
        assert not asked

    def test_a_few_videos_among_many_files_open_only_their_own(
        self, tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = put(tmp_path, made)
        wanted = input_fingerprints(store, made.video_ids[:2], made.backends)

        def refs(*_: object, **__: object) -> None:
            raise AssertionError("every file was opened")

        monkeypatch.setattr(Store, "refs", refs)
        assert input_fingerprints(Store(tmp_path), made.video_ids[:2], made.backends) == wanted

    def test_views_come_in_the_order_of_the_videos_asked_for(
        self, tmp_path: Path, made: Made
    ) -> None:
        store = put(tmp_path, made)
        turned = made.video_ids[::-1]
        before = read_views(store, turned, made.backends)
        store.compact()
        after = read_views(Store(tmp_path), turned, made.backends)
        assert before.videos == after.videos == tuple(turned)
        assert before.segment_ids == after.segment_ids
        assert before.segment_ids[0].as_py() == f"{turned[0]}-0-900"
