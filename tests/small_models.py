"""Small checkpoints in the place of every published one that a profile or a default names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.small_audio import wav2vec2_er
from tests.small_checkpoints import bert, roberta, xlm_roberta
from tests.small_faces import deepface_emotion, deepface_facenet512
from tests.small_whisper import ctranslate2_folder, openai_file, state
from vsa_core.labels import EMOTIONS


def fill(cache: Path, made: Path, shared: Path) -> None:
    """Take small checkpoints into vsa's cache folder, as a user takes in his own.

    Args:
        cache: the cache folder, as VSA_CACHE_DIR names it.
        made: where the checkpoints are made.
        shared: the folder of third-party test data.
    """
    from vsa_core.weights import known
    from vsa_core.weights.keep import add

    bpe, says = shared / "roberta_bpe", state()
    checkpoints = {
        "twitter-roberta": roberta(made / "roberta", bpe, pickled=True),
        "emotion-distilroberta": roberta(
            made / "emotion", bpe, seed=1, labels=[str(e) for e in EMOTIONS], pickled=True
        ),
        "twitter-xlm-roberta": xlm_roberta(made / "xlm"),
        "bert-base-uncased": bert(made / "bert", ["the", "meeting", "starts", "what"]),
        "wav2vec2-er": wav2vec2_er(made / "wav2vec2", pickled=True),
        "deepface-emotion": deepface_emotion(made / "facial_expression_model_weights.pth"),
        "deepface-facenet512": deepface_facenet512(made / "facenet512_weights.pth"),
        "whisper-small": openai_file(made / "small.pt", says),
        "faster-whisper-small": ctranslate2_folder(made / "ct2", says),
    }
    with looking_in(cache):
        add(known("yunet"), shared / "models" / "yunet_n_640_640.onnx")  # the real one
        for name, path in checkpoints.items():
            add(known(name), path, trust=True)


@contextmanager
def looking_in(cache: Path) -> Iterator[None]:
    """Inside, weights are looked for in that cache folder, and in no one's Hugging Face cache."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(cache).items():
            patch.setenv(name, value)
        yield


def environment(cache: Path) -> dict[str, str]:
    """Variables under which a command looks for weights in that cache folder alone."""
    return {
        "VSA_CACHE_DIR": str(cache),
        "HF_HUB_CACHE": os.devnull,
        # Nobody listens there: whoever tries to fetch a thing fails at once.
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
