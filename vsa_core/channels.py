"""channels.yaml: which channels, playlists and feeds are watched, and what belongs together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vsa_core.config import Filters, Settings
from vsa_core.errors import ConfigError
from vsa_core.ingest.addresses import shown
from vsa_core.settings_file import read_yaml, said

Plain = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")]


class Channel(BaseModel):
    """One channel: some addresses whose videos are labelled as they appear."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Plain = Field(description="Letters, digits and . _ - only, and unique; it names files.")
    urls: tuple[str, ...] = Field(
        min_length=1, description="Channels, playlists, feeds, pages; `url: …` for one."
    )
    domain: Plain = Field("default", description="Channels of one domain share a fusion model.")
    profile: str | None = Field(None, description="Models; null for those of the run.")
    filters: Filters = Field(
        Filters(),
        description="Over the run's filters; what is not named here stays as it is there.",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_url(cls, value: Any) -> Any:
        if isinstance(value, dict) and "url" in value:
            if "urls" in value:
                raise ValueError("give url or urls, not both")
            value = {**value, "urls": [value["url"]]}
            del value["url"]
        return value

    @field_validator("urls")
    @classmethod
    def _web(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not url.lower().startswith(("http://", "https://")):
                raise ValueError(f"{url!r} is no http:// or https:// address")
        return value

    @field_validator("name", "domain")
    @classmethod
    def _no_dots_alone(cls, value: str) -> str:
        if value.endswith("."):
            raise ValueError("ends with a dot")
        return value

    def settings(self, base: Settings) -> Settings:
        """The settings of a run, with this channel's filters laid over them."""
        own = {key: getattr(self.filters, key) for key in self.filters.model_fields_set}
        return base.model_copy(update={"filters": base.filters.model_copy(update=own)})


class Channels(BaseModel):
    """The channels of a file, in its order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[Channel, ...] = Field(min_length=1)

    @field_validator("channels")
    @classmethod
    def _unique(cls, value: tuple[Channel, ...]) -> tuple[Channel, ...]:
        seen: set[str] = set()
        for channel in value:
            # Names are folders, and some disks do not tell case apart.
            if channel.name.lower() in seen:
                raise ValueError(f"two channels are named {channel.name!r}")
            seen.add(channel.name.lower())
        return value


def load_channels(path: Path) -> Channels:
    """The channels of a YAML file.

    Raises:
        ConfigError: no such file, not YAML, an unknown key, a value out of range, a name twice.
    """
    values = read_yaml(path, "channels", "`channels:` list")
    if not values:
        raise ConfigError(f"channels file {path} holds no `channels:` list")
    try:
        return Channels.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]["loc"]
        line = said(error, Channels, path, "channels")
        try:  # a number says little of which channel it is
            name = values["channels"][first[1]]["name"]
        except (KeyError, IndexError, TypeError):
            name = None
        named = line.replace(f"channels.{first[1]}", f"channels.{name}", 1) if name else line
        raise ConfigError(shown(named)) from error
