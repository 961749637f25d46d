"""MELD on disk, in a store, and back; the miniature has upstream's own defects."""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from scripts.make_meld_miniature import COLUMNS, make
from tests.small_store import segment_id, small_store
from vsa_core import progress
from vsa_core.cli import meld as command
from vsa_core.config import NamedModel, Settings, load_config
from vsa_core.errors import SourceError, UsageError
from vsa_core.ingest import find_videos, ingest
from vsa_core.labels import Modality
from vsa_core.predict import predict
from vsa_core.progress import Steps
from vsa_core.runs import backend_ids
from vsa_core.segment import segment
from vsa_core.standing import standing
from vsa_core.store import Store
from vsa_core.supervised.meld import Meld, read_meld
from vsa_core.supervised.stored import (
    meld_from_store,
    segments_of_store,
    store_meld,
    write_truth,
)
from vsa_core.supervised.utterances import TARGETS
from vsa_core.transcripts import transcribe
from vsa_core.truths import read_truth
from vsa_core.verify import verify
from vsa_core.videos import read_video

JOY, NEUTRAL = TARGETS["emotion"].index("joy"), TARGETS["sentiment"].index("neutral")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature."""
    return make(tmp_path_factory.mktemp("meld"))


@pytest.fixture(scope="module")
def settings() -> Settings:
    """No real model, and sentences cut into pieces where they are cut at all."""
    models = {Modality.TEXT: NamedModel(name="fake-text")}
    base = load_config()
    short = base.segments.model_copy(update={"max_ms": 1_000, "min_ms": 0})
    return base.model_copy(update={"backends": models, "segments": short})


@pytest.fixture(scope="module")
def meld(folder: Path) -> Meld:
    return read_meld(folder)


@pytest.fixture(scope="module")
def kept(
    folder: Path, meld: Meld, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Store:
    """A store with the miniature; tests leave it as it is."""
    store = Store(tmp_path_factory.mktemp("kept") / "store")
    assert store_meld(meld, settings, store) == []
    return store


def rows(path: Path, *said: tuple[object, ...], encoding: str = "utf-8") -> None:
    lines = [",".join(COLUMNS)]
    for serial, (text, emotion, sentiment, dialogue, number) in enumerate(said):
        times = '"00:00:01,000","00:00:02,000"'
        lines.append(
            f'{serial},"{text}",Ross,{emotion},{sentiment},{dialogue},{number},1,1,{times}'
        )
    path.write_text("\n".join(lines) + "\n", encoding=encoding)


class TestTables:
    def test_the_published_ones_are_read_whole(self, shared: Path) -> None:
        found = read_meld(shared / "meld")
        assert {s: len(some) for s, some in found.utterances.items()} == {
            "train": 9_989,
            "dev": 1_109,
            "test": 2_610,
        }
        assert [str(problem) for problem in found.problems] == ["all clips: no clips: text only"]
        emotions = Counter(u.labels["emotion"] for u in found.utterances["train"])
        assert [emotions[n] for n in range(7)] == [1109, 271, 268, 1743, 4710, 683, 1205]
        first, second = found.utterances["dev"][:2]
        assert first.text == "Oh my God, he's lost it. He's totally lost it."
        assert (second.id, second.group) == ("meld-dev-dia0-utt1", "dev-dia0")
        assert second.before == (("Phoebe", first.text),)
        everyone = [u for some in found.utterances.values() for u in some]
        assert len({u.id for u in everyone}) == len(everyone)
        assert not any(mark in (u.text or "") for u in everyone for mark in "\x91\x92‘’")

    def test_what_was_said_before_goes_by_number_not_by_line(self, tmp_path: Path) -> None:
        rows(
            tmp_path / "dev.csv",
            ("third", "joy", "positive", 4, 7),
            ("first", "joy", "positive", 4, 0),
            ("of another", "joy", "positive", 5, 1),
            ("second", "joy", "positive", 4, 2),
        )
        said = read_meld(tmp_path).utterances["dev"]
        assert [u.text for u in said] == ["first", "second", "third", "of another"]
        assert [[text for _, text in u.before] for u in said] == [
            [],
            ["first"],
            ["first", "second"],
            [],
        ]

    @pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-8-sig"])
    def test_every_apostrophe_is_one(self, tmp_path: Path, encoding: str) -> None:
        rows(tmp_path / "test.csv", ("It’s née", "joy", "positive", 0, 0), encoding=encoding)
        assert read_meld(tmp_path).utterances["test"][0].text == "It's née"

    def test_a_wrong_row_is_left_out_and_named(self, tmp_path: Path) -> None:
        rows(
            tmp_path / "dev_sent_emo.csv",
            ("a", "bliss", "positive", 0, 0),
            ("b", "joy", "good", 0, 1),
            ("c", "joy", "positive", "x", 2),
            ("d", "joy", "positive", 0, -3),
            ("e", "Joy", "Positive", 0, 4),
            ("f", "joy", "positive", 0, 4),
        )
        found = read_meld(tmp_path)
        assert [(u.text, u.labels["emotion"]) for u in found.utterances["dev"]] == [("e", JOY)]
        what = [p.what for p in found.problems if "line" in p.name]
        assert what == [
            "'bliss' is no emotion: left out",
            "'good' is no sentiment: left out",
            "'x' is no number of a dialogue or an utterance: left out",
            "'-3' is no number of a dialogue or an utterance: left out",
            "dia0_utt4 is there twice: left out",
        ]
        absent = [p.split for p in found.problems if p.name == "table"]
        assert absent == ["train", "test"]

    def test_what_is_no_meld_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"has no train_sent_emo\.csv"):
            read_meld(tmp_path)
        (tmp_path / "dev.csv").write_text("a,b\n1,2\n")
        with pytest.raises(SourceError, match="lacks the column Utterance"):
            read_meld(tmp_path)
        with pytest.raises(SourceError, match=r"has no test_sent_emo\.csv"):
            read_meld(tmp_path, ["test"])
        with pytest.raises(SourceError, match="no split 'valid'"):
            read_meld(tmp_path, ["valid"])


class TestClips:
    def test_defects_are_named_and_their_utterances_stay(self, meld: Meld) -> None:
        counts = {s: (c["utterances"], c["with_clip"]) for s, c in meld.counts.items()}
        assert counts == {"train": (48, 47), "dev": (12, 11), "test": (12, 12)}
        broken, missing = [p for p in meld.problems if "differs" not in p.what]
        assert (broken.split, broken.name) == ("train", "dia125_utt3")
        assert broken.what.startswith("its clip does not decode: is not a video")
        assert str(missing) == "dev dia110_utt7: its clip is missing"
        last = meld.utterances["dev"][-1]
        assert (last.id, last.media, len(last.before)) == ("meld-dev-dia110-utt7", None, 7)

    def test_a_clip_is_all_of_its_file(self, meld: Meld) -> None:
        for utterance in meld.utterances["test"]:
            assert utterance.media is not None
            assert not utterance.media.name.startswith(("._", "final_videos_test"))
            assert utterance.start_ms == 0
            assert 1_000 <= utterance.end_ms <= 3_200

    def test_unchecked_clips_are_taken_as_they_are(self, folder: Path) -> None:
        found = read_meld(folder / "MELD.Raw", ["train"], check=False)
        assert found.counts["train"]["with_clip"] == 48
        assert {u.end_ms for u in found.utterances["train"]} == {0}

    def test_a_folder_without_its_clips_is_one_problem(self, folder: Path, tmp_path: Path) -> None:
        for name in ("dev_sent_emo.csv", "test_sent_emo.csv", "dev_splits_complete"):
            (tmp_path / name).symlink_to(folder / "MELD.Raw" / name)
        found = read_meld(tmp_path, ["dev", "test"])
        lines = [str(p) for p in found.problems if p.name == "clips"]
        assert lines == ["test clips: no clips: text only"]
        assert found.counts["dev"]["with_clip"] == 11

    def test_progress_is_told_clip_by_clip(self, folder: Path) -> None:
        heard: Counter[str] = Counter()

        class Ear:
            def begin(self, stage: str, total: int) -> None:
                heard[f"{stage}, total"] += total

            def advance(self, stage: str, items: float) -> None:
                heard[stage] += int(items)

        token = progress.LISTENER.set(Ear())
        try:
            read_meld(folder, ["dev"])
        finally:
            progress.LISTENER.reset(token)
        assert heard == {"check clips, total": 12, "check clips": 12}


def bytes_of(store: Store) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(store.root.rglob("*.parquet"))}


class TestStore:
    def test_what_is_read_back_is_what_was_read(self, kept: Store, meld: Meld) -> None:
        assert meld_from_store(kept) == meld.utterances

    def test_doing_it_again_changes_no_byte(
        self, kept: Store, meld: Meld, settings: Settings
    ) -> None:
        before = bytes_of(kept)
        store_meld(meld, settings, kept)
        assert bytes_of(kept) == before
        assert Counter(path.parent.name for path in before) == {
            "videos": 70,
            "transcripts": 70,
            "segments": 70,
            "utterances": 3,
        }

    def test_a_later_run_over_the_clips_lets_them_stand(
        self, kept: Store, folder: Path, settings: Settings, tmp_path: Path
    ) -> None:
        store = Store(shutil.copytree(kept.root, tmp_path / "store"))
        before = {p: b for p, b in bytes_of(store).items() if p.parent.name != "predictions"}
        clips = folder / "MELD.Raw" / "dev_splits_complete"
        found = find_videos([str(clips)], settings, store)
        assert len(found) == 11
        backends = backend_ids(settings)
        assert standing(found, settings, store, backends) == set()
        for one in found:
            ingest(one, settings, store)
            transcribe(one.video_id, settings, store, Steps("t"))
            segment(one.video_id, settings, store, Steps("s"))
            predict(Modality.TEXT, one.video_id, settings, store, Steps("p"))
        assert {path: path.read_bytes() for path in before} == before
        assert standing(found, settings, store, backends) == {one.video_id for one in found}

    def test_clips_that_were_moved_keep_their_words(
        self, kept: Store, folder: Path, settings: Settings, tmp_path: Path
    ) -> None:
        store = Store(shutil.copytree(kept.root, tmp_path / "store"))
        clip = folder / "MELD.Raw" / "dev_splits_complete" / "dia0_utt1.mp4"
        moved = Path(shutil.copy(clip, tmp_path / "moved.mp4"))
        (one,) = find_videos([str(moved)], settings, store)
        stood = store.find("transcripts", one.video_id)
        ingest(one, settings, store)
        assert read_video(store, one.video_id)["captions_kind"] is None
        assert transcribe(one.video_id, settings, store, Steps("t")) == stood
        assert read_video(store, one.video_id)["captions_kind"] == "corpus:meld"
        assert meld_from_store(store)["dev"][1].media == moved

    def test_what_was_transcribed_before_makes_room(
        self, folder: Path, settings: Settings, tmp_path: Path
    ) -> None:
        store = Store(tmp_path / "store")
        silent = settings.model_copy(
            update={"transcripts": settings.transcripts.model_copy(update={"transcriber": None})}
        )
        (one,) = find_videos(
            [str(folder / "MELD.Raw" / "dev_splits_complete" / "dia0_utt0.mp4")], silent, store
        )
        ingest(one, silent, store)
        transcribe(one.video_id, silent, store, Steps("t"))
        assert segment(one.video_id, silent, store, Steps("s")).rows == 0
        meld = read_meld(folder, ["dev"])
        store_meld(meld, silent, store)
        ref = store.find("segments", one.video_id)
        assert ref is not None
        (row,) = store.read(ref).to_pylist()
        assert row["text"] == meld.utterances["dev"][0].text
        assert (row["text_source"], row["language"]) == ("corpus:meld", "en")
        assert (row["start_ms"], row["end_ms"]) == (0, meld.utterances["dev"][0].end_ms)

    def test_one_clip_for_two_utterances_is_one_segment(
        self, folder: Path, settings: Settings, tmp_path: Path
    ) -> None:
        clips = tmp_path / "dev_splits_complete"
        clips.mkdir()
        source = folder / "MELD.Raw" / "dev_splits_complete" / "dia0_utt0.mp4"
        for number in range(2):
            shutil.copy(source, clips / f"dia3_utt{number}.mp4")
        rows(
            tmp_path / "dev.csv",
            ("Hi!", "joy", "positive", 3, 0),
            ("Hi!", "neutral", "neutral", 3, 1),
        )
        store = Store(tmp_path / "store")
        (problem,) = store_meld(read_meld(tmp_path, ["dev"]), settings, store)
        assert str(problem) == (
            "dev dia3_utt1: its clip is that of meld-dev-dia3-utt0, and is labelled once"
        )
        assert [u.media is None for u in meld_from_store(store)["dev"]] == [False, False]
        assert write_truth(store, tmp_path / "truth.csv") == 1
        _, line = (tmp_path / "truth.csv").read_text().splitlines()
        assert line.endswith(",,")  # people say two things of it
        assert verify(store) == []

    def test_truth_is_what_evaluate_reads(self, kept: Store, meld: Meld, tmp_path: Path) -> None:
        path = tmp_path / "truth.csv"
        assert write_truth(kept, path) == 70
        assert write_truth(kept, path, ["test"]) == 12
        truth = read_truth(path)
        assert len(truth.ids) == 12
        wanted = [TARGETS["emotion"][u.labels["emotion"]] for u in meld.utterances["test"]]
        assert truth.labels["emotion"].to_pylist() == wanted
        assert list(tmp_path.iterdir()) == [path]

    def test_forgetting_a_clip_takes_its_utterance_along(
        self, folder: Path, settings: Settings, tmp_path: Path
    ) -> None:
        store = Store(tmp_path / "store")
        meld = read_meld(folder, ["dev"])
        store_meld(meld, settings, store)
        (row,) = find_videos([str(meld.utterances["dev"][2].media)], settings, store)
        assert store.purge([row.video_id]) == {
            "videos": 1,
            "transcripts": 1,
            "segments": 1,
            "utterances": 1,
        }
        assert len(meld_from_store(store)["dev"]) == 11
        store_meld(meld, settings, store)  # asked for again
        assert meld_from_store(store)["dev"] == meld.utterances["dev"]

    def test_a_store_without_meld_says_so(self, tmp_path: Path) -> None:
        store = small_store(tmp_path / "store")
        with pytest.raises(UsageError, match="no utterances of MELD"):
            meld_from_store(store)
        with pytest.raises(UsageError, match="no segments of MELD"):
            write_truth(store, tmp_path / "truth.csv")


class TestSegmentsOfStore:
    def test_consensus_is_what_votes_agree_on_and_nobody_reviewed(self, tmp_path: Path) -> None:
        (one,) = segments_of_store(small_store(tmp_path / "store"), "consensus")
        assert (one.id, one.group, one.text) == (segment_id("v01", 0), "v01", "I love it")
        assert TARGETS["sentiment"][one.labels["sentiment"]] == "positive"
        assert (one.media, one.before) == (Path("/clips/v01.mp4"), ())

    def test_reviews_are_what_people_said_and_nothing_else(self, tmp_path: Path) -> None:
        (one,) = segments_of_store(small_store(tmp_path / "store"), "reviews")
        assert one.id == segment_id("v01", 4_000)
        said = {target: TARGETS[target][label] for target, label in one.labels.items()}
        assert said == {"sentiment": "negative", "emotion": "fear"}
        assert one.before == ((None, "I love it"),)


class TestCommand:
    def args(self, folder: Path, store: Path, **changed: object) -> argparse.Namespace:
        given = {"split": None, "truth": None, "json": False, "config": None, "profile": None}
        return argparse.Namespace(folder=folder, store=str(store), **given | changed)

    def test_it_says_what_is_there_and_what_is_wrong(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        truth = tmp_path / "truth.csv"
        args = self.args(folder, tmp_path / "store", split=["dev"], truth=truth, action="prepare")
        assert command.run(args) == 0
        out, err = capsys.readouterr()
        lines = out.splitlines()
        assert lines[1].split() == ["dev", "12", "1109", "11"]
        assert "dev dia110_utt7: its clip is missing" in lines
        assert f"Truth of 11 segments: {truth}" in lines
        assert err == ""

    def test_the_folder_of_truth_is_made(self, folder: Path, tmp_path: Path) -> None:
        truth = tmp_path / "not" / "yet" / "truth.csv"
        assert command.run(self.args(folder, tmp_path / "store", truth=truth)) == 0
        assert truth.exists()

    @pytest.mark.parametrize(
        ("where", "why"),
        [
            ("a-file/truth.csv", "cannot be written: .*: choose another"),
            ("a-folder", "is no plain file: give the name of one with --truth"),
            ("truth.xlsx", "its ending says the format: give .csv"),
        ],
    )
    def test_truth_that_could_not_be_written_is_told_before_the_work(
        self, folder: Path, tmp_path: Path, where: str, why: str
    ) -> None:
        (tmp_path / "a-file").touch()
        (tmp_path / "a-folder").mkdir()
        args = self.args(folder, tmp_path / "store", truth=tmp_path / where)
        with pytest.raises(UsageError, match=f"{where}:? {why}"):
            command.run(args)
        assert not (tmp_path / "store").exists()

    def test_json_lists_every_problem(
        self, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        args = self.args(shared / "meld", tmp_path / "store", json=True, action="prepare")
        assert command.run(args) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["splits"]["dev"] == {"utterances": 1109, "with_clip": 0, "known": 1109}
        assert found["problems"] == [
            {"split": "all", "name": "clips", "what": "no clips: text only"}
        ]
        assert len(meld_from_store(Store(tmp_path / "store"))["test"]) == 2610


def test_the_miniature_is_made_once(folder: Path) -> None:
    with pytest.raises(UsageError, match="is there already"):
        make(folder)
