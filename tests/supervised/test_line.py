"""The README's supervised section on the miniature, command by command, as a person follows it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPO
from tests.flows.test_command import VSA
from tests.small_checkpoints import bert

RECIPE = {
    "encoders": {
        "text": {"checkpoint": "bert", "max_tokens": 24, "context_tokens": 16},
        "video": {"network": "resnet18", "frames": 2, "trained_blocks": 1},
        "audio": {"mels": 24, "max_s": 2},
        "width": 24,
    },
    "fusion": {"kind": "attention", "width": 32, "heads": 2, "layers": 1},
    "schedule": {"epochs": 2, "batch_size": 12, "checkpoint_minutes": 0},
}


def vsa(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [VSA, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("line")
    command = [sys.executable, REPO / "scripts" / "make_meld_miniature.py", folder / "MELD.Raw"]
    subprocess.run(command, check=True, capture_output=True)
    bert(folder / "bert", ("i", "love", "it", "you", "this", "what", "no", "hate"))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


def test_prepare_train_resume_evaluate_export_predict(place: Path, sample_dir: Path) -> None:
    (place / "file").touch()
    done = vsa("meld", "prepare", "MELD.Raw", "--truth", "file/truth.csv", cwd=place)
    assert done.returncode == 2
    assert done.stderr == "vsa: file/truth.csv cannot be written: File exists: choose another\n"
    prepare = ["meld", "prepare", "MELD.Raw", "--store", "store", "--truth", "new/truth.csv"]
    done = vsa(*prepare, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "dia125_utt3: its clip does not decode" in done.stdout
    assert "dia110_utt7: its clip is missing" in done.stdout
    assert (place / "new" / "truth.csv").is_file()

    train = ["train", "meld", "--store", "store", "--out", "meld", "--recipe", "recipe.yaml"]
    train += ["--features", "features"]
    run = subprocess.Popen(
        [VSA, *train], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while run.poll() is None and not (place / "meld/training/checkpoint.pt").exists():
        time.sleep(0.01)
    run.kill()
    run.communicate()
    assert run.returncode == -9
    done = vsa(*train, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == {"train": 48, "dev": 12, "test": 12}
    assert found["metrics"]["test"]["emotion"]["n"] == 12
    history = (place / "meld/training/history.jsonl").read_text().splitlines()
    assert len(history) == found["epochs"] == 2

    video = "SELECT video_id FROM segments JOIN videos USING (video_id) LIMIT 1"
    [row] = json.loads(
        vsa("query", video, "--store", "store", "--format", "json", cwd=place).stdout
    )
    done = vsa("forget", row["video_id"], "--store", "store", "--dry-run", "--json", cwd=place)
    [trained] = json.loads(done.stdout)["trained_elsewhere"]
    assert trained.startswith(f"{place / 'meld'} on ")
    assert len(json.loads(done.stdout)["feature_folders"]) == 1

    done = vsa(
        "evaluate", "meld/predictions.csv", "meld/truth.csv", "--report", "report", "--json",
        cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assessed = json.loads(done.stdout)["targets"]["sentiment"]
    assert assessed["coverage"]["value"] == 1
    told = found["metrics"]["test"]["sentiment"]["accuracy"]["value"]
    assert assessed["accuracy"]["value"] == pytest.approx(told)
    assert (place / "report" / "report.html").stat().st_size > 10_000

    done = vsa(
        "export", "meld/model", "--out", "exported", "--formats", "safetensors,int8",
        "--truth-from", "MELD.Raw", "--features", "features", "--json", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    forms = {form["name"]: form for form in json.loads(done.stdout)["forms"]}
    assert forms["safetensors"]["logit_change"] == 0
    assert forms["safetensors"]["f1"] == pytest.approx(forms["trained"]["f1"])

    clip = sorted((sample_dir / "clips").glob("*.mp4"))[0]
    said = []
    for model in ("meld/model", "exported/safetensors"):
        done = vsa(
            "classify", model, clip, "--text", "I love it", "--end-ms", 2000, "--json", cwd=place
        )
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout))
    for target in ("sentiment_probs", "emotion_probs"):
        assert sum(said[0][target].values()) == pytest.approx(1, abs=1e-4)
        assert said[1][target] == pytest.approx(said[0][target], abs=1e-4)
