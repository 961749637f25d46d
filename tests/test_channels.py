"""channels.yaml: what it may say, and how it is told what is wrong with it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from vsa_core.channels import load_channels
from vsa_core.config import Filters, load_config
from vsa_core.errors import ConfigError
from vsa_core.folders import configs_dir


def written(tmp_path: Path, text: str) -> Path:
    """A file with this text."""
    path = tmp_path / "channels.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_is_valid() -> None:
    channels = load_channels(configs_dir() / "channels.yaml").channels
    assert [channel.name for channel in channels] == ["product-reviews", "unboxings", "podcast"]
    assert channels[0].urls == ("https://www.youtube.com/@example-reviews",)
    assert channels[0].domain == channels[1].domain
    assert channels[2].domain == "default"


def test_a_channels_filters_lie_over_those_of_the_run(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "channels:\n- {name: a, url: 'https://x/', filters: {max_videos: null, title: b}}\n",
    )
    base = load_config()
    run = Filters(max_videos=5, min_duration_s=30, published_after=date(2024, 1, 1))
    settings = load_channels(path).channels[0].settings(base.model_copy(update={"filters": run}))
    assert settings.filters == Filters(
        title="b", min_duration_s=30, published_after=date(2024, 1, 1)
    )
    assert settings.fingerprint() == base.fingerprint()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("channels: [", "is not YAML"),
        ("- a", "holds no `channels:` list"),
        ("", "holds no `channels:` list"),
        ("channels: []", "channels: "),
        ("chanels: []", "chan"),
        ("channels: [{name: a}]", "a.urls: it is missing"),
        ("channels: [{name: a, ulr: 'https://x/'}]", "a.ulr: no setting is named so"),
        ("channels: [{name: a, url: 'https://x/', filter: {}}]", "a.filter: "),
        ("channels: [{name: a, url: 'https://x/', filters: {mx: 1}}]", "a.filters.mx"),
        ("channels: [{name: a, url: 'https://x/', urls: []}]", "give url or urls"),
        ("channels: [{name: a, url: 'file:///etc/passwd'}]", "is no http"),
        ("channels: [{name: ../a, url: 'https://x/'}]", "name"),
        ("channels: [{name: '-', url: 'https://x/'}]", "name"),
        (f"channels: [{{name: {'a' * 61}, url: 'https://x/'}}]", "name"),
        ("channels: [{name: a, url: 'https://x/'}, {name: A, url: 'https://y/'}]", "two channels"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_channels(written(tmp_path, text))
    assert told in str(caught.value)
    assert str(tmp_path / "channels.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_channels(tmp_path / "channels.yaml")


def test_a_password_in_a_wrong_address_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "channels.yaml"
    path.write_text("channels: [{name: a, url: 'htps://ann:s3cret@example.org/feed'}]")
    with pytest.raises(ConfigError, match=r"example\.org/feed") as told:
        load_channels(path)
    assert "s3cret" not in str(told.value)
