"""A packaged model on videos: probabilities of both targets, and which modalities they come from

It serves the torch package and its ONNX export alike, and holds nothing between calls but the
network, so that a service may use one from many threads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vsa_core.backends.checkpoints import precision_of
from vsa_core.errors import BackendError, MediaError
from vsa_core.media import probe
from vsa_core.supervised.batch import Batch
from vsa_core.supervised.dataset import UtteranceDataset, collate
from vsa_core.supervised.encoders import PACKAGE_CARD
from vsa_core.supervised.exporting import ONNX_FILE, Forward, OnnxModel
from vsa_core.supervised.features import FeatureCache
from vsa_core.supervised.package import load_package
from vsa_core.supervised.recipe import Recipe
from vsa_core.supervised.tokens import Tokens
from vsa_core.supervised.utterances import TARGETS, Utterance

_ROWS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Said:
    """What a model says of one utterance.

    Attributes:
        id: of the utterance.
        probs: by target, then by class, summing to 1; None where nothing of the utterance is there
            to be read, seen or heard.
        present: by modality of the model, whether the utterance has it.
        notes: why pictures or sound are missing; None where nothing is.
    """

    id: str
    probs: dict[str, dict[str, float]] | None
    present: dict[str, bool]
    notes: str | None = None

    def label(self, target: str) -> str | None:
        """The likeliest class of a target; None where the model abstains."""
        if self.probs is None:
            return None
        probs = self.probs[target]
        return max(probs, key=lambda name: probs[name])


class Predictor:
    """A model that is ready to be asked; `load` makes one.

    Args:
        recipe: what the model reads.
        card: of the model.
        forward: batches to logits; may be called from several threads at once.
        device: the one that batches are brought to.

    Attributes:
        recipe, card: as given.
        targets: what it says.
        modalities: what it reads.
    """

    def __init__(
        self, recipe: Recipe, card: dict[str, Any], forward: Forward, device: str = "cpu"
    ) -> None:
        self.recipe, self.card = recipe, card
        self.targets, self.modalities = recipe.targets, recipe.encoders.modalities
        self._forward = forward
        self._device = device
        text = recipe.encoders.text
        self._tokens = None if text is None else Tokens(text)  # a tokenizer takes a while to read
        self._temperatures = {target: _temperature(card, target) for target in recipe.targets}

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> Predictor:
        """A predictor of a packaged model, or of its ONNX export.

        Args:
            path: the folder.
            device: `auto`, `cpu` or `cuda`; ONNX and int8 run on the CPU.

        Raises:
            BackendError: no model is there, it was altered, or a package is missing.
            ConfigError: no such device.
        """
        if not (path / PACKAGE_CARD).is_file():
            raise BackendError(f"{path} is no model: give the folder that holds {PACKAGE_CARD}")
        if (path / ONNX_FILE).is_file():
            exported = OnnxModel(path)
            return cls(exported.recipe, exported.card, exported)
        net, recipe, card = load_package(path)
        precision = "int8" if card["stored"] == "int8" else "float32"
        place, _ = precision_of(precision, device)
        return cls(recipe, card, net.to(place), place)

    def predict(
        self,
        video: Path,
        text: str | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> Said:
        """What the model says of one utterance.

        Args:
            video: the file it is in; one with sound alone does too.
            text: what is said; None where nobody knows.
            start_ms, end_ms: its place in the file; None for the beginning and the end.

        Raises:
            MediaError: the file cannot be decoded, or has nothing at that place.
        """
        media = probe(video)
        start = start_ms or 0
        end = media.duration_ms if end_ms is None else min(end_ms, media.duration_ms)
        if not 0 <= start < end:
            raise MediaError(
                f"{video.name} has nothing from {start} to {end} ms: it is {media.duration_ms} ms "
                "long"
            )
        one = Utterance(video.stem, video.stem, text=text, media=video, start_ms=start, end_ms=end)
        return self.predict_many([one])[0]

    def predict_many(self, utterances: Sequence[Utterance]) -> list[Said]:
        """What the model says of each utterance, in their order.

        Media that cannot be decoded is a modality that is missing, and `notes` says why.
        """
        found: list[Said] = []
        for at in range(0, len(utterances), _ROWS_AT_ONCE):
            found += self._of(list(utterances[at : at + _ROWS_AT_ONCE]))
        return found

    def _of(self, utterances: list[Utterance]) -> list[Said]:
        batch, notes = self._read(utterances)
        with torch.inference_mode():
            logits = self._forward(batch.to(self._device))
        warm = self._temperatures
        probs = {t: (x.float() / warm[t]).softmax(dim=1).cpu().tolist() for t, x in logits.items()}
        said = []
        for row, utterance in enumerate(utterances):
            present = {name: bool(there[row]) for name, there in batch.present.items()}
            each = {t: dict(zip(TARGETS[t], rows[row], strict=True)) for t, rows in probs.items()}
            said.append(
                Said(utterance.id, each if any(present.values()) else None, present, notes[row])
            )
        return said

    def _read(self, utterances: list[Utterance]) -> tuple[Batch, list[str | None]]:
        encoders = self.recipe.encoders
        with tempfile.TemporaryDirectory(prefix="vsa-") as folder:
            cache = FeatureCache(Path(folder), encoders.video, encoders.audio)
            wanted = encoders.video is not None or encoders.audio is not None
            notes = [cache.get(one).note if wanted else None for one in utterances]
            data = UtteranceDataset(
                utterances, self.recipe, cache, train=False, tokens=self._tokens
            )
            return collate([data[row] for row in range(len(data))]), notes


def _temperature(card: dict[str, Any], target: str) -> float:
    """What logits are divided by, as training found it on its development set; 1 where it did not.

    Raises:
        BackendError: the card says what cannot be one.
    """
    told = card["about"].get("temperature", {})
    found = told.get(target, 1.0) if isinstance(told, dict) else told
    if not isinstance(found, float | int) or not 0 < found < 1e3:
        raise BackendError(
            f"the model's card says temperature {found!r} of {target}: get the model again"
        )
    return float(found)
