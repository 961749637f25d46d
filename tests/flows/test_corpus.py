"""The pipeline over a labelled corpus: the very segments that people labelled, without a label."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPO
from tests.flows.test_command import VSA
from tests.small_checkpoints import bert
from vsa_core.errors import UsageError
from vsa_core.store import Store
from vsa_core.supervised.choosing import sets_of_segments


def vsa(*arguments: object, cwd: Path, api: str = "") -> str:
    """What a command prints that ends well."""
    environment = {**os.environ, "PREFECT_API_URL": api} if api else None
    done = subprocess.run(
        [VSA, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_label_free_line_takes_the_corpus_as_it_is_cut(
    tmp_path: Path, fake_config: Path, prefect_api: str
) -> None:
    made = [sys.executable, REPO / "scripts" / "make_meld_miniature.py", tmp_path / "MELD.Raw"]
    subprocess.run(made, check=True, capture_output=True)
    split = ["--split", "test", "--truth", "truth.csv"]
    vsa("meld", "prepare", "MELD.Raw", "--store", "store", *split, cwd=tmp_path)
    [clips] = tmp_path.rglob("output_repeated_splits_test")
    run = ["run", clips, "--store", "store", "--config", fake_config, "--json"]
    assert json.loads(vsa(*run, cwd=tmp_path, api=prefect_api))["segments"] == 12
    found = json.loads(vsa("evaluate", "store", "truth.csv", "--json", cwd=tmp_path))["targets"]
    with (tmp_path / "truth.csv").open() as file:
        known = sum(1 for row in csv.DictReader(file) if row["sentiment"])
    assert found["sentiment"]["n"] == known > 0
    assert 0 < found["sentiment"]["coverage"]["value"] <= 1
    # What the corpus is judged by is not learned from as if it were a segment like others.
    with pytest.raises(UsageError, match="too few segments with labels by consensus"):
        sets_of_segments(Store(tmp_path / "store"), "consensus", 0)


@pytest.mark.usefixtures("in_prefect")
def test_training_is_a_flow_too(tmp_path: Path, shared: Path) -> None:
    from prefect.client.orchestration import get_client

    from flows.train import train_supervised

    (tmp_path / "MELD.Raw").mkdir()
    for split, lines in (("train", 120), ("dev", 40), ("test", 40)):
        rows = (shared / "meld" / f"{split}.csv").read_bytes().splitlines(keepends=True)
        (tmp_path / "MELD.Raw" / f"{split}.csv").write_bytes(b"".join(rows[: lines + 1]))
    vsa("meld", "prepare", "MELD.Raw", "--store", "store", cwd=tmp_path)
    words = ("what", "a", "lovely", "day", "no", "oh")
    recipe = {
        "encoders": {"text": {"checkpoint": str(bert(tmp_path / "bert", words))}, "width": 16},
        "schedule": {"epochs": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    found = train_supervised(
        store=str(tmp_path / "store"),
        out=str(tmp_path / "out"),
        recipe=str(tmp_path / "recipe.yaml"),
        text_only=True,
    )
    assert found["rows"] == {"train": 120, "dev": 40, "test": 40}
    assert (tmp_path / "out" / "model" / "card.json").exists()
    with get_client(sync_client=True) as client:
        keys = {artifact.key for artifact in client.read_artifacts()}
    assert "vsa-training" in keys
