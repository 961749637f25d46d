"""How fast the voice classifier is at the size of the published one, against transformers' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.material import clips
from benchmarks.measure import Spent, scratch, timed
from tests.small_audio import SUPERB, wav2vec2_er
from vsa_core.media import SAMPLE_RATE_HZ, probe

# wav2vec 2.0 base, as superb/wav2vec2-base-superb-er has it.
BASE: dict[str, Any] = {
    "conv_dim": [512] * 7,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "classifier_proj_size": 256,
}
_Probs = NDArray[np.floating]


def segments() -> list[NDArray[np.float32]]:
    """The recordings in pieces of 1.3 to 4.9 s, as utterances are long; no two of one length."""
    seconds = (2.1, 3.4, 1.3, 4.2, 2.7, 4.9, 1.8, 3.1)
    found = []
    folder = clips().with_name("speech")
    for path in sorted(path for path in folder.iterdir() if path.suffix in {".wav", ".flac"}):
        media, start = probe(path), 0
        while start < media.duration_ms - 1000:
            end = start + round(1000 * seconds[len(found) % len(seconds)])
            found.append(media.audio_between(start, end))
            start = end
    return found


def audio(rounds: int = 3, layers: int = 12) -> None:
    """Our batches against `pipeline()` called per segment; random weights, so times alone."""
    import torch
    from transformers import pipeline
    from transformers.utils import logging

    from vsa_core.backends.audio_wav2vec2 import Utterance, load
    from vsa_core.backends.hearing import Voice
    from vsa_core.voice import WINDOW

    torch.set_num_threads(1)  # as the stages of a run have it
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    waves = segments()
    shape = BASE | {"num_hidden_layers": layers}
    voices = [
        Utterance(Voice(wave, np.ones(-(-len(wave) // WINDOW), np.float32))) for wave in waves
    ]
    length_s = sum(map(len, waves)) / SAMPLE_RATE_HZ
    with scratch() as folder:
        checkpoint = str(wav2vec2_er(folder / "base", pickled=True, **shape))
        classify = pipeline("audio-classification", model=checkpoint, device="cpu")
        ours, int8 = (load(checkpoint, precision=p) for p in ("float32", "int8"))

        def theirs() -> _Probs:
            found = [{one["label"]: one["score"] for one in classify(wave)} for wave in waves]
            neu, hap, ang, sad = np.array([[one[name] for name in SUPERB] for one in found]).T
            return np.stack([ang + sad, neu, hap], axis=1)

        ways: dict[str, Callable[[], _Probs]] = {
            "pipeline()": theirs,
            "ours": lambda: ours.predict(voices).sentiment_probs,
            "ours, int8": lambda: int8.predict(voices).sentiment_probs,
        }
        said = {name: way() for name, way in ways.items()}  # loads, and warms up
        spent: dict[str, list[Spent]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                spent[name].append(timed(way)[1])
    factors = ", ".join(
        f"{name} {min(s.wall for s in each) / length_s:.3f} ({min(s.cpu for s in each):.1f} s of "
        "processor time)"
        for name, each in spent.items()
    )
    apart = {name: np.abs(said[name] - said["pipeline()"]).max() for name in ways}
    print(
        f"audio: wav2vec 2.0 base with random weights, {len(waves)} segments of {length_s:.1f} s "
        f"in all, one thread: real-time factor {factors}; largest difference of probabilities "
        f"{apart['ours']:.0e}, int8 {apart['ours, int8']:.0e}"
    )
