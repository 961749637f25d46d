"""The errors a person can act on; each message is one line: what, where, what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SAID_LENGTH = 300


class VsaError(Exception):
    """Anything the project refuses or cannot do, said in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class UsageError(VsaError):
    """A command line or a query that makes no sense as written."""


class ConfigError(VsaError):
    """A configuration value or file that cannot be used."""


class SourceError(VsaError):
    """A source (file, folder, URL) that cannot be found, read or fetched."""


class MediaError(VsaError):
    """A media file that cannot be decoded."""


class CaptionError(VsaError):
    """A caption file that cannot be parsed."""


class BackendError(VsaError):
    """A backend that cannot be loaded: a missing package, missing or altered weights."""


class ModelError(BackendError):
    """A model that fails while it works: out of memory, a GPU, an installation, a bug."""


class SegmentsError(ModelError):
    """Segments that a model failed at; their rows stand as errors, to be tried again.

    Attributes:
        worked: whether it worked on others of the same video.
    """

    def __init__(self, message: str, worked: bool) -> None:
        super().__init__(message)
        self.worked = worked


class StoreError(VsaError):
    """A store that cannot be read or written: full disk, corrupt file, wrong schema."""


class LanguageNotSpoken(VsaError):  # noqa: N818 - no error of anybody's: the model abstains
    """A text in a language that the model was not trained on."""


def said(error: BaseException) -> str:
    """An error in one line; one that is not ours names its type, for a bug report."""
    if isinstance(error, VsaError):
        return str(error)
    words = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return f"unexpected {words[:_SAID_LENGTH]}"


def is_failure(error: BaseException) -> bool:
    """Whether an error is a failure of what ran, not a wish to stop.

    What a library of Rust panics with, and `sys.exit` in the middle of one, are no `Exception`.
    """
    panic = "PanicException" in {kind.__name__ for kind in type(error).__mro__}
    return panic or isinstance(error, (Exception, SystemExit))


def meant(word: str, names: Iterable[str]) -> str:
    """`; did you mean X?`, to end a message with, for the nearest of some names; else nothing."""
    by_case = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_case, 1)
    return f"; did you mean {by_case[near[0]]}?" if near else ""
