"""Forgetting: nothing is left wherever it stood, everything else is, and the proof can fail."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs as fs
import pyarrow.parquet as pq
import pytest

from tests.small_person import (
    ANNA,
    ANNA_2,
    BEN,
    OTHER_URL,
    SOURCE,
    SOURCE_BEN,
    SOURCE_FAILED,
    URL,
    World,
    contents,
    digest,
    small_person,
)
from tests.small_s3 import small_s3
from vsa_core.errors import StoreError, UsageError
from vsa_core.folders import features_dir
from vsa_core.forget import forgotten, returned, unfinished
from vsa_core.forget.plan import count, plan, rows_of
from vsa_core.forget.remove import Proof, prove, remove
from vsa_core.forget.traces import Needles
from vsa_core.forget.trainings import note_training
from vsa_core.fusion import registry
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store
from vsa_core.supervised.features import features_of
from vsa_core.verify import verify

ANNAS = (ANNA, ANNA_2, SOURCE, SOURCE_FAILED)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_person(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(made: World, tmp_path: Path) -> Iterator[World]:
    """A world of one's own, at the place where its paths point."""
    place = made.own.parent.parent
    aside = tmp_path / "aside"
    shutil.copytree(place, aside)
    yield World(Store(made.store.root), made.download, made.own, made.model, made.bens)
    shutil.rmtree(place)
    shutil.move(aside, place)


def forget(world: World, *targets: str, keep_models: bool = False) -> Proof:
    removal = plan(world.store, targets, [world.download.parent], keep_models=keep_models)
    return prove(world.store, removal, remove(world.store, removal, by="ann"))


def found_in(root: Path, *needles: str) -> list[str]:
    """Files of a folder in which one of some strings stands, looked for plainly."""
    found = []
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        held = path.read_bytes()
        if path.suffix == ".parquet":
            held += repr(pq.read_table(path, partitioning=None).to_pylist()).encode()
            held += repr(pq.read_metadata(path).metadata).encode()
        if any(needle.encode() in held or needle in str(path) for needle in needles):
            found.append(str(path.relative_to(root)))
    return found


@pytest.mark.parametrize("compacted", [False, True])
def test_nothing_of_a_video_is_left_and_all_else_is(world: World, compacted: bool) -> None:
    if compacted:
        world.store.compact()
    before = contents(world.store)
    needles = (ANNA, digest("media 1"), f'{URL}"', f"{URL}'", "the server is silent")
    assert len(found_in(world.store.root, *needles)) > 12
    proof = forget(world, URL)
    assert proof.clean
    assert proof.search.files > 10
    silent = digest(SOURCE_FAILED + " 1")  # the other failed attempt says so too
    left = found_in(world.store.root, *needles[:-1])
    assert left == []
    after = contents(Store(world.store.root))
    for table, rows in before.items():
        if table not in ("attempts", "runs"):
            assert after[table] == [row for row in rows if ANNA not in row], table
    assert any(silent in row for row in after["attempts"])
    assert sum(OTHER_URL in row for row in after["attempts"]) == 1
    assert verify(Store(world.store.root)) == []
    assert unfinished(world.store) is None


def test_downloads_go_and_the_users_own_file_stays(world: World) -> None:
    forget(world, "annas", ANNA_2)
    assert not world.download.exists()
    assert [p.name for p in world.download.parent.iterdir()] == [SOURCE_BEN]
    assert world.own.read_text() == "media 2"


@pytest.mark.parametrize(
    ("target", "videos", "sources"),
    [
        (ANNA, {ANNA}, {SOURCE}),
        (f"{ANNA}-4000-7000", {ANNA}, {SOURCE}),
        (URL, {ANNA}, {SOURCE}),
        (SOURCE, {ANNA}, {SOURCE}),
        ("own", {ANNA_2}, set()),
        ("download", {ANNA}, {SOURCE}),
        ("https://video.example/watch?v=5", set(), {SOURCE_FAILED}),
        ("c1", {ANNA, ANNA_2}, {SOURCE}),
        ("Phones", {ANNA, ANNA_2}, {SOURCE}),
        ("annas", {ANNA}, {SOURCE, SOURCE_FAILED}),
    ],
)
def test_whatever_it_is_called_by(
    made: World, target: str, videos: set[str], sources: set[str]
) -> None:
    names = {"own": str(made.own), "download": str(made.download / "1.mp4")}
    removal = plan(made.store, [names.get(target, target)], [])
    assert set(removal.videos) == videos
    assert set(removal.sources) == sources


