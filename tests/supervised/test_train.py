"""Training: repeatable, resumed bit for bit after an interrupt or a kill, ended early, told of."""

from __future__ import annotations

import csv
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests import bad_media
from tests.flows.test_command import VSA
from tests.small_checkpoints import bert
from tests.small_supervised import NEEDS_GPU
from vsa_core.errors import ConfigError, StoreError, UsageError, VsaError
from vsa_core.labels import SENTIMENTS
from vsa_core.progress import LISTENER, Interrupted
from vsa_core.supervised.encoders import make_encoders
from vsa_core.supervised.features import FeatureCache
from vsa_core.supervised.fit import cooled, cross_validate, figures, fit
from vsa_core.supervised.journal import open_journals
from vsa_core.supervised.model import MultimodalNet
from vsa_core.supervised.package import load_package
from vsa_core.supervised.recipe import Recipe, recipe_of
from vsa_core.supervised.train import Training
from vsa_core.supervised.utterances import Utterance, groups_in_folds

WORDS = ("lovely", "great", "awful", "hate", "table", "chair", "day", "it", "is", "a")
SAID = {0: ("awful", "hate"), 1: ("table", "chair"), 2: ("lovely", "great")}
EMOTIONS = {0: 0, 1: 4, 2: 3}
LEARNS = {"epochs": 9, "patience": 9, "accumulate": 1, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("models") / "bert", WORDS)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Utterances whose words tell their sentiment; every third has sound, too."""
    folder, draw = tmp_path_factory.mktemp("media"), random.Random(0)
    found = []
    for at in range(48):
        sentiment = at % 3
        word = draw.choice(SAID[sentiment])
        media = None
        if at % 3 == 1 and at < 24:
            sound = (0.1 * np.random.default_rng(at).normal(size=8000)).astype(np.float32)
            media = bad_media.write(folder / f"{at}.mp4", bad_media.film(4), sound)
        found.append(
            Utterance(
                id=f"u{at}",
                group=f"d{at // 4}",
                text=word,
                media=media,
                labels={"sentiment": sentiment, "emotion": EMOTIONS[sentiment]},
            )
        )
    return found


def recipe(checkpoint: Path, **sections: dict[str, Any]) -> Recipe:
    values: dict[str, Any] = {
        "encoders": {
            "text": {"checkpoint": str(checkpoint), "learning_rate": 3e-3},
            "video": None,
            "audio": {"mels": 16, "max_s": 1.0},
            "width": 16,
        },
        "fusion": {"width": 24, "dropout": 0.0, "modality_dropout": 0.2},
        "augmentation": {"token_dropout": 0.0},
        "schedule": {"epochs": 3, "batch_size": 6, "accumulate": 2, "checkpoint_minutes": 0},
    }
    for name, section in sections.items():
        values[name] = {**values[name], **section} if name in values else section
    return recipe_of(values, "test")


def training(
    of: Recipe, rows: Sequence[Utterance], folder: Path, features: Path, device: str = "cpu"
) -> Training:
    torch.manual_seed(of.seed)
    net = MultimodalNet(of, make_encoders(of.encoders))
    audio = of.encoders.audio
    cache = FeatureCache(features, None, audio) if audio else None
    return Training(folder, net, of, rows[:36], rows[36:], cache, device=device)


class Stopping:
    """Stops a training after so many of its steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def begin(self, stage: str, total: int) -> None:
        pass

    def advance(self, stage: str, items: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise Interrupted


def test_interrupted_anywhere_it_ends_the_same_bit_for_bit(
    checkpoint: Path, spoken: list[Utterance], tmp_path: Path
) -> None:
    of, features = recipe(checkpoint), tmp_path / "features"
    whole = training(of, spoken, tmp_path / "whole", features).run()
    folder, stops = tmp_path / "stopped", 0
    for steps in (1, 2, 4, 1):  # three steps an epoch: in the middle, at its end, over it
        token = LISTENER.set(Stopping(steps))
        try:
            with pytest.raises(Interrupted):
                training(of, spoken, folder, features).run()
            stops += 1
        finally:
            LISTENER.reset(token)
    torch.manual_seed(99)  # whatever the process drew before
    resumed = training(of, spoken, folder, features).run()
    assert stops == 4
    assert resumed.history == whole.history
    assert resumed.epoch == whole.epoch
    for name, x in whole.net.state_dict().items():
        assert torch.equal(x, resumed.net.state_dict()[name]), name
    last = [
        torch.load(tmp_path / f / "checkpoint.pt", weights_only=True) for f in ("whole", "stopped")
    ]
    for name, x in last[0]["net"].items():
        assert torch.equal(x, last[1]["net"][name]), name


def test_it_learns_what_can_be_learned_and_the_seed_decides(
    checkpoint: Path, spoken: list[Utterance], tmp_path: Path
) -> None:
    of = recipe(checkpoint, schedule=LEARNS, encoders={"audio": None})
    one = training(of, spoken, tmp_path / "one", tmp_path / "features").run()
    assert one.history[one.epoch]["dev_sentiment_weighted_f1"] > 0.9
    assert one.history[-1]["train_loss"] < one.history[0]["train_loss"]
    other = of.model_copy(update={"seed": 1})
    two = training(other, spoken, tmp_path / "two", tmp_path / "features").run()
    assert two.history != one.history


def test_it_ends_early_and_keeps_the_best_epoch(
    checkpoint: Path, spoken: list[Utterance], tmp_path: Path
) -> None:
    # At a rate of nearly nothing no epoch is better than the first.
    schedule = {"epochs": 9, "patience": 2, "monitor": "sentiment", "learning_rate": 1e-12}
    of = recipe(checkpoint, schedule=schedule)
    of = recipe_of(
        {
            **of.model_dump(mode="json"),
            "encoders": {
                **of.model_dump(mode="json")["encoders"],
                "text": {"checkpoint": str(checkpoint), "learning_rate": 1e-12},
                "audio": None,
            },
        },
        "test",
    )
    found = training(of, spoken, tmp_path / "t", tmp_path / "features").run()
    assert (found.epochs, found.epoch) == (3, 0)
    best = load_file(tmp_path / "t" / "best.safetensors")
    assert all(torch.equal(x, best[name]) for name, x in found.net.state_dict().items())


def test_another_recipe_in_the_same_folder_is_refused(
    checkpoint: Path, spoken: list[Utterance], tmp_path: Path
) -> None:
    of = recipe(checkpoint, schedule={"epochs": 1})
    training(of, spoken, tmp_path / "t", tmp_path / "features").run()
    for other, rows in ((of.model_copy(update={"seed": 5}), spoken), (of, spoken[::-1])):
        with pytest.raises(ConfigError, match="of another recipe, of other utterances"):
            training(other, rows, tmp_path / "t", tmp_path / "features")
    torch.manual_seed(77)
    other_weights = MultimodalNet(of, make_encoders(of.encoders))
    cache = FeatureCache(tmp_path / "features", None, of.encoders.audio)
    with pytest.raises(ConfigError, match="from other weights"):
        Training(tmp_path / "t", other_weights, of, spoken[:36], spoken[36:], cache)
    (tmp_path / "t" / "checkpoint.pt").write_bytes(b"half of one")
    with pytest.raises(StoreError, match=r"cannot be read .* remove it"):
        training(of, spoken, tmp_path / "t", tmp_path / "features")


def test_a_loss_that_is_no_number_is_one_line(
    checkpoint: Path, spoken: list[Utterance], tmp_path: Path
) -> None:
    of = recipe(checkpoint)
    begun = training(of, spoken, tmp_path / "t", tmp_path / "features")
    with torch.no_grad():
        begun._net.heads["sentiment"].weight.fill_(float("nan"))
    with pytest.raises(VsaError, match="the loss is nan in epoch 1, batch 1"):
        begun.run()


def test_nothing_to_learn_from_is_said(
    checkpoint: Path, spoken: list[Utterance], tmp_path: Path
) -> None:
    unlabelled = [Utterance(id=u.id, group=u.group, text=u.text) for u in spoken]
    with pytest.raises(ConfigError, match="no utterance to learn from has a sentiment or emotion"):
        training(recipe(checkpoint), unlabelled, tmp_path / "t", tmp_path / "features")


@NEEDS_GPU
def test_mixed_precision_on_a_gpu_learns_as_well(
    checkpoint: Path, spoken: list[Utterance], tmp_path: Path
) -> None:
    # Long enough that its plateau at the start, which lasts as luck will have it, is over.
    schedule = {**LEARNS, "epochs": 30, "patience": 30}
    of = recipe(checkpoint, schedule=schedule, encoders={"audio": None})
    found = fit(
        of, {"train": spoken[:36], "dev": spoken[36:]}, tmp_path, features=tmp_path / "f", about={}
    )
    assert found["metrics"]["dev"]["sentiment"]["weighted_f1"]["value"] > 0.9


def test_a_step_that_float16_cannot_hold_is_no_part_of_the_schedule(
    checkpoint: Path, spoken: list[Utterance], tmp_path: Path
) -> None:
    of = recipe(checkpoint, schedule={**LEARNS, "epochs": 2}, encoders={"audio": None})
    begun = training(of, spoken, tmp_path / "t", tmp_path / "f")
    begun._precision = torch.float16
    # So large a scale that the first gradients are infinite; it is halved at each.
    begun._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**18, enabled=True)
    begun.run()
    left_out = 18 - int(np.log2(begun._scaler.get_scale()))
    assert 0 < left_out < 12
    assert begun._rates.state()["step"] == 12 - left_out


