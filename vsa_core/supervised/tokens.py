"""Text as tokens: an utterance after what was said before it, by a checkpoint's own tokenizer"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vsa_core.errors import BackendError
from vsa_core.supervised.encoders import checkpoint_folder
from vsa_core.supervised.recipe import Text
from vsa_core.supervised.utterances import Utterance

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LINES = 65_536  # kept at most, so that a service does not grow with what it is asked
_POSITIONS = 512  # tokens that a BERT reads at most
_SPECIAL = {"first": ("[CLS]", "<s>"), "last": ("[SEP]", "</s>"), "hidden": ("[MASK]", "<mask>")}
_UNKNOWN = ("[UNK]", "<unk>")

Random = np.random.Generator


class Tokens:
    """An utterance and what was said before it, as the ids of a checkpoint's tokenizer.

    `[CLS] Ross: What? [SEP] Joey: Nothing. [SEP]`: whole earlier utterances, as many of the latest
    as fit, then the utterance itself. Its own tokens are those of the last part, `[SEP]` included.

    Args:
        settings: of the recipe.

    Raises:
        BackendError: the checkpoint or its tokenizer is not here, or lacks a special token.
    """

    def __init__(self, settings: Text) -> None:
        self._speakers = settings.speakers
        self._most = min(settings.max_tokens, _POSITIONS - 2)
        self._context = min(settings.context_tokens, _POSITIONS - 2 - self._most)
        self._encode, special = _tokenizer(settings.checkpoint)
        self._first, self._last, self._hidden = (special[n] for n in ("first", "last", "hidden"))
        # Each line is in the context of those after it.
        self._lines: dict[tuple[str | None, str], list[int]] = {}

    def of(self, utterance: Utterance) -> tuple[list[int], list[bool], bool]:
        """Ids, which of them are the utterance's own, and whether it has any text."""
        text = (utterance.text or "").strip()
        own = self._line(utterance.speaker, text)[: self._most] if text else []
        if not own:
            return [self._first], [True], False
        context: list[list[int]] = []
        left = self._context
        for speaker, said in reversed(utterance.before):
            line = [*self._line(speaker, said), self._last]
            if len(line) > left:
                break
            context.insert(0, line)
            left -= len(line)
        before = [self._first, *(token for line in context for token in line)]
        ids = [*before, *own, self._last]
        return ids, [False] * len(before) + [True] * (len(own) + 1), True

    def dropped(self, ids: list[int], share: float, random: Random) -> list[int]:
        """The same with a share of the tokens hidden; the special ones stay."""
        hidden = random.random(len(ids)) < share
        keep = (self._first, self._last)
        return [
            self._hidden if hide and token not in keep else token
            for token, hide in zip(ids, hidden, strict=True)
        ]

    def _line(self, speaker: str | None, text: str) -> list[int]:
        named = speaker if self._speakers else None
        found = self._lines.get((named, text))
        if found is None:
            found = self._encode(f"{named}: {text}" if named else text)
            if len(self._lines) >= _LINES:
                self._lines.clear()
            self._lines[named, text] = found
        return found


def _tokenizer(checkpoint: str) -> tuple[Callable[[str], list[int]], dict[str, int]]:
    """Text to ids without special tokens, and the special ones."""
    folder = checkpoint_folder(checkpoint)
    if (folder / "tokenizer.json").is_file():
        return _fast(folder)
    from vsa_core.backends.checkpoints import quiet_transformers

    with quiet_transformers():
        from transformers import AutoTokenizer

        try:
            made = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers raises whatever its parts do
            what = " ".join(str(error).split())[:200]
            raise BackendError(f"{folder} has no tokenizer that can be read: {what}") from error
    special = {"first": made.cls_token_id, "last": made.sep_token_id}
    special["hidden"] = made.unk_token_id if made.mask_token_id is None else made.mask_token_id
    return functools.partial(_slow, made), _whole(special, folder)


def _slow(made: Callable[..., dict[str, list[int]]], text: str) -> list[int]:
    return made(text, add_special_tokens=False)["input_ids"]


def _fast(folder: Path) -> tuple[Callable[[str], list[int]], dict[str, int]]:
    from tokenizers import Tokenizer

    try:
        made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        what = " ".join(str(error).split())[:200]
        raise BackendError(f"{folder / 'tokenizer.json'} cannot be read: {what}") from error
    made.no_padding()
    made.no_truncation()
    special: dict[str, int | None] = {}
    for use, names in _SPECIAL.items():
        instead = _UNKNOWN if use == "hidden" else ()
        ids = (made.token_to_id(name) for name in (*names, *instead))
        special[use] = next((found for found in ids if found is not None), None)
    return functools.partial(_ids, made), _whole(special, folder)


def _ids(made: Tokenizer, text: str) -> list[int]:
    return made.encode(text, add_special_tokens=False).ids


def _whole(special: dict[str, int | None], folder: Path) -> dict[str, int]:
    for use, found in special.items():
        if found is None:
            raise BackendError(
                f"the tokenizer of {folder} has no {' or '.join(_SPECIAL[use])}: take an encoder "
                "of the BERT family"
            )
    return {use: found for use, found in special.items() if found is not None}