def test_a_name_that_nothing_bears_is_refused(made: World) -> None:
    for target in ("nobody", "https://video.example/watch?v=1x", "-", ""):
        with pytest.raises(UsageError, match="is called"):
            plan(made.store, [target], [])
    with pytest.raises(UsageError, match="no removal is unfinished"):
        plan(made.store, [], [])


def test_a_video_without_a_row_of_its_own_is_found(world: World) -> None:
    world.store.discard("videos", ANNA)
    removal = plan(world.store, [ANNA], [])
    assert removal.videos == (ANNA,)
    assert count(world.store, removal)["labels"] == 9
    assert forget(world, ANNA).clean
    assert found_in(world.store.root, ANNA) == []


def test_models_that_learned_from_it_go_and_others_stay(world: World) -> None:
    proof = forget(world, ANNA)
    assert proof.clean
    assert world.store.folders("models") == [world.bens]


def test_a_model_that_does_not_say_what_it_learned_from_goes(world: World) -> None:
    world.store.commit_folder("models", "old", {"card.json": b"{}", "network.bin": b"x"})
    assert "old" in plan(world.store, [ANNA], []).models


def test_models_can_be_kept_and_that_is_said(world: World) -> None:
    proof = forget(world, ANNA, keep_models=True)
    assert proof.clean
    assert world.model in world.store.folders("models")
    assert {path.split("/")[1] for path in found_in(world.store.root, ANNA)} == {world.model}


def test_what_was_decoded_to_hold_a_model_against_it_goes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path / "cache"))
    files = {row["video_id"]: row["media_path"] for row in rows_of(
        world.store, "videos", ("media_path", "video_id"))}  # fmt: skip
    decoded, bens = (features_of(features_dir(), Path(files[of])) for of in (ANNA, BEN))
    for folder in (decoded, bens):
        folder.mkdir(parents=True)
        (folder / "0.safetensors").write_bytes(b"pictures")
    assert forget(world, ANNA).clean
    assert not decoded.exists()
    assert bens.exists()


def test_what_was_trained_outside_the_store_is_named_and_what_it_decoded_goes(
    world: World, tmp_path: Path
) -> None:
    store, features = world.store, tmp_path / "features"
    [file] = [row["media_path"] for row in rows_of(store, "videos", ("media_path", "video_id"))
              if row["video_id"] == ANNA]  # fmt: skip
    decoded, others = features_of(features, Path(file)), features_of(features, tmp_path / "b.mp4")
    for folder in (decoded, others):
        folder.mkdir(parents=True)
        (folder / "0.safetensors").write_bytes(b"pictures")
    note_training(store, tmp_path / "anna", features, [ANNA, file])
    note_training(store, tmp_path / "later", features, [BEN], init=tmp_path / "anna" / "model")
    note_training(store, tmp_path / "ben", features, [ANNA])  # and its folder was removed
    note_training(store, tmp_path / "ben", features, [BEN])
    (tmp_path / "anna").mkdir()
    note_training(store, tmp_path / "anna", features, [BEN])  # refused, for it is of another set
    removal = plan(store, [ANNA], [world.download.parent])
    host = socket.gethostname()
    assert sorted(removal.trained) == [f"{tmp_path / n} on {host}" for n in ("anna", "later")]
    assert removal.features == (str(decoded),)
    proof = prove(store, removal, remove(store, removal, by="ann"))
    assert proof.clean
    assert not decoded.exists()
    assert others.exists()
    # Whoever has the file can tell; from the note nobody can tell which video it was.
    assert not found_in(store.root, ANNA, file)
    removal = plan(store, [BEN], [world.download.parent])
    assert len(removal.trained) == 3
    note = next((store.root / "trainings").rglob("card.json"))
    note.write_text("{")
    with pytest.raises(StoreError, match=r"trainings/.* remove that folder"):
        plan(store, [BEN], [world.download.parent])


def test_no_domain_is_labelled_by_a_model_that_went(world: World) -> None:
    store = world.store
    registry.promote(store, "both", world.bens, by="ann", reason="first")
    registry.promote(store, "both", world.model, by="ann", reason="better")
    registry.promote(store, "annas", world.model, by="ann", reason="first")
    registry.promote(store, "bens", world.bens, by="ann", reason="first")
    proof = forget(world, ANNA)
    assert proof.clean
    assert registry.current(store, "both") == world.bens
    assert registry.current(store, "bens") == world.bens
    last = registry.history(store, "annas")[-1]
    assert (last.action, last.current_model_id) == ("rolled_back", None)
    assert registry.current(store, "annas") is None
    before = registry.history(store)
    forget(world, ANNA_2)
    assert registry.history(store) == before
    assert verify(store) == []