@NEEDS_GPU
def test_interrupted_on_a_gpu_it_ends_the_same(
    checkpoint: Path, spoken: list[Utterance], tmp_path: Path
) -> None:
    of, features = recipe(checkpoint), tmp_path / "features"
    whole = training(of, spoken, tmp_path / "whole", features, "cuda").run()
    token = LISTENER.set(Stopping(4))
    try:
        with pytest.raises(Interrupted):
            training(of, spoken, tmp_path / "stopped", features, "cuda").run()
    finally:
        LISTENER.reset(token)
    torch.cuda.manual_seed_all(99)
    resumed = training(of, spoken, tmp_path / "stopped", features, "cuda").run()
    # Not bit for bit: kernels of a GPU add in whichever order their threads end.
    assert len(resumed.history) == len(whole.history)
    for one, other in zip(resumed.history, whole.history, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-2)
        assert one["learning_rate"] == other["learning_rate"]
    saved = torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)
    assert saved["scaler"]["scale"] > 0


def test_mixed_precision_is_the_same_code_on_any_device(
    checkpoint: Path, spoken: list[Utterance], tmp_path: Path
) -> None:
    schedule = {**LEARNS, "precision": "bfloat16"}
    of = recipe(checkpoint, schedule=schedule, encoders={"audio": None})
    found = training(of, spoken, tmp_path / "t", tmp_path / "f").run()
    assert found.history[found.epoch]["dev_sentiment_weighted_f1"] > 0.9
    assert {x.dtype for x in found.net.parameters()} == {torch.float32}


