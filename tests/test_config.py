"""Settings: profiles, the file laid over them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from vsa_core.config import load_config, profiles
from vsa_core.errors import ConfigError
from vsa_core.labels import Modality


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_there_are_the_three_profiles() -> None:
    assert profiles() == ["embedded", "multilingual", "standard"]


def test_swapping_a_model_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, "backends: {face: {name: face-mini-xception}}")
    settings = load_config(path, "standard")
    assert settings.backends[Modality.FACE].name == "face-mini-xception"
    assert settings.backends[Modality.FACE].options == {}
    assert settings.backends[Modality.TEXT].name == "text-roberta"


def test_an_option_is_changed_without_naming_the_model(tmp_path: Path) -> None:
    path = written(tmp_path, "backends: {face: {options: {frames_per_s: 4}}}")
    settings = load_config(path, "standard")
    assert settings.backends[Modality.FACE].name == "face-deepface"
    assert settings.backends[Modality.FACE].options["frames_per_s"] == 4
    assert settings.backends[Modality.FACE].options["detector"] == "yunet"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("transcripts: {languages: [English]}", "'English' is no language tag"),
        ("transcripts: {language: en}", "transcripts.language: "),
        ("backends: {smell: {name: x}}", "backends.smell"),
        ("fusion: {strategy: guess}", "fusion.strategy: "),
        ("[1, 2]", "holds no settings"),
        ("profile: grand", "no profile is named 'grand'; there are: embedded, multilingual"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