def test_it_is_known_again_by_a_hash_and_not_fetched_again(world: World) -> None:
    assert forgotten(world.store, [ANNA, SOURCE, BEN]) == set()
    forget(world, URL)
    assert forgotten(world.store, [ANNA, ANNA_2, SOURCE, BEN]) == {ANNA, SOURCE}
    receipts = list((world.store.root / "forgotten").rglob("*.json"))
    assert json.loads(receipts[0].read_text())["rows"]["segments"] == 3
    rows = [r for t in world.store.scan("attempts") for r in t.to_pylist()]
    (row,) = [row for row in rows if row["source_id"] == SOURCE]
    assert (row["state"], row["kind"], row["channel"], row["url"]) == (
        "refused",
        "forgotten",
        "-",
        "",
    )
    assert row["title"] is row["video_id"] is None


def test_what_a_run_writes_afterwards_is_noticed_and_goes_with_the_same_command(
    world: World,
) -> None:
    ref = world.store.find("segments", ANNA)
    rows = world.store.read(ref)
    forget(world, URL)
    assert returned(world.store) == []
    world.store.commit("segments", ANNA, rows, ref.fingerprint)  # it had been read before
    assert returned(world.store) == [ANNA]
    assert forget(world, ANNA).clean
    assert returned(world.store) == []
    assert found_in(world.store.root, ANNA) == []


def test_runs_no_longer_name_it(world: World) -> None:
    forget(world, URL, str(world.own))
    row = world.store.read(world.store.find("runs", "r2")).to_pylist()[0]
    assert row["sources"] == ["forgotten", OTHER_URL, "clips"]
    assert row["failures"] == ["forgotten", "/clips/x.mp4: torn"]


def test_runs_no_longer_name_it_among_what_they_left_out(world: World) -> None:
    ref = world.store.find("runs", "r2")
    [row] = world.store.read(ref).to_pylist()
    example = {"path": URL, "reason": "nobody speaks"}
    counts = {"left_out": [{"kind": "no_speech", "count": 1, "examples": [example]}]}
    row["counts"] = json.dumps(counts)
    world.store.commit("runs", "r2", table_from_rows("runs", [row]), "f")
    assert forget(world, URL).clean
    [row] = world.store.read(world.store.find("runs", "r2")).to_pylist()
    (kind,) = json.loads(row["counts"])["left_out"]
    assert (kind["count"], kind["examples"]) == (1, [])


def test_a_run_that_labelled_nothing_else_goes(world: World) -> None:
    forget(world, ANNA, ANNA_2, BEN)
    assert world.store.keys("runs") == []
    assert verify(world.store) == []


def test_a_channels_own_name_goes_with_it(world: World) -> None:
    world.store.compact()
    assert forget(world, "annas").clean
    assert found_in(world.store.root, "annas") == []


def plant_a_row(world: World, rows: list) -> None:
    ref, table = rows
    world.store.commit("segments", ANNA, table, ref.fingerprint)


def plant_text(world: World, _rows: list) -> None:
    (world.store.root / "notes.json").write_text(json.dumps({"seen": f"{URL}&t=9"}))


def plant_name(world: World, _rows: list) -> None:
    (world.store.root / "media" / SOURCE).mkdir(parents=True)
    (world.store.root / "media" / SOURCE / "1.mp4").write_text("media 1")


def plant_footer(world: World, _rows: list) -> None:
    path = world.store.root / "segments" / f"{BEN}.parquet"
    data = pq.read_table(path)
    keys = json.dumps({ANNA: ["f", 0]}).encode()
    pq.write_table(data.replace_schema_metadata({**data.schema.metadata, b"vsa.keys": keys}), path)


def plant_hash(world: World, _rows: list) -> None:
    (world.store.root / "left.bin").write_bytes(b"\0" * 4_194_290 + digest("media 1").encode())