# --- from rows to a package ---------------------------------------------------------------


def test_what_was_trained_is_packaged_scored_and_begun_from(
    checkpoint: Path, spoken: list[Utterance], tmp_path: Path
) -> None:
    of = recipe(checkpoint, schedule=LEARNS, encoders={"audio": None})
    sets = {"train": spoken[:36], "dev": spoken[36:42], "test": spoken[42:]}
    given: dict[str, Any] = {"features": tmp_path / "features", "about": {"data": "made"}}
    found = fit(of, sets, tmp_path / "one", journals=["tensorboard"], **given)
    net, _, card = load_package(tmp_path / "one" / "model")
    assert card["about"]["data"] == "made"
    assert card["about"]["metrics"] == json.loads(json.dumps(found["metrics"]))
    best = load_file(tmp_path / "one" / "training" / "best.safetensors")
    assert all(torch.equal(x, best[name]) for name, x in net.state_dict().items())
    with (tmp_path / "one" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["segment_id"] for row in rows] == [u.id for u in sets["test"]]
    names = [str(s) for s in SENTIMENTS]
    right = [
        names[u.labels["sentiment"]] == r["sentiment"]
        for u, r in zip(sets["test"], rows, strict=True)
    ]
    assert np.mean(right) == pytest.approx(
        found["metrics"]["test"]["sentiment"]["accuracy"]["value"]
    )
    assert list((tmp_path / "one" / "training" / "tensorboard").iterdir())
    # Begun from it, and at once as good.
    slow = {"epochs": 1, "learning_rate": 1e-9, "accumulate": 1}
    begun = fit(
        recipe(
            checkpoint,
            schedule=slow,
            encoders={
                "text": {"checkpoint": str(checkpoint), "learning_rate": 1e-9},
                "audio": None,
            },
        ),
        sets,
        tmp_path / "two",
        init=tmp_path / "one" / "model",
        journals=[],
        **given,
    )
    one, two = (f["metrics"]["dev"]["sentiment"]["weighted_f1"]["value"] for f in (found, begun))
    assert one == two > 0.9
    with pytest.raises(ConfigError, match="is of another recipe"):
        fit(
            recipe(checkpoint, fusion={"width": 32}, encoders={"audio": None}),
            sets,
            tmp_path / "three",
            init=tmp_path / "one" / "model",
            journals=[],
            **given,
        )


