"""A text checkpoint at work: its tokenizer and network, over lines packed by length."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.backends.checkpoints import Checkpoint, Network, first_line, quiet_transformers
from vsa_core.errors import BackendError

if TYPE_CHECKING:
    import torch

CLASSIFIER = "AutoModelForSequenceClassification"
ENCODER = "AutoModel"

# Tokens, padding included, that go through the network at once. On a CPU the activations of a
# network of RoBERTa's size then stay in its cache: on MELD dev 256 take the least time, 1,024 a
# tenth more, 2,048 half as much again, one line at a time more than twice as much.
TOKENS_AT_ONCE = {"cpu": 256, "cuda": 16_384}

# These families count positions from the padding's id on, so that the first ones are never used.
_POSITIONS_AFTER_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
# Beside a tokenizer.json these are not read; alone, transformers needs two packages to read them.
_SENTENCEPIECE_FILES = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
_SENTENCEPIECE_PACKAGES = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}


class TextNetwork:
    """A checkpoint that reads lines; tokenizer and network are loaded at the first of them.

    It may be used from several threads.

    Args:
        checkpoint: from `find_checkpoint`.
        auto_class: `CLASSIFIER` or `ENCODER`.
        max_tokens: what a line has beyond them, special tokens included, is not read.
        device, precision: as `precision_of` takes them.

    Attributes:
        dim: D, the width of its hidden states.
        max_tokens: as given, or what the network has positions for if that is less.
        key: all that decides what it says, for ids.

    Raises (when made):
        BackendError: the configuration states no width, or a package is missing that its tokenizer
            needs.
        ConfigError: as `precision_of`.
    """

    def __init__(
        self, checkpoint: Checkpoint, auto_class: str, max_tokens: int, device: str, precision: str
    ) -> None:
        self._checkpoint = checkpoint
        self._network = Network(checkpoint, auto_class, device, precision)
        self._classifies = auto_class == CLASSIFIER
        config = checkpoint.config
        dim = config.get("hidden_size", config.get("dim"))
        if not isinstance(dim, int):
            raise BackendError(
                f"checkpoint {checkpoint.folder}: config.json states no hidden_size: "
                "use a checkpoint of an encoder such as RoBERTa"
            )
        self.dim = dim
        self.max_tokens = min(max_tokens, _positions(checkpoint))
        self.key = (checkpoint.sha256, self.max_tokens, self._network.tag)
        _require_sentencepiece(checkpoint)
        self._tokenizer: tuple[Any, int] | None = None
        self._lock = threading.Lock()

    def look(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The probabilities of the checkpoint's classes, and what its last layer makes of a line.

        Lines go through in batches of like length, so that padding costs little, and equal lines
        once; the order of the result is that of the texts, and no line changes another's.

        Returns:
            (B, K) probabilities, K = 0 for an encoder; (B, D) mean of the last hidden states over
            the line's tokens, with the special ones (they are states of the whole line too, and
            every line has them).
        """
        import torch

        tokenizer, padding = self._loaded()
        different = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        # One by one: batch encoding starts threads that warn when the process forks later.
        tokens = [tokenizer.encode(text).ids for text in different]
        classes = len(self._checkpoint.labels) if self._classifies else 0
        probs = np.zeros((len(tokens), classes), np.float32)
        pooled = np.zeros((len(tokens), self.dim), np.float32)
        at_once = TOKENS_AT_ONCE[self._network.device]
        for rows in _batches([len(ids) for ids in tokens], at_once):
            ids, mask = _padded([tokens[row] for row in rows], padding)
            output = self._network.run(
                input_ids=ids, attention_mask=mask, output_hidden_states=self._classifies
            )
            with torch.inference_mode():
                if self._classifies:
                    probs[rows] = output.logits.float().softmax(dim=1).cpu().numpy()
                    states = output.hidden_states[-1]
                else:
                    states = output.last_hidden_state
                pooled[rows] = _mean(states, mask).cpu().numpy()
        order = [different[text] for text in texts]
        return probs[order], pooled[order]

    def unload(self) -> None:
        """Give the memory back; the next `look` loads tokenizer and network again."""
        with self._lock:
            self._tokenizer = None
        self._network.unload()

    def _loaded(self) -> tuple[Any, int]:
        """The tokenizer as transformers makes it of the checkpoint's files, and the padding."""
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = self._load_tokenizer()
            return self._tokenizer

    def _load_tokenizer(self) -> tuple[Any, int]:
        from transformers import AutoTokenizer

        folder = self._checkpoint.folder
        with quiet_transformers():
            try:
                whole = AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
                # Its Rust part, which every family but a few has, is all that is needed.
                tokenizer = whole.backend_tokenizer
            except Exception as error:  # whatever a broken file makes transformers raise
                raise BackendError(
                    f"checkpoint {folder}: its tokenizer cannot be loaded: {first_line(error)}: "
                    "pull it again, or use another"
                ) from error
        highest = max(tokenizer.get_vocab().values(), default=0)
        rows = self._checkpoint.config.get("vocab_size", highest + 1)
        if highest >= rows:
            raise BackendError(
                f"checkpoint {folder}: its tokenizer has tokens up to {highest}, the network "
                f"{rows}: they are of different checkpoints; pull it again"
            )
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=self.max_tokens)
        return tokenizer, whole.pad_token_id or 0


def _positions(checkpoint: Checkpoint) -> int:
    """How many tokens the network has positions for."""
    config = checkpoint.config
    positions: int = config.get("max_position_embeddings", 512)
    if config["model_type"] in _POSITIONS_AFTER_PADDING:
        padding = config.get("pad_token_id", 1)
        positions -= (padding if isinstance(padding, int) else 0) + 1
    if positions < 8:
        raise BackendError(
            f"checkpoint {checkpoint.folder}: config.json leaves {positions} positions for tokens: "
            "pull it again"
        )
    return positions


def _require_sentencepiece(checkpoint: Checkpoint) -> None:
    folder = checkpoint.folder
    if (folder / "tokenizer.json").is_file():
        return
    if not any((folder / name).is_file() for name in _SENTENCEPIECE_FILES):
        return
    missing = [
        package for module, package in _SENTENCEPIECE_PACKAGES.items() if not _is_installed(module)
    ]
    if missing:
        raise BackendError(
            f"checkpoint {folder} has a SentencePiece tokenizer, which needs "
            f"{' and '.join(missing)}: pip install {' '.join(missing)}"
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package it would be in
        return False


def _batches(lengths: Sequence[int], at_once: int) -> Iterator[list[int]]:
    """Rows, shortest first, in batches of at most that many tokens with their padding."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] > at_once:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _padded(tokens: Sequence[Sequence[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and the mask of the real ones, both (B, T)."""
    import torch

    ids = torch.full((len(tokens), max(map(len, tokens))), padding)
    mask = torch.zeros_like(ids)
    for row, line in enumerate(tokens):
        ids[row, : len(line)] = torch.tensor(line)
        mask[row, : len(line)] = 1
    return ids, mask


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, T, D) states to their (B, D) float32 mean over each line's own tokens."""
    weight = (mask / mask.sum(dim=1, keepdim=True)).to(states.device).unsqueeze(1)  # (B, 1, T)
    return (weight @ states.float()).squeeze(1)
