"""Folders of vsa itself: the configurations that it ships, and where fetched files are kept"""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

from vsa_core.errors import ConfigError


def configs_dir() -> Path:
    """Profiles, queries and recipes: inside an installed package, else in the checkout."""
    inside = Path(__file__).resolve().parent / "configs"
    return inside if inside.is_dir() else Path(__file__).resolve().parent.parent / "configs"


def cache_dir() -> Path:
    """Where fetched weights lie: $VSA_CACHE_DIR, else the platform's user cache folder.

    Raises:
        ConfigError: the user has no home, as one without a name in a container.
    """
    override = os.environ.get("VSA_CACHE_DIR")
    try:
        return Path(override) if override else user_cache_path("vsa", appauthor=False)
    except RuntimeError as error:
        raise ConfigError(
            "this user has no home folder: set HOME, or VSA_CACHE_DIR to a folder for what is kept "
            "between runs"
        ) from error


def features_dir() -> Path:
    """Where pictures and sounds lie that were decoded for supervised models."""
    return cache_dir() / "features"


def hub_caches() -> tuple[Path, Path]:
    """Folders in the hub's layout in the order they are looked at: vsa's own, and the user's.

    The user's is where Hugging Face's libraries keep what they fetched: $HF_HUB_CACHE, else `hub`
    in $HF_HOME, else in `huggingface` in the user's cache folder.
    """
    if (chosen := os.environ.get("HF_HUB_CACHE")) is not None:
        return cache_dir() / "hub", Path(chosen).expanduser()
    if (home := os.environ.get("HF_HOME")) is not None:
        return cache_dir() / "hub", Path(home).expanduser() / "hub"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache_dir() / "hub", caches / "huggingface" / "hub"