def test_folds_hold_whole_groups_out(
    checkpoint: Path, spoken: list[Utterance], tmp_path: Path
) -> None:
    of = recipe(checkpoint, schedule={"epochs": 1})
    found = cross_validate(
        of, spoken, 3, tmp_path, features=tmp_path / "features", about={}, journals=[]
    )
    assert sum(one["n"] for one in found["metrics"]["sentiment"]["each"]) == len(spoken)
    values = [one["weighted_f1"]["value"] for one in found["metrics"]["sentiment"]["each"]]
    assert found["metrics"]["sentiment"]["weighted_f1"]["mean"] == pytest.approx(np.mean(values))
    held: list[str] = []
    for k in range(3):
        with (tmp_path / f"fold-{k + 1}" / "predictions.csv").open() as file:
            held += {row["video_id"] for row in csv.DictReader(file)}
    assert sorted(held) == sorted({u.group for u in spoken})
    with pytest.raises(UsageError, match="at least 3"):
        cross_validate(of, spoken, 2, tmp_path, features=tmp_path, about={})
    with pytest.raises(UsageError, match="cannot be cut into 40 folds"):
        cross_validate(of, spoken, 40, tmp_path, features=tmp_path, about={})


def test_a_fold_has_every_row_once(spoken: list[Utterance]) -> None:
    folds = groups_in_folds(spoken, 4, 0)
    assert sorted(row for fold in folds for row in fold) == list(range(len(spoken)))
    assert (
        len({spoken[row].group for row in folds[0]} & {spoken[row].group for row in folds[1]}) == 0
    )


def test_figures_are_scikit_learns() -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    draw = np.random.default_rng(0)
    probs, truth = draw.dirichlet(np.ones(3), 200), draw.integers(0, 3, 200)
    truth[:20] = -1
    found = figures(probs, truth, np.arange(200) // 10)
    known, said = truth[20:], probs[20:].argmax(axis=1)
    assert found["n"] == 180
    assert found["accuracy"]["value"] == pytest.approx(accuracy_score(known, said))
    assert found["weighted_f1"]["value"] == pytest.approx(f1_score(known, said, average="weighted"))
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(known, said, average="macro"))
    assert found["confusion"] == confusion_matrix(known, said).tolist()
    assert (
        0 <= found["accuracy"]["low"] < found["accuracy"]["value"] < found["accuracy"]["high"] <= 1
    )


def test_a_temperature_moves_confidence_and_no_decision() -> None:
    probs = np.random.default_rng(0).dirichlet(np.ones(4), 50)
    warm, cold = cooled(probs, 3.0), cooled(probs, 0.5)
    assert (warm.argmax(1) == probs.argmax(1)).all()
    assert (warm.max(1) < probs.max(1)).all()
    assert (cold.max(1) > probs.max(1)).all()
    assert np.allclose(cooled(probs, 1.0), probs, atol=1e-6)


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_a_journal_whose_package_is_missing_says_what_to_install(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"pip install {kind}"):
        open_journals([kind], tmp_path, {})


