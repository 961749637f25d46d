"""The pipeline over a labelled corpus: the very segments that people labelled, without a label."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPO
from tests.flows.test_command import VSA


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
