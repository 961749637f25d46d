"""Frozen settings: a profile from configs/profiles, overlaid by a file, checked key by key."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vsa_core.errors import ConfigError, meant
from vsa_core.folders import configs_dir
from vsa_core.labels import Modality
from vsa_core.language import tag_of
from vsa_core.settings_file import read_yaml, said


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _language_tags(value: tuple[str, ...]) -> tuple[str, ...]:
    for tag in value:
        if tag_of(tag) is None:
            raise ValueError(f"{tag!r} is no language tag: write en, pt-BR, zh-Hans")
    return value


class NamedModel(_Section):
    """A model by its registry name, with the options its loader takes."""

    name: str
    options: dict[str, Any] = {}


class Sources(_Section):
    """What is taken in."""

    extensions: tuple[str, ...] = (
        ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".ogv",
        ".3gp", ".wmv", ".mp3", ".m4a", ".wav", ".flac", ".ogg", ".opus", ".aac",
    )  # fmt: skip
    max_height_px: int = Field(480, ge=120, description="Height downloaded from a URL at most, px.")
    max_download_mb: int = Field(2048, ge=1, description="A download is cut off beyond this, MB.")
    max_duration_s: float = Field(
        6 * 3600, gt=0, description="A longer video is refused, s (a stream that never ends)."
    )
    allow_private_addresses: bool = Field(
        False, description="Fetch URLs of loopback, private and link-local addresses too."
    )


class Filters(_Section):
    """Which videos of a channel, playlist or feed are taken; a video asked for by its own address
    is taken whatever they say."""

    published_after: date | None = Field(None, description="Published on this day (UTC) or later.")
    published_before: date | None = Field(None, description="Published before this day (UTC).")
    min_duration_s: float = Field(0, ge=0, description="Shorter videos are passed over, s.")
    max_duration_s: float | None = Field(None, gt=0, description="Longer ones are passed over, s.")
    max_videos: int | None = Field(
        None, ge=1, description="At most so many of each source, the newest first; null for all."
    )
    title: str | None = Field(
        None, description="A regular expression that is found in the title, whatever the case."
    )
    languages: tuple[str, ...] = Field(
        (), description="Only videos in these languages, where that is known; empty for any."
    )

    @field_validator("title")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from error
        return value

    _tags = field_validator("languages")(_language_tags)


class Download(_Section):
    """How videos are fetched, politely; changes no label."""

    retries: int = Field(
        5, ge=0, description="Tries after the first, for errors that may pass (network, 429, 5xx)."
    )
    backoff_s: float = Field(
        2.0, ge=0, description="Wait before the first retry, s; doubled each time, with jitter."
    )
    max_backoff_s: float = Field(120.0, ge=0, description="Longest wait before a retry, s.")
    timeout_s: float = Field(20.0, gt=0, description="Silence of a server after which to give up.")
    time_limit_s: float = Field(
        4 * 3600, gt=0, description="A download that takes longer is cut off, s."
    )
    rate_limit_kb_s: float | None = Field(None, gt=0, description="Speed at most, kB/s.")
    sleep_s: float = Field(0.0, ge=0, description="Pause before each download, s.")
    sleep_requests_s: float = Field(0.0, ge=0, description="Pause before each page asked for, s.")
    cookies_file: Path | None = Field(
        None, description="Netscape cookies file, for what needs a login you are allowed to use."
    )
    proxy: str | None = Field(
        None,
        pattern=r"^(http|socks4a?|socks5h?)://",
        description="http:// or socks5:// proxy; null for none: the environment's are not used. It "
        "resolves names, so that of private addresses only those written as numbers are refused.",
    )
    max_audio_kbps: int = Field(160, ge=32, description="Audio quality fetched at most, kbit/s.")
    max_attempts: int = Field(
        5,
        ge=1,
        description="Runs in which a failed address is tried before it is let be; after "
        "the third with pauses of 20, 40, 80 … hours.",
    )
    media_dir: Path | None = Field(
        None, description="Where downloads lie; null for `media` in the store (in the cache folder "
        "where the store is not on a disk)."
    )  # fmt: skip
    keep_media: bool = Field(
        True, description="False deletes a download once its video is labelled."
    )
    max_media_gb: float = Field(
        50.0, gt=0, description="Downloads take this much disk at most: the oldest labelled ones "
        "make room, and videos are fetched in batches that fit."
    )  # fmt: skip
    batch_videos: int = Field(200, ge=1, description="Videos fetched, then labelled, at a time.")


class Transcripts(_Section):
    """How words are found."""

    languages: tuple[str, ...] = Field(
        ("en",),
        description="Caption languages taken before others, in order; empty: the one spoken first.",
    )
    use_captions: bool = Field(True, description="False recognises speech even beside captions.")
    max_caption_mb: int = Field(20, ge=1, description="A larger caption file is refused, MB.")
    transcriber: NamedModel | None = Field(
        NamedModel(name="pocketsphinx"), description="Speech recognition; null for none."
    )

    _tags = field_validator("languages")(_language_tags)


class Segments(_Section):
    """How speech is cut into utterances."""

    min_ms: int = Field(1_000, ge=0)
    max_ms: int = Field(15_000, ge=1_000)
    pause_ms: int = Field(700, ge=0, description="A silence longer than this ends an utterance.")

    @model_validator(mode="after")
    def _ordered(self) -> Segments:
        if self.min_ms > self.max_ms:
            raise ValueError(f"min_ms {self.min_ms} is above max_ms {self.max_ms}")
        return self


class Agree(_Section):
    """When votes count, and when they agree."""

    min_confidence: float = Field(
        0.5, ge=0, le=1, description="A vote whose highest probability is below this abstains."
    )


# The names of `fusion.strategies.STRATEGIES`, which settings must not import.
Strategy = Literal[
    "late-mean", "late-product", "vote", "tf-mvsa", "crossview", "crossview-attention"
]


class Fusion(_Section):
    """How the models' votes and embeddings become a label."""

    strategy: Strategy = Field(
        "crossview-attention", description="Who decides; docs/tf-mvsa.md compares the strategies."
    )
    min_label_confidence: float = Field(
        0.0, ge=0, le=1, description="A label less probable than this is not given."
    )
    min_emotion_confidence: float = Field(
        0.3, ge=0, le=1, description="An emotion less probable than this is not given."
    )
    min_consensus: int = Field(
        60, ge=1, description="tf-mvsa: with fewer agreeing segments the mean decides instead."
    )
    min_per_class: int = Field(
        5, ge=0, description="tf-mvsa: a class agreed on less often is too rare to learn."
    )
    folds: int = Field(5, ge=2, description="Cross-fitting folds, by whole videos.")
    width: int = Field(64, ge=4, description="Of the network: hidden width of each view's encoder.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Share of hidden units.")
    modality_dropout: float = Field(0.2, ge=0, lt=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    batch_size: int = Field(128, ge=2, description="Segments a step; more with many.")
    max_epochs: int = Field(200, ge=1)
    patience: int = Field(
        10, ge=1, description="Checks (one an epoch, more in long ones) without a better loss."
    )
    max_train: int = Field(
        60_000, ge=100, description="Segments the network is trained on at most, drawn uniformly."
    )
    max_segments: int = Field(
        200_000, ge=100, description="Segments of a store that a model is learned from at most, in "
        "whole videos drawn by a hash; those that people reviewed are always among them."
    )  # fmt: skip
    seed: int = 0


class Run(_Section):
    """How the work is carried out; changes no label."""

    runner: Literal["threads", "processes", "dask", "ray"] = Field(
        "threads",
        description="Where tasks run; dask and ray need their extra: vsa[dask], vsa[ray].",
    )
    address: str | None = Field(
        None, description="Of a Dask scheduler or Ray cluster; null starts one on this machine."
    )
    workers: int = Field(
        2, ge=1, description="Shards in work at once; not for a cluster at an address."
    )
    shard_videos: int = Field(8, ge=1, description="Videos per task, at least.")
    max_shards: int = Field(
        64, ge=1, description="Tasks per stage at most; more videos make larger shards."
    )
    max_failed_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="A run fails in which more than this share of the videos asked for failed, or "
        "a model failed at more than this share of the segments.",
    )


