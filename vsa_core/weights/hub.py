"""The Hugging Face hub as seen from this disk: references, caches in its layout, files to take."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from vsa_core.errors import BackendError

PREFIX = "hf:"
MAIN = "main"
COMMIT = re.compile(r"[0-9a-f]{40}")

# One of these is taken, the first that is complete: torch's two kinds and CTranslate2's.
_WEIGHT_FORMATS = (("model", "safetensors"), ("pytorch_model", "bin"), ("model", "bin"))
_ANY_WEIGHTS = re.compile(r"(pytorch_)?model(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")
_CONFIG = "config.json"
# What stands beside the weights: settings and vocabularies, nothing that could run.
BESIDE = frozenset(
    {
        _CONFIG,
        "added_tokens.json",
        "bpe.codes",
        "generation_config.json",
        "merges.txt",
        "normalizer.json",
        "preprocessor_config.json",
        "processor_config.json",
        "sentencepiece.bpe.model",
        "special_tokens_map.json",
        "spiece.model",
        "spm.model",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
        "vocabulary.json",
        "vocabulary.txt",
    }
)
_NAME = r"[A-Za-z0-9](?:[\w.-]{0,94}\w)?"
_REFERENCE = re.compile(rf"{PREFIX}({_NAME}/{_NAME})(?:@([A-Za-z0-9][\w.-]{{0,127}}))?", re.ASCII)
_BLOB = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")


def parse(reference: str) -> tuple[str, str | None]:
    """Repository and revision of `hf:ORG/NAME[@REVISION]`.

    Raises:
        BackendError: it is not written so.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None or ".." in reference or "--" in reference:
        raise BackendError(
            f"{reference!r} names no repository: write hf:ORG/NAME, or hf:ORG/NAME@REVISION with "
            "a commit, branch or tag"
        )
    return match[1], match[2]


def repository_folder(cache: Path, repository: str) -> Path:
    """A repository's folder in a cache of the hub's layout."""
    return cache / f"models--{repository.replace('/', '--')}"


def snapshot(cache: Path, repository: str, revision: str | None) -> Path:
    """The folder of a revision, there or not; a branch or tag is looked up in the cache's refs."""
    folder, revision = repository_folder(cache, repository), revision or MAIN
    try:
        commit = (folder / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        commit = ""
    return folder / "snapshots" / (commit if COMMIT.fullmatch(commit) else revision)


def chosen(paths: Iterable[str]) -> list[str]:
    """Those of a repository's files that a model is loaded from; empty when it holds none.

    That is config.json, what there is of tokenizers and other settings, and the weights in one
    format: safetensors before pickle, each in one file or in numbered parts with their index.
    Code, and weights for other libraries, are never among them.
    """
    listed = set(paths)
    weights: Collection[str] = next(
        filter(None, (_weights(listed, *kind) for kind in _WEIGHT_FORMATS)), ()
    )
    if not weights or _CONFIG not in listed:
        return []
    return sorted({*weights, *(listed & BESIDE)})


def loadable(paths: Iterable[str]) -> set[str]:
    """Those of a folder's files that a loader might read, the weights in every format."""
    return {path for path in paths if path in BESIDE or _ANY_WEIGHTS.fullmatch(path)}


def _weights(listed: set[str], stem: str, ending: str) -> list[str]:
    """The files of one format, all of them or none."""
    if (whole := f"{stem}.{ending}") in listed:
        return [whole]
    index = f"{stem}.{ending}.index.json"
    part = re.compile(rf"{stem}-(\d{{5}})-of-(\d{{5}})\.{ending}")
    found = {int(match[1]): match for path in listed if (match := part.fullmatch(path))}
    total = {int(match[2]) for match in found.values()}
    if index not in listed or len(total) != 1 or set(found) != set(range(1, total.pop() + 1)):
        return []
    return [index, *(match[0] for match in found.values())]


def refuse_path(path: str) -> None:
    """Raise BackendError for a path that a repository must not hold: it would lead out of it."""
    parts = path.split("/")
    if any(part in ("", ".", "..") or len(part) > 255 for part in parts) or not (
        path.isprintable() and "\\" not in path
    ):
        raise BackendError(f"the hub lists the path {path[:80]!r}, which leads out of its folder")


def stated(path: Path) -> str | None:
    """What a cache's layout states of a file's content; None where it states nothing.

    A file of a snapshot is a link to a blob named by what the hub answered: the SHA-256 of a large
    file (64 hex digits), else the id of the git blob (40).
    """
    if not path.is_symlink():
        return None
    name = path.resolve().name
    return name if _BLOB.fullmatch(name) else None