def plant_torn(world: World, _rows: list) -> None:
    (world.store.root / "left.parquet").write_bytes(b"PAR1 and no more")


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (plant_a_row, f"segments/{ANNA}.parquet: column segment_id"),
        (plant_text, "notes.json: its bytes"),
        (plant_name, f"media/{SOURCE}/1.mp4: its name"),
        (plant_footer, f"segments/{BEN}.parquet: its bytes"),
        (plant_hash, "left.bin: its bytes"),
        (plant_torn, "left.parquet: does not read"),
    ],
)
def test_the_proof_finds_what_was_left(
    world: World, plant: Callable[[World, list], None], said: str
) -> None:
    ref = world.store.find("segments", ANNA)
    rows = [ref, world.store.read(ref)]
    removal = plan(world.store, [URL], [world.download.parent])
    removed = remove(world.store, removal, by="ann")
    plant(world, rows)
    proof = prove(world.store, removal, removed)
    assert not proof.clean
    assert any(line.startswith(said) for line in (*proof.search.traces, *proof.search.unread))
    assert unfinished(world.store) is not None
    if plant is not plant_torn and plant is not plant_footer:
        for name in ("notes.json", "left.bin"):
            (world.store.root / name).unlink(missing_ok=True)
        assert forget(world).clean  # the journal knows what it is about
        assert unfinished(world.store) is None


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import vsa_core.store.disk as disk
    from vsa_core.cli import main

    left = int(sys.argv[2])
    def counted(act):
        def acted(*args, **kwargs):
            global left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return act(*args, **kwargs)
        return acted
    os.fsync, Path.unlink, os.rmdir = map(counted, (os.fsync, Path.unlink, os.rmdir))
    sys.exit(main(["forget", "annas", sys.argv[3], "--yes", "--store", sys.argv[1]]))
"""


def test_killed_anywhere_the_same_command_ends_it(world: World) -> None:
    ended = False
    steps, killed = 3, 0
    while not ended:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(world.store.root), str(steps), URL],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
        ended = done.returncode == 0
        if not ended:
            assert done.returncode == -9, done.stderr
            killed += 1
            steps += 16
    assert killed >= 3
    store = Store(world.store.root)
    assert found_in(store.root, ANNA, "annas", digest("media 1")) == []
    assert forgotten(store, [ANNA, SOURCE, SOURCE_FAILED, BEN]) == {ANNA, SOURCE, SOURCE_FAILED}
    assert verify(store) == []
    assert unfinished(store) is None
    rows = [r for t in store.scan("attempts") for r in t.to_pylist()]
    assert sorted(r["source_id"] for r in rows) == sorted([SOURCE, SOURCE_FAILED, SOURCE_BEN])


def test_in_an_object_store_no_object_and_no_name_is_left(tmp_path: Path) -> None:
    with small_s3() as s3:
        world = small_person(tmp_path, s3.url("store"))
        before = contents(world.store)
        world.store.compact()
        for table, key in (("segments", ANNA), ("videos", ANNA), ("runs", "r2")):
            ref = world.store.find(table, key)
            world.store.commit(table, key, world.store.read(ref), "newer than the compacted rows")
        assert forget(world, "annas").clean
        assert world.store.folders("models") == [world.bens]
        selector = fs.FileSelector(f"{s3.bucket}/store", recursive=True)
        listed = s3.filesystem.get_file_info(selector)
        assert [i.path for i in listed if ANNA in i.path or "annas" in i.path] == []
        fs.copy_files(
            f"{s3.bucket}/store", str(tmp_path / "copy"), s3.filesystem, fs.LocalFileSystem()
        )
        assert found_in(tmp_path / "copy", ANNA, digest("media 1"), "annas") == []
        after = contents(world.store)
        for table in ("videos", "segments", "predictions", "embeddings", "labels", "reviews"):
            assert after[table] == [row for row in before[table] if ANNA not in row], table
        assert verify(world.store) == []


def test_an_address_is_found_whole_and_in_any_spelling() -> None:
    needles = Needles((), ["https://a.example/1", "/x/née.mp4"])
    for text in ("https://a.example/1", "see https://a.example/1.", "https://a.example/1&t=2"):
        assert needles.within_text(text), text
    for text in ("https://a.example/12", "https://a.example/1/2", "https://a.example/1-b"):
        assert not needles.within_text(text), text
    assert needles.within(json.dumps("/x/née.mp4: torn").encode())
    assert not needles.within_text("/a/x/née.mp4")


def test_what_was_put_aside_as_unreadable_goes_too(world: World) -> None:
    aside = world.store.root / ".quarantine" / "labels" / "r1"
    aside.mkdir(parents=True)
    (aside / "shard-0.parquet").write_bytes(b"PAR1 " + ANNA.encode())
    assert forget(world, ANNA).clean
    assert list(aside.iterdir()) == []