# What the packages are called with, in a file each; their runs are numbered as they begin.
WANDB = """
import json
def init(**given):
    print("run", given["id"], given["name"], file=open(LOG, "a"))
    return Run()
class Run:
    def log(self, numbers, step):
        print(step, json.dumps(numbers), file=open(LOG, "a"))
    def finish(self):
        pass
"""
MLFLOW = """
import json, secrets, types
def set_experiment(name): pass
def start_run(run_id=None, run_name=None):
    run_id = run_id or secrets.token_hex(4)
    print("run", run_id, run_name, file=open(LOG, "a"))
    return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))
def log_dict(recipe, name): pass
def log_metrics(numbers, step): print(step, json.dumps(numbers), file=open(LOG, "a"))
def end_run(): pass
"""


@pytest.mark.parametrize(("kind", "code"), [("wandb", WANDB), ("mlflow", MLFLOW)])
def test_a_training_goes_on_in_its_own_run_of_a_journal(
    kind: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / f"{kind}.py").write_text(f"LOG = {str(log)!r}\n{code}")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, kind, raising=False)
    for model, epoch in (("one", 0), ("one", 1), ("two", 0)):
        journal = open_journals([kind], tmp_path / model / "training", {})
        journal.epoch({"epoch": epoch, "dev_loss": 0.5, "best": True})
        journal.close()
    monkeypatch.delitem(sys.modules, kind)
    told = [line.split(" ", 2) for line in log.read_text().splitlines()]
    begun, again, other = (line for line in told if line[0] == "run")
    assert begun[1] == again[1] != other[1]
    assert (begun[2], other[2]) == ("one", "two")
    records = [line for line in told if line[0] != "run"]
    assert [line[0] for line in records] == ["0", "1", "0"]
    assert json.loads(" ".join(records[0][1:])) == {"dev_loss": 0.5, "best": 1.0}


# --- the command, killed ------------------------------------------------------------------


def meld(folder: Path) -> Path:
    """MELD's tables, its words and labels as in `spoken`; no clips."""
    folder.mkdir()
    draw = random.Random(0)
    names, moods = ("negative", "neutral", "positive"), ("anger", "neutral", "joy")
    columns = (
        "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
        "StartTime,EndTime"
    )
    for split, dialogues in (("train", 24), ("dev", 6), ("test", 6)):
        with (folder / f"{split}_sent_emo.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns.split(","))
            for at in range(4 * dialogues):
                word = draw.choice(SAID[at % 3])
                writer.writerow(
                    [at, word, "Ross", moods[at % 3], names[at % 3], at // 4, at % 4,
                     1, 1, "00:00:01,000", "00:00:02,000"]
                )  # fmt: skip
    return folder


def test_a_killed_training_goes_on_to_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    values = recipe(checkpoint, schedule={"epochs": 4}).model_dump(mode="json")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    tables = meld(tmp_path / "MELD.Raw")

    def begun(out: Path) -> subprocess.Popen[str]:
        given = ["--text-only", "--journal", "none", "--recipe", tmp_path / "recipe.yaml"]
        return subprocess.Popen(
            [VSA, "train", "meld", tables, "--out", out, *given, "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    whole = begun(tmp_path / "whole")
    said, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err
    epochs = err.splitlines()
    assert [line.partition(":")[0] for line in epochs] == [
        f"Epoch {n + 1}" for n in range(json.loads(said)["epochs"])
    ]
    figure = r"\d\.\d{3}"
    assert re.fullmatch(
        rf"Epoch 1: loss {figure}, on dev {figure}; weighted F1 on dev: sentiment {figure}, "
        rf"emotion {figure} \(best so far\)",
        epochs[0],
    )

    killed, draw, out = 0, random.Random(3), tmp_path / "killed"
    while killed < 2:
        run = begun(out)
        before = _stamp(out)
        deadline = time.monotonic() + 60
        while run.poll() is None and _stamp(out) == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1))
        if run.poll() is not None:
            break
        run.send_signal(signal.SIGKILL)
        run.communicate()
        killed += 1
    run = begun(out)
    again, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert killed >= 2
    assert json.loads(again) == json.loads(said)
    for name in ("model/model.safetensors", "training/history.jsonl", "predictions.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def _stamp(out: Path) -> int:
    try:
        return (out / "training" / "checkpoint.pt").stat().st_mtime_ns
    except FileNotFoundError:
        return 0
