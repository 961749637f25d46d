"""When openai-whisper's words are said: where its alignment heads look while the text is read.

As `whisper.timing` does it, with three differences: the sound is not encoded a second time, the
dynamic time warping needs no compiler (the package's takes each process four seconds), and nothing
of the package's own is switched over, so that other threads may use the model meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.transcripts.whisper_windows import CLOSES, OPENS, Timed

if TYPE_CHECKING:
    import torch

_SMOOTHED = 7  # states of 20 ms


def timed_words(
    model: Any, tokenizer: Any, tokens: Sequence[int], states: torch.Tensor, length: int
) -> list[Timed]:
    """The words of a text with times, punctuation with the word it belongs to.

    Args:
        model: whisper.model.Whisper; nobody else may decode with it meanwhile.
        tokenizer: of the language the text is in.
        tokens: the text, without special tokens.
        states: (1500, width) the encoded window.
        length: how many of the states are of sound.
    """
    from whisper.timing import WordTiming, merge_punctuations

    times = _token_times(model, tokenizer, tokens, states, length)
    texts, parts = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
    words, at = [], 0
    for text, part in zip(texts[:-1], parts[:-1], strict=True):
        words.append(WordTiming(text, part, times[at], times[at + len(part)], 1.0))
        at += len(part)
    merge_punctuations(words, OPENS, CLOSES)
    return [Timed(word.word, word.start, word.end) for word in words if word.word]


def _token_times(
    model: Any, tokenizer: Any, tokens: Sequence[int], states: torch.Tensor, length: int
) -> list[float]:
    """n + 1 times, s: when each of n tokens starts, and when the last one ends."""
    import torch
    from whisper.audio import TOKENS_PER_SECOND
    from whisper.timing import median_filter

    before = len(tokenizer.sot_sequence)
    line = torch.tensor([*tokenizer.sot_sequence_including_notimestamps, *tokens, tokenizer.eot])
    heads = model.alignment_heads.indices().T.tolist()
    with torch.inference_mode(), _watched(model, {layer for layer, _ in heads}) as looks:
        model.decoder(line[None].to(model.device), states[None])
        look = torch.stack([looks[layer][head] for layer, head in heads])  # (H, T, 1500)
        look = look[:, :, :length].float().softmax(dim=-1)
        std, mean = torch.std_mean(look, dim=-2, keepdim=True, unbiased=False)
        look = median_filter(((look - mean) / std).nan_to_num(), _SMOOTHED).mean(dim=0)
    # The place that reads a token looks at where the next one is said.
    rows, columns = cheapest_way(-look[before:-1].double().cpu().numpy())
    starts = columns[np.flatnonzero(np.diff(rows, prepend=-1))] / TOKENS_PER_SECOND
    times: list[float] = starts.tolist()
    return times


@contextmanager
def _watched(model: Any, layers: set[int]) -> Iterator[dict[int, torch.Tensor]]:
    """By layer the (heads, T, 1500) cross-attention before its softmax, once the decoder has run.

    The fused attention that the package computes with does not tell it.
    """
    looks: dict[int, torch.Tensor] = {}

    def look(layer: int, attention: Any, line: torch.Tensor, states: torch.Tensor) -> None:
        query, key = (
            part[0].unflatten(-1, (attention.n_head, -1)).transpose(0, 1)
            for part in (attention.query(line), attention.key(states))
        )
        looks[layer] = query @ key.transpose(1, 2) * query.shape[-1] ** -0.5

    hooks = [
        model.decoder.blocks[layer].cross_attn.register_forward_pre_hook(
            lambda attention, args, layer=layer: look(layer, attention, *args[:2])
        )
        for layer in layers
    ]
    try:
        yield looks
    finally:
        for hook in hooks:
            hook.remove()


def cheapest_way(cost: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Dynamic time warping: from the first cell of a matrix to the last at the least cost.

    Args:
        cost: (N, M) of entering a cell, from above, from the left or from both.

    Returns:
        Rows and columns of the cells on the way, in order; the same as `whisper.timing.dtw` has.
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    steps = np.zeros((rows + 1, columns + 1), np.int8)  # 0 from both, 1 from above, 2 from the left
    steps[:, 0], steps[0, :] = 1, 2
    for diagonal in range(2, rows + columns + 1):  # whose cells do not depend on one another
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        both, above, left = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        step = np.where((above < both) & (above < left), 1, 2)
        step[(both < above) & (both < left)] = 0
        steps[i, j] = step
        total[i, j] = cost[i - 1, j - 1] + np.choose(step, (both, above, left))
    way, i, j = [], rows, columns
    while i > 0 or j > 0:
        way.append((i - 1, j - 1))
        step = steps[i, j]
        i, j = i - int(step != 2), j - int(step != 1)
    found = np.array(way[::-1], np.int64)
    return found[:, 0], found[:, 1]
