"""Settings: profiles, the file laid over them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from vsa_core.backends import BACKENDS
from vsa_core.config import load_config, profiles
from vsa_core.errors import ConfigError, UsageError
from vsa_core.labels import Modality
from vsa_core.weights import known


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
        ("transcripts: {languages: en}", "is not a list: write [en]"),
        ("transcripts: {languages: [no]}", "put the word in quotes"),
        ("transcripts: {language: en}", "line 1: transcripts.language: no setting is named so; "
         "did you mean languages?"),
        ("run:\n  workers: 2\n  runer: ray", "line 3: run.runer: no setting is named so; did you "
         "mean runner?"),
        ("strategy: vote", "did you mean fusion.strategy?"),
        ("fusoin: {}", "did you mean fusion?"),
        ("backends: {smell: {name: x}}", "backends.smell: 'smell' is none of text, face, audio"),
        ("backends: {text: {nam: x}}", "backends.text.nam: no setting is named so; did you mean "
         "name?"),
        ("backends: {text: text-minilm}", "is not a group of `key: value` lines"),
        ("fusion: {strategy: crossvew}", "none of late-mean, late-product, vote, tf-mvsa, "
         "crossview, crossview-attention; did you mean crossview?"),
        ("run: {workers: two}", "run.workers: 'two' is not a whole number"),
        ("run: {workers: 0}", "run.workers: 0 is not at least 1"),
        ("run: {max_failed_share: 1.5}", "1.5 is not at most 1"),
        ("fusion: {dropout: x, folds: y}", "fusion.folds: 'y' is not a whole number (and 1 more)"),
        ("download: {keep_media: maybe}", "'maybe' is not true or false"),
        ("download: {proxy: 'ftp://x'}", "download.proxy: 'ftp://x' will not do"),
        ("filters: {published_after: soon}", "'soon' is not a day"),
        ("run: {workers: 1}\nagree: {}\nrun: {workers: 2}", "line 3: the key run stands twice"),
        ("run:\n\tworkers: 2", "line 2: a tab: indent with spaces"),
        ("run: [1", "is not YAML: line 1"),
        ("[1, 2]", "holds no settings"),
        ("3: 4", "no setting is named so"),
        ("profile: grand", "no profile is named 'grand'; there are: embedded, multilingual"),
        ("profile: standart", "did you mean standard?"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    told = str(caught.value)
    assert said in told
    assert str(path) in told
    assert "\n" not in told
    for theirs in ("input", "Input", "permitted", "valid ", "Field required"):  # pydantic's words
        assert theirs not in told.replace(str(path), "")


def test_text_of_a_spreadsheets_encoding_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes("run: {workers: 1}".encode("utf-16"))
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(path)


def test_a_section_of_comments_and_a_byte_order_mark_are_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeffrun: {workers: 1}\nfusion:\n  # strategy: vote\n")
    settings = load_config(path)
    assert settings.run.workers == 1
    assert settings.fusion == load_config().fusion


def test_a_model_that_is_not_there_has_a_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean text-minilm"):
        BACKENDS.load("Text-MiniLN")
    with pytest.raises(UsageError, match="did you mean twitter-roberta"):
        known("twitter-robrta")