_NO_LABEL_DEPENDS_ON = {"run", "profile", "filters", "download"}


class Settings(_Section):
    """Everything a run depends on."""

    profile: str = "embedded"
    sources: Sources = Sources()
    filters: Filters = Filters()
    download: Download = Download()
    transcripts: Transcripts = Transcripts()
    segments: Segments = Segments()
    backends: dict[Modality, NamedModel] = Field(
        description="One model per modality; null does without that modality."
    )
    agree: Agree = Agree()
    fusion: Fusion = Fusion()
    run: Run = Run()

    @field_validator("backends", mode="before")
    @classmethod
    def _without_null(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: model for key, model in value.items() if model is not None}
        return value

    @model_validator(mode="after")
    def _some_backend(self) -> Settings:
        if not self.backends:
            raise ValueError("backends names no model: give at least text or face")
        return self

    def fingerprint(self) -> str:
        """12 hex digits over every setting that can change a label."""
        return fingerprint(self.model_dump(mode="json", exclude=_NO_LABEL_DEPENDS_ON))


def fingerprint(*parts: Any) -> str:
    """12 hex digits over JSON-able values; the same on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def profiles() -> list[str]:
    """Names of the profiles that exist."""
    return sorted(path.stem for path in (configs_dir() / "profiles").glob("*.yaml"))


def hub_endpoint() -> str:
    """Where the hub is asked: $HF_ENDPOINT, else huggingface.co."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def hub_token() -> str | None:
    """The user's access token, $HF_TOKEN; it goes to `hub_endpoint` and nowhere else."""
    return os.environ.get("HF_TOKEN") or None


def load_config(path: Path | None = None, profile: str | None = None) -> Settings:
    """The settings of a profile, overlaid by a YAML file.

    Args:
        path: a YAML file with any of the keys of `Settings`; null for none.
        profile: name of a file in configs/profiles; null takes the file's `profile`, else
            `embedded`.

    Raises:
        ConfigError: no such file or profile, not YAML, an unknown key, a value out of range.
    """
    overlay = read_yaml(path, "config") if path else {}
    # A section of which all lines are comments is one that was left out.
    overlay = {key: value for key, value in overlay.items() if value is not None}
    name = profile or overlay.get("profile") or "embedded"
    if name not in profiles():
        known = profiles()
        where = "" if profile or not path else f"{path}: "
        raise ConfigError(
            f"{where}no profile is named {name!r}; there are: {', '.join(known)}"
            + meant(str(name), known)
        )
    values = _merged(read_yaml(configs_dir() / "profiles" / f"{name}.yaml", "profile"), overlay)
    values["profile"] = name
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(said(error, Settings, path, f"profile {name}")) from error


def _merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay key by key; a model named anew replaces the old one with its options."""
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and "name" not in value:
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged
