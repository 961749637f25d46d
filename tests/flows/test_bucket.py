"""The flows over a store in a bucket: the same rows as on a disk, media on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.label import label_sources
from flows.relabel import relabel
from flows.watch import watch_channels
from tests.small_s3 import SmallS3, small_s3
from tests.small_site import Site
from vsa_core.cli import main
from vsa_core.query import ask
from vsa_core.store import Store
from vsa_core.verify import verify

pytestmark = pytest.mark.usefixtures("in_prefect")
_LABELS = "SELECT * EXCLUDE (title) FROM labels ORDER BY segment_id"


@pytest.fixture
def bucket() -> Iterator[SmallS3]:
    with small_s3() as made:
        yield made


def test_a_channel_into_a_bucket(
    bucket: SmallS3,
    channel_site: Site,
    tmp_path: Path,
    web_config: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path / "cache"))
    channels = tmp_path / "channels.yaml"
    about = {"name": "talks", "url": f"{channel_site.address}/feed.xml"}
    channels.write_text(yaml.safe_dump({"channels": [about]}))
    there, here = bucket.url("vsa/store"), str(tmp_path / "store")
    for store in (there, here):
        [summary] = watch_channels(str(channels), store, config=str(web_config))
        assert summary["videos_new"] == 6
    # Tables are in the bucket, downloads in the cache folder.
    assert not [name for name in bucket.objects("vsa/store") if name.endswith(".mp4")]
    assert len(list((tmp_path / "cache" / "media").rglob("*.mp4"))) == 6
    rows = list(ask(Store(there), _LABELS).rows())
    assert len(rows) == 6
    assert rows == list(ask(Store(here), _LABELS).rows())

    assert watch_channels(str(channels), there, config=str(web_config)) == []
    assert relabel(there, model="vote", config=str(web_config))["videos"] == 6
    Store(there).compact()
    again = label_sources([about["url"]], there, config=str(web_config))
    assert (again["videos"], again["videos_new"]) == (6, 0)
    assert verify(Store(there)) == []


def test_the_command_line_reads_a_bucket(
    bucket: SmallS3,
    channel_site: Site,
    tmp_path: Path,
    web_config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path / "cache"))
    there = bucket.url("vsa/store")
    label_sources([f"{channel_site.address}/talk1"], there, config=str(web_config))
    for words in (["status"], ["query", "@most_negative"], ["store", "verify"]):
        assert main([*words, "--store", there]) == 0, words
    assert ": 1 video" in capsys.readouterr().out
    assert main(["status", "--store", bucket.url("elsewhere")]) == 2
    assert "no store at" in capsys.readouterr().err
    assert os.environ.get("AWS_ENDPOINT_URL") is None
