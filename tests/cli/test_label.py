"""`vsa label`: what it prints, scores, refuses, and that the truth changes no label."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, f1_score

from tests.bring.tables import rows, truth, write
from vsa_core.cli import label as module
from vsa_core.cli import main
from vsa_core.cli.arguments import parser
from vsa_core.errors import VsaError
from vsa_core.fusion import knowing, strategies

NAMES = ["negative", "neutral", "positive"]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder one is in, with predictions and their truth; fusing that trains is left out."""
    table = rows(widths={"text": 4, "face": 3, "voice": 0})
    for i in (2, 3, 5, 6, 9):
        table[i] |= {"status": "absent", "probs": None, "embedding": None}
    write(tmp_path / "p.parquet", table)
    truth(tmp_path / "t.parquet", names=NAMES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(strategies, "STRATEGIES", ("late-mean", "late-product", "vote"))
    monkeypatch.setattr(knowing, "second_opinion", lambda *_: None)
    return tmp_path


def label(*words: str, strategy: str = "late-product") -> int:
    return main(
        ["label", "p.parquet", "-o", "l.parquet", "--strategy", strategy, *words,
         "--classes", ",".join(NAMES)]
    )  # fmt: skip


def summary(capsys: pytest.CaptureFixture[str], *words: str, **options: str) -> dict[str, Any]:
    code = label("--json", *words, **options)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_what_is_printed(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label("--truth", "t.parquet") == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "60 segments of 6 videos, seen by text, face, voice, fused by late-product"
    found = pq.read_table("l.parquet").to_pylist()
    for name in NAMES:
        count = sum(row["label"] == name for row in found)
        assert f"label {name} {count} {count / 60:.1%}" in [" ".join(x.split()) for x in lines]
    heads = next(line for line in lines if line.startswith("decided by"))
    assert heads.split() == ["decided", "by", "all", "agree", "disagree"]
    at = lines.index(heads)
    assert [line.split("  ")[0] for line in lines[at + 1 : at + 7]] == [
        "text alone", "face alone", "voice alone", "late-mean", "late-product", "vote",
    ]  # fmt: skip
    scores = summary(capsys, "--truth", "t.parquet")["scores"]
    shown = lines[at + 5].split()
    assert shown[0] == "late-product"
    assert shown[1:] == [
        figure
        for part in ("all", "agreeing", "disagreeing")
        for score in [scores["late-product"][part]]
        for figure in (
            f"{score['macro_f1']:.3f}",
            f"{score['accuracy']:.3f}",
            f"{score['coverage']:.2f}",
        )
    ]
    assert lines[-1] == "Labels: l.parquet"


def test_one_object_for_programs(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = summary(capsys, "--min-confidence", "0.8", "--seed", "7")
    found = pq.read_table("l.parquet").to_pylist()
    assert (said["segments"], said["videos"], said["strategy"]) == (60, 6, "late-product")
    assert (said["output"], said["classes"], said["scores"]) == ("l.parquet", NAMES, None)
    assert said["modalities"] == ["text", "face", "voice"]
    for key in ("agreement", "origin"):
        assert sum(said[key].values()) == 60
        for value, count in said[key].items():
            assert sum(row[key] == value for row in found) == count
    given = [row["label"] for row in found if row["label"]]
    assert 0 < said["unlabelled"] == 60 - len(given) < 60
    assert said["coverage"] == pytest.approx(len(given) / 60)
    assert said["labels"] == {name: given.count(name) for name in NAMES}
    settings = json.loads(pq.read_schema("l.parquet").metadata[b"vsa.settings"])
    assert settings["fusion"]["seed"] == 7
    assert settings["min_confidence"] == 0.8


def test_scores_are_those_of_scikit_learn(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = summary(capsys, "--truth", "t.parquet", "--min-confidence", "0.55")["scores"]
    given = pq.read_table("p.parquet").to_pylist()
    of: dict[str, dict[str, list[float]]] = {}
    for row in given:
        if row["probs"] is not None:
            of.setdefault(row["segment_id"], {})[row["modality"]] = row["probs"]
    ids = [f"s{i:03d}" for i in range(60)]
    tops = {s: {m: int(np.argmax(p)) for m, p in of[s].items()} for s in ids}
    alike = {s: len(tops[s]) > 1 and len(set(tops[s].values())) == 1 for s in ids}
    differ = {s: len(set(tops[s].values())) > 1 for s in ids}
    labels = {r["segment_id"]: r["label"] for r in pq.read_table("l.parquet").to_pylist()}
    said = {
        "late-product": {s: NAMES.index(x) if x else None for s, x in labels.items()},
        **{f"{m} alone": {s: tops[s].get(m) for s in ids} for m in ("text", "face", "voice")},
    }
    means = {s: np.mean(list(of[s].values()), axis=0) for s in ids}
    said["late-mean"] = {
        s: int(np.argmax(m)) if m.max() >= 0.55 else None for s, m in means.items()
    }
    assert set(scores) == {*said, "vote"}
    for name, decided in said.items():
        for part, wanted in (
            ("all", ids),
            ("agreeing", [s for s in ids if alike[s]]),
            ("disagreeing", [s for s in ids if differ[s]]),
        ):
            pairs = [(int(s[1:]) % 3, decided[s]) for s in wanted if decided[s] is not None]
            true, told = zip(*pairs, strict=True)
            score = scores[name][part]
            assert score["rows"] == len(wanted)
            assert score["coverage"] == pytest.approx(len(pairs) / len(wanted))
            assert score["accuracy"] == pytest.approx(accuracy_score(true, told))
            occurring = sorted({int(s[1:]) % 3 for s in wanted})
            f1 = f1_score(true, told, labels=occurring, average="macro", zero_division=0)
            assert score["macro_f1"] == pytest.approx(f1)
    assert 0 < scores["late-mean"]["disagreeing"]["coverage"] < 1


def test_the_truth_changes_no_label(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary(capsys)
    plain = Path("l.parquet").read_bytes()
    summary(capsys, "--truth", "t.parquet")
    assert Path("l.parquet").read_bytes() == plain


def test_a_strategy_that_cannot_be_scored_is_noted(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = strategies.fuse

    def fuse(views: Any, strategy: str, **options: Any) -> Any:
        if strategy == "vote":
            raise VsaError("too little to go by")
        return real(views, strategy, **options)

    monkeypatch.setattr(strategies, "fuse", fuse)
    said = summary(capsys, "--truth", "t.parquet")
    assert "vote" not in said["scores"]
    assert "vote is not scored: too little to go by" in said["notes"]


def test_reviews_go_to_the_engine_and_stand_but_are_not_scored(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("r.csv").write_text("segment_id,label\ns004,positive\ns001,neutral\n")
    told = []
    real = strategies.fuse

    def fuse(views: Any, strategy: str, **options: Any) -> Any:
        told.append(options["known"])
        return real(views, strategy, **options)

    monkeypatch.setattr(strategies, "fuse", fuse)
    said = summary(capsys, "--reviews", "r.csv", "--truth", "t.parquet")
    assert len(told) == 3
    for known in told:
        assert (known.target, known.rows.tolist(), known.labels.tolist()) == (
            "label",
            [1, 4],
            [1, 2],
        )
    assert (said["reviews"], said["origin"]["human"]) == (2, 2)
    assert "reviewed segments are left out of the scores" in said["notes"]
    assert {score["all"]["rows"] for score in said["scores"].values()} == {58}
    found = {row["segment_id"]: row for row in pq.read_table("l.parquet").to_pylist()}
    assert (found["s004"]["label"], found["s004"]["origin"]) == ("positive", "human")
    assert label("--reviews", "r.csv") == 0
    assert "note: 2 segments are labelled by people and learnt from" in capsys.readouterr().out


def test_notes_warnings_and_the_estimate_are_shown(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = strategies.fuse

    def fuse(*given: Any, **options: Any) -> Any:
        fused = real(*given, **options)
        fused.report["notes"].append("it rained")
        return fused

    monkeypatch.setattr(strategies, "fuse", fuse)
    # Face says the next class, so it disagrees with text more often than chance has it.
    table = rows(n=600, widths={"text": 4, "face": 3})
    for row in table[1::2]:
        row["probs"] = row["probs"][-1:] + row["probs"][:-1]
    write(made / "p.parquet", table)
    said = summary(capsys)
    assert [line for line in said["warnings"] if "contradicts the truth" in line]
    assert "it rained" in said["notes"]
    assert len(said["notes"]) == len(set(said["notes"]))
    assert said["estimate"]["value"] is None
    assert label() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "note: it rained" in lines
    assert f"warning: {said['warnings'][0]}" in lines
    assert f"accuracy not known: {said['estimate']['method']}" in lines


def test_reviews_tell_how_right_the_labels_are(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = rows(n=600)
    for row in table:
        row["video_id"] = f"v{int(row['segment_id'][1:]) // 30}"  # of all classes, not of one
    write(made / "p.parquet", table)
    alone = summary(capsys, "--ask", "100")
    assert alone["asked"] == {"file": "ask.csv", "segments": 100}
    assert 0.6 < alone["estimate"]["value"] < 0.95
    assert alone["estimate"]["low"] is None
    found = pq.read_table("l.parquet").to_pylist()
    given = {row["segment_id"]: NAMES.index(row["label"]) for row in found}
    with Path("ask.csv").open(newline="") as file:
        asked = list(csv.DictReader(file))
    assert list(asked[0]) == ["segment_id", "video_id", "inclusion", "label"]
    assert sum(1 / float(row["inclusion"]) for row in asked) == pytest.approx(600, rel=0.05)
    assert {row["label"] for row in asked} == {""}
    assert len({row["segment_id"] for row in asked}) == 100
    assert main(["label", "p.parquet", "-o", "l.parquet", "--strategy", "late-product",
                 "--classes", ",".join(NAMES), "--reviews", "ask.csv"]) == 2  # fmt: skip
    assert "ask.csv: no row has a label" in capsys.readouterr().err

    def answered(told: Callable[[str], int]) -> None:
        with Path("r.csv").open("w", newline="") as file:
            out = csv.DictWriter(file, list(asked[0]))
            out.writeheader()
            for row in asked:
                out.writerow({**row, "label": NAMES[told(row["segment_id"])]})

    truth(made / "t.parquet", 600, names=NAMES)
    answered(lambda segment: int(segment[1:]) % 3)
    said = summary(capsys, "--reviews", "r.csv", "--conformal", "0.1", "--truth", "t.parquet")
    right = said["scores"]["late-product"]["all"]["accuracy"]
    assert said["estimate"]["reviewed"] == 100
    assert said["estimate"]["low"] < right < said["estimate"]["high"]
    assert said["by_confidence"][0]["reviews"] == 100
    found = pq.read_table("l.parquet").to_pylist()
    for row in found:
        assert row["label"] in row["label_set"]
        if row["origin"] == "human":
            assert row["label_set"] == [row["label"]]
        else:
            assert row["confidence"] == pytest.approx(max(row["probs"]), abs=1e-6)
            assert row["label"] == NAMES[int(np.argmax(row["probs"]))]
    others = [row for row in found if row["origin"] != "human"]
    held = np.mean([NAMES[int(r["segment_id"][1:]) % 3] in r["label_set"] for r in others])
    assert held > 0.82
    assert label("--reviews", "r.csv") == 0
    out = capsys.readouterr().out
    assert "accuracy about" in out
    assert "100 reviews" in out
    # Reviews that contradict every label: the estimate must fall with them.
    answered(lambda segment: (given[segment] + 1) % 3)
    fallen = summary(capsys, "--reviews", "r.csv")
    assert fallen["estimate"]["value"] < said["estimate"]["value"] - 0.3


@pytest.fixture
def kept(made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with a model of the engine in `m`, and its labels in `l.parquet`."""
    monkeypatch.setattr(strategies, "STRATEGIES", ("late-mean", "crossview", strategies.DEFAULT))
    write(made / "p.parquet", rows(n=300))
    said = summary(capsys, "--save-model", "m", strategy="crossview")
    assert (said["saved_model"], said["model"]) == ("m", None)
    return made


def with_model(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["label", *words, "--model", "m", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_kept_model_labels_without_learning(
    kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fuse(views: Any, strategy: str, **options: Any) -> Any:
        assert strategy in strategies.UNTRAINED
        return real(views, strategy, **options)

    real = strategies.fuse
    monkeypatch.setattr(strategies, "fuse", fuse)
    said = with_model(capsys, "p.parquet", "-o", "again.parquet")
    assert pq.read_table("again.parquet").equals(pq.read_table("l.parquet"))
    digest = hashlib.sha256(Path("m/card.json").read_bytes()).hexdigest()
    assert said["model"] == {"folder": "m", "card_sha256": digest}
    assert (said["strategy"], said["report"]["drift"]) == ("crossview", [])
    assert "probs are taken to be of negative, neutral, positive, in this order" in said["notes"]
    assert any("6 of 6 videos are among those" in note for note in said["notes"])
    metadata = pq.read_schema("again.parquet").metadata
    assert json.loads(metadata[b"vsa.settings"])["model"] == said["model"]
    assert metadata[b"vsa.strategy"] == b"crossview"
    new = [{**row, "video_id": f"new-{row['video_id']}"} for row in rows(n=90, seed=1)]
    write(kept / "n.parquet", new)
    truth(kept / "t.parquet", n=90, names=NAMES)
    said = with_model(capsys, "n.parquet", "-o", "n.labels.parquet", "--truth", "t.parquet")
    assert (said["segments"], said["unlabelled"], said["report"]["known_videos"]) == (90, 0, 0)
    assert said["scores"]["crossview"]["all"]["accuracy"] > 0.7
    assert set(said["scores"]) >= {"late-mean", "crossview", "text alone"}
    assert not any("lie" in line or "too few to learn" in line for line in said["warnings"])
    for row in new:
        row["embedding"] = [3 * 1.3 + x for x in row["embedding"]]  # their deviation is about 1.3
    write(kept / "n.parquet", new)
    drift = with_model(capsys, "n.parquet", "-o", "n.labels.parquet")["warnings"]
    assert any(line.startswith("text embeddings lie") for line in drift)
    assert main(["label", "n.parquet", "-o", "n.labels.parquet", "--model", "m"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "90 segments of 6 videos, seen by text, face, fused by crossview of m"
    assert f"warning: {drift[0]}" in lines


def test_reviews_judge_a_kept_model(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(kept / "n.parquet", rows(n=300, seed=1))
    lines = [f"s{i:03d},{NAMES[i % 3]}" for i in range(0, 300, 4)]
    Path("r.csv").write_text("\n".join(["segment_id,label", *lines]))
    plain = with_model(capsys, "n.parquet", "-o", "n.labels.parquet")
    before = pq.read_table("n.labels.parquet").to_pylist()
    said = with_model(capsys, "n.parquet", "-o", "n.labels.parquet", "--reviews", "r.csv")
    after = pq.read_table("n.labels.parquet").to_pylist()
    assert plain["estimate"]["reviewed"] == 0
    assert said["estimate"]["reviewed"] == 75
    assert said["estimate"]["low"] < said["estimate"]["value"] < said["estimate"]["high"]
    reviewed = {line.split(",")[0] for line in lines}
    for old, new in zip(before, after, strict=True):
        human = new["segment_id"] in reviewed
        assert new["origin"] == ("human" if human else old["origin"])
        assert human or new["label"] == old["label"]
    # Who learned from a review is not judged by it.
    assert label("--reviews", "r.csv", "--save-model", "m2", strategy="crossview") == 0
    capsys.readouterr()
    words = ["label", "p.parquet", "-o", "x.parquet", "--model", "m2", "--reviews", "r.csv"]
    assert main(words) == 2
    assert "r.csv: m2 has learned from 75 of the reviewed segments" in capsys.readouterr().err
    assert not Path("x.parquet").exists()
    # Late fusion learns from none, so they may judge it again.
    assert label("--reviews", "r.csv", "--save-model", "m3", strategy="late-mean") == 0
    words = ["label", "p.parquet", "-o", "x.parquet", "--model", "m3", "--reviews", "r.csv"]
    assert main(words) == 0
    assert "note: 75 segments are labelled by people and judge the model" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--model", "no"], 2, "no is no folder: give one that --save-model has written"),
        (
            ["--model", "m", "--strategy", "late-mean"],
            2,
            "--model learns nothing anew: leave out --strategy, or --model",
        ),
        (
            ["--model", "m", "--save-model", "m2"],
            2,
            "--model learns nothing anew: leave out --save-model, or --model",
        ),
        (["--save-model", "m"], 2, "m is not empty: give a new folder with --save-model"),
        (
            ["--model", "m", "-o", "m/card.json"],
            2,
            "m/card.json would be in the model's folder m: write it elsewhere",
        ),
        (
            ["--model", "m", "--classes", "b,a,c"],
            2,
            "m knows the classes negative, neutral, positive, these segments have b, a, c: give "
            "probs of the same, in the same order, or learn anew without --model",
        ),
        (
            ["--model", "altered"],
            1,
            "altered/crossview.safetensors is not the file its card was written for: learn it "
            "again with --save-model",
        ),
    ],
)
def test_a_model_that_cannot_be_used_or_kept(
    kept: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    shutil.copytree("m", "altered")
    with Path("altered/crossview.safetensors").open("ab") as file:
        file.write(b"\0")
    assert main(["label", "p.parquet", "-o", "x.parquet", *words]) == code
    assert capsys.readouterr() == ("", f"vsa: {message}\n")
    assert sorted(path.name for path in kept.iterdir()) == [
        "altered", "l.parquet", "m", "p.parquet", "t.parquet",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["no.parquet", "-o", "l.parquet"],
            "no.parquet is not there: give a file (CSV, TSV, JSON, JSON Lines or Parquet), a "
            "folder or a pattern",
        ),
        (["p.parquet", "-o", "."], ". is no plain file: give the name of one with -o"),
        (
            ["p.parquet", "-o", "no/l.parquet"],
            "no/l.parquet would be in a folder that is not there: make it, or change -o",
        ),
        *(
            (
                ["p.parquet", *words],
                f"{words[-2]} {words[-1]}: its ending says the format: give .csv, .tsv, .json, "
                ".jsonl or .parquet",
            )
            for words in (
                ["-o", "l.xlsx"],
                ["-o", "l"],
                ["-o", "l.parquet.gz"],
                ["-o", "l.csv", "--ask", "5", "--ask-file", "ask.xls"],
            )
        ),
        (
            ["p.parquet", "-o", "./p.parquet"],
            "p.parquet is what is read: give another name with -o",
        ),
        (
            ["p.parquet", "-o", "t.parquet", "--truth", "t.parquet"],
            "t.parquet is what is read: give another name with -o",
        ),
        (
            ["p.parquet", "-o", "l.parquet", "--strategy", "best"],
            "no strategy 'best': take one of late-mean, late-product, vote",
        ),
        (
            ["p.parquet", "-o", "l.parquet", "--classes", "a,b"],
            "--classes names 2 classes (a, b), probs has 3: name each, in the order of probs",
        ),
        (
            ["p.parquet", "-o", "l.parquet", "--truth", "t.parquet"],
            "t.parquet: label 'negative' of segment 's000' is none of the classes (0, 1, 2): name "
            "them in the order of probs with --classes, such as --classes "
            "negative,neutral,positive",
        ),
        (
            ["t.parquet", "-o", "l.parquet"],
            "t.parquet lacks the column video_id: it needs segment_id, video_id, modality, probs "
            "and may have status and embedding; there are segment_id, label",
        ),
        (
            ["p.parquet", "-o", "l.parquet", "--min-confidence", "2"],
            "argument --min-confidence: '2' is no number from 0 to 1 (see `vsa label --help`)",
        ),
        (
            ["p.parquet", "-o", "l.parquet", "--min-confidence", "nan"],
            "argument --min-confidence: 'nan' is no number from 0 to 1 (see `vsa label --help`)",
        ),
        (
            ["p.parquet", "-o", "l.parquet", "--seed", "-1"],
            "argument --seed: '-1' is no whole number from 0 to 4294967295 (see `vsa label "
            "--help`)",
        ),
        (
            ["p.parquet", "-o", "l.parquet", "--conformal", "0.1"],
            "--conformal needs --reviews: list segments for them with --ask 100",
        ),
        (
            ["p.parquet", "-o", "l.parquet", "--conformal", "1"],
            "argument --conformal: '1' is not between 0 and 1 (see `vsa label --help`)",
        ),
        (
            ["p.parquet", "-o", "l.parquet", "--ask-file", "a.csv"],
            "--ask-file without --ask: say how many segments to list",
        ),
        (
            ["p.parquet", "-o", "l.parquet", "--ask", "5", "--ask-file", "l.parquet"],
            "l.parquet is where the labels go: give another name with --ask-file",
        ),
        (
            ["p.parquet", "-o", "l.parquet", "--ask", "5", "--ask-file", "p.parquet"],
            "p.parquet is what is read: give another name with --ask-file",
        ),
        (
            ["p.parquet"],
            "the following arguments are required: -o/--output (see `vsa label --help`)",
        ),
    ],
)
def test_bad_usage_is_one_line_and_writes_nothing(
    made: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    strategy = [] if "--strategy" in words else ["--strategy", "vote"]
    assert main(["label", *words, *strategy]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"vsa: {message}\n")
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before


def test_the_help_names_every_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["label", "--help"])
    said = " ".join(capsys.readouterr().out.replace("-\n", "-").split()).replace("- ", "-")
    *others, last = strategies.STRATEGIES
    assert f"{', '.join(others)} or {last} (default)" in said
    assert last == strategies.DEFAULT
    assert parser().parse_args(["label", "p", "-o", "l"]).strategy is None


def test_progress_is_told_only_when_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = module._Progress(sys.stderr)
    for seconds in range(70):
        now[0] = float(seconds)
        progress("crossview", seconds / 100)
    progress.done()
    assert capsys.readouterr().err == "crossview: 2%\ncrossview: 32%\ncrossview: 62%\n"


@pytest.mark.parametrize("regime", ["missing-0", "three-1", "n300-0"])
def test_the_regimes_are_such_tables(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], regime: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(strategies, "STRATEGIES", ("late-mean", "late-product"))
    monkeypatch.setattr(knowing, "second_opinion", lambda *_: None)
    known = shared / "regimes" / f"{regime}.truth.parquet"
    words = [str(shared / "regimes" / f"{regime}.parquet"), "-o", str(tmp_path / "l.parquet")]
    words += ["--classes", ",".join(NAMES), "--truth", str(known), "--strategy", "late-product"]
    assert main(["label", *words, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    true = {row["segment_id"]: row["label"] for row in pq.read_table(known).to_pylist()}
    found = pq.read_table(tmp_path / "l.parquet").to_pylist()
    assert [row["segment_id"] for row in found] == list(true)
    given = [(true[row["segment_id"]], row["label"]) for row in found if row["label"]]
    macro_f1 = f1_score(*zip(*given, strict=True), average="macro")
    assert scores["late-product"]["all"]["macro_f1"] == pytest.approx(macro_f1)
    best = max(s["all"]["macro_f1"] for name, s in scores.items() if name.endswith("alone"))
    assert macro_f1 > best  # as the study has it for these three


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_labels_go_where_the_ending_says_and_come_back_to_be_evaluated(
    made: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    """The scores of `vsa label --truth` are those of `vsa evaluate`, also of what is missing."""
    known = pq.read_table("t.parquet").slice(5)
    more = {"segment_id": ["x1", "x2", "x3"], "label": ["positive", "neutral", "negative"]}
    pq.write_table(pa.concat_tables([known, pa.table(more)]), "t.parquet")
    words = ["p.parquet", "-o", f"l.{ending}", "--strategy", "vote", "--min-confidence", "0.7"]
    given = ["--classes", ",".join(NAMES), "--truth", "t.parquet", "--json"]
    assert main(["label", *words, *given]) == 0
    said = json.loads(capsys.readouterr().out)["scores"]["vote"]["all"]
    assert main(["evaluate", f"l.{ending}", "t.parquet", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)["targets"]["sentiment"]
    assert said["rows"] == about["n"] == 58
    assert 0 < said["coverage"] < 55 / 58
    for name in ("coverage", "accuracy", "macro_f1"):
        assert said[name] == pytest.approx(about[name]["value"]), name
    assert about["ece"] is not None
    assert {part["name"] for part in about["by_kind"]["origin"]} > {"-", "none"}


def test_labels_of_any_classes_are_evaluated(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth(made / "t.parquet", names=["calm", "angry", "glad"])
    words = ["p.parquet", "-o", "l.csv", "--strategy", "vote", "--classes", "calm,angry,glad"]
    assert main(["label", *words, "--truth", "t.parquet", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["scores"]["vote"]["all"]
    assert main(["evaluate", "l.csv", "t.parquet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["targets"]) == ["label"]
    assert found["targets"]["label"]["classes"] == ["angry", "calm", "glad"]
    assert found["targets"]["label"]["accuracy"]["value"] == pytest.approx(said["accuracy"])


def test_what_is_asked_about_can_be_read_seen_and_given_back(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pq.read_table("p.parquet").to_pylist()
    addresses = [
        "https://video.example/watch?v=1", "https://video.example/2", "https://video.example/a.mp4",
        "/films/a b.mp4", "film.mp4", None,
    ]  # fmt: skip
    for row in table:
        i = int(row["segment_id"][1:])
        row |= {"text": "=1+1, née" if i % 2 else "Fine.\nReally.", "url": addresses[i % 6]}
        row |= {"start_ms": 65_250 + 1000 * i, "end_ms": 68_000 + 1000 * i}
    write(made / "p.parquet", table)
    assert label("--ask", "60", "--json") == 0
    assert json.loads(capsys.readouterr().out)["asked"] == {"file": "ask.csv", "segments": 60}
    with Path("ask.csv").open(newline="", encoding="utf-8") as file:
        asked = {row["segment_id"]: row for row in csv.DictReader(file)}
    assert list(asked["s000"]) == [
        "segment_id", "video_id", "inclusion", "label", "time", "text", "link",
    ]  # fmt: skip
    assert (asked["s001"]["time"], asked["s001"]["text"]) == ("1:06.2 to 1:09.0", "'=1+1, née")
    assert asked["s000"]["text"] == "Fine.\nReally."
    assert [asked[f"s00{i}"]["link"] for i in range(6)] == [
        "https://video.example/watch?v=1&t=65",
        "https://video.example/2?t=66",
        "https://video.example/a.mp4#t=67.25,70",
        "file:///films/a%20b.mp4#t=68.25,71",
        "film.mp4#t=69.25,72",
        "",
    ]
    # Filled in with a spreadsheet of half the world, saved as its "Unicode text".
    lines = ["\t".join(asked["s000"])]
    for i, row in enumerate(asked.values()):
        row |= {"label": NAMES[int(row["segment_id"][1:]) % 3] if i < 40 else ""}
        row |= {"inclusion": "0,5" if i % 2 else row["inclusion"].replace(".", ",")}
        lines.append("\t".join(f'"{value}"' for value in row.values()))
    Path("r.csv").write_bytes("\r\n".join(lines).encode("utf-16"))
    assert summary(capsys, "--reviews", "r.csv")["reviews"] == 40
    assert main(["evaluate", "l.parquet", "r.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["targets"]["sentiment"]["n"] == 40
    assert "not chosen with equal chances" in found["notes"][0]


def test_a_missing_face_written_as_a_constant_is_warned_of_or_dropped(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pq.read_table("p.parquet").to_pylist()
    for row in table:
        if row["modality"] == "face" and int(row["segment_id"][1:]) % 4 == 0:
            row |= {"status": "ok", "probs": [0.98, 0.01, 0.01], "embedding": [0.0] * 3}
    write(made / "p.parquet", table)
    warnings = summary(capsys)["warnings"]
    assert warnings[0].startswith("face: 15 of ")
    assert pq.read_table("l.parquet")["face_vote"][0].as_py() == "negative"
    assert not any("face: 15" in line for line in summary(capsys, "--drop-constant")["warnings"])
    assert pq.read_table("l.parquet")["face_vote"][0].as_py() is None


def test_classes_in_another_order_are_told_where_the_truth_is_known(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["p.parquet", "-o", "l.csv", "--strategy", "vote", "--classes"]
    given = ["neutral,positive,negative", "--truth", "t.parquet", "--json"]
    assert main(["label", *words, *given]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any("in the order negative, neutral, positive" in note for note in notes)
