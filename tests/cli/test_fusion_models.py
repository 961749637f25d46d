"""`vsa models fusion`: what is listed, promoted and rolled back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fusion.made import BACKENDS, planted, put, settings
from vsa_core.cli import main
from vsa_core.fusion.registry import consider, current, history, stored
from vsa_core.fusion.train import train_fusion
from vsa_core.fusion.verdict import Comparison
from vsa_core.store import Store


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A store with two models."""
    root = tmp_path_factory.mktemp("store")
    made = planted(120, 4)
    store = put(root, made)
    first = train_fusion(store, made.video_ids, BACKENDS, settings())
    second = train_fusion(store, made.video_ids[:3], BACKENDS, settings())
    return root, first.model_id, second.model_id


@pytest.fixture
def place(learned: tuple[Path, str, str], tmp_path: Path) -> tuple[Path, str, str]:
    """The models in a store of its own, without decisions."""
    root, *models = learned
    store, fresh = Store(root), Store(tmp_path / "store")
    for name in models:
        files = {f.name: f.read_bytes() for f in (root / "models" / name).iterdir()}
        fresh.commit_folder("models", name, files)
    first = next(iter(store.scan("videos")))
    fresh.commit("videos", first["video_id"][0].as_py(), first, "f")
    return fresh.root, models[0], models[1]


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["models", "fusion", *map(str, words)])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_promote_list_roll_back(
    place: tuple[Path, str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, one, two = place
    monkeypatch.setenv("LOGNAME", "ann")  # what getpass asks first
    code, out, _ = said(capsys, "promote", one, "--store", root)
    assert code == 0
    assert f"default: {one} labels from now on" in out
    assert "vsa relabel --domain default" in out
    code, out, _ = said(
        capsys, "promote", two, "--domain", "news", "--reason", "sounds right", "--store", root
    )
    assert f"news: {two} labels from now on" in out
    said(capsys, "promote", one, "--domain", "news", "--store", root)
    code, out, _ = said(capsys, "list", "--store", root)
    assert code == 0
    head, *lines = out.splitlines()
    assert head.split()[:4] == ["model", "state", "strategy", "videos"]
    of = {line.split()[0]: line for line in lines if line}
    assert "current (default), current (news)" in of[one]
    assert "former (news)" in of[two]
    assert "crossview" in of[two]
    assert of["news:"] == f"news: {one} promoted: promoted by hand"
    code, out, _ = said(capsys, "rollback", "--domain", "news", "--store", root)
    assert (code, out.splitlines()[0]) == (0, f"news: {two} labels from now on")
    last = history(Store(root), "news")[-1]
    assert (last.decided_by, last.reason) == ("ann", "rolled back by hand")
    assert history(Store(root), "news")[0].reason == "sounds right"


def test_promoting_the_current_model_is_no_decision(
    place: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    root, one, _ = place
    said(capsys, "promote", one, "--store", root)
    code, out, _ = said(capsys, "promote", one, "--store", root)
    assert (code, out) == (0, f"default: {one} labels already\n")
    assert len(history(Store(root))) == 1


def test_as_json(place: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    root, one, two = place
    store = Store(root)
    model = stored(store, one)
    consider(store, "news", model, Comparison(False, "late fusion tells more"), by="adapt")
    code, out, _ = said(capsys, "list", "--domain", "news", "--json", "--store", root)
    found = json.loads(out)
    assert code == 0
    assert [m["model_id"] for m in found["models"]] == [one]
    assert found["models"][0]["states"] == {"news": "candidate"}
    assert found["decisions"][0]["reason"] == "late fusion tells more"
    assert found["decisions"][0]["metrics"]["better"] is False
    code, out, _ = said(capsys, "list", "--json", "--store", root)
    assert {m["model_id"] for m in json.loads(out)["models"]} == {one, two}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["promote", "nothing"], "holds no fusion model 'nothing': `vsa models fusion list`"),
        (["rollback"], "default has no model of its own: there is nothing to roll back"),
        (["promote"], "required: MODEL_ID"),
        ([], "required: ACTION"),
        (["rollback", "--domain", "a\x00b"], "cannot name a domain"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    place: tuple[Path, str, str],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    complaint: str,
) -> None:
    root, *_ = place
    where = ["--store", root] if words else []
    code, out, err = said(capsys, *words, *where)
    assert complaint in err
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert current(Store(root), "default") is None


def test_where_there_is_no_store_or_no_model(
    tmp_path: Path, place: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = said(capsys, "list", "--store", tmp_path / "none")
    assert code == 2
    assert "no store at" in err
    root, *_ = place
    code, out, _ = said(capsys, "list", "--domain", "sport", "--store", root)
    assert (code, out) == (0, f"{root} holds no fusion model that was decided on for sport\n")


def test_a_card_that_does_not_read_is_named(
    place: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    root, one, two = place
    (root / "models" / one / "card.json").write_text("{")
    code, out, err = said(capsys, "list", "--store", root)
    assert code == 0
    assert "does not read" in next(line for line in out.splitlines() if line.startswith(one))
    assert two in out
    assert f"models/{one}" in err
