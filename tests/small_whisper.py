"""Whisper checkpoints small enough for a test that have learnt one sentence by heart.

Their layers add nothing to what passes through them, and the vector of each position points at
the token to be said there. So real files go through the real loading and decoding, and what
comes out is known, whatever is heard.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SENTENCE = " And so, my fellow Americans, ask not what your country can do for you."
MULTILINGUAL, ENGLISH = 51_865, 51_864


def dimensions(
    vocabulary: int = MULTILINGUAL,
    *,
    width: int = 64,
    heads: int = 2,
    layers: int = 2,
    text_ctx: int = 448,
) -> dict[str, int]:
    """openai-whisper's record of a checkpoint's dimensions."""
    return {
        "n_mels": 80,
        "n_audio_ctx": 1500,
        "n_audio_state": width,
        "n_audio_head": heads,
        "n_audio_layer": layers,
        "n_vocab": vocabulary,
        "n_text_ctx": text_ctx,
        "n_text_state": width,
        "n_text_head": heads,
        "n_text_layer": layers,
    }


def tokenizer(vocabulary: int = MULTILINGUAL) -> Any:
    from whisper.tokenizer import get_tokenizer

    return get_tokenizer(vocabulary != ENGLISH, num_languages=99)


def state(
    sentence: str = SENTENCE,
    *,
    language: str = "en",
    doubt: float = 0.0,
    no_speech: float = 0.0,
    sureness: float = 1.0,
    vocabulary: int = MULTILINGUAL,
    **size: int,
) -> dict[str, Tensor]:
    """The weights of an openai-whisper model that says one sentence, by their names there.

    Args:
        sentence: what it says to any sound.
        language: what it takes any sound for.
        doubt: how far it takes it for Welsh as well: 1 is as far.
        no_speech: how far it takes it for no speech as well: 1 is as far.
        sureness: scale of the logits; at 0.1 hardly a token is likelier than another.
        vocabulary: `MULTILINGUAL` or `ENGLISH`.
        size: as for `dimensions`.
    """
    from whisper.model import ModelDimensions, Whisper

    words, dims = tokenizer(vocabulary), dimensions(vocabulary, **size)
    width = dims["n_text_state"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = dict(Whisper(ModelDimensions(**dims)).state_dict())
        vectors = F.layer_norm(torch.randn(vocabulary, width), (width,))
    for name, value in found.items():
        if name.endswith(("attn.out.weight", "attn.out.bias", "mlp.2.weight", "mlp.2.bias")):
            found[name] = torch.zeros_like(value)
    first = len(words.sot_sequence)  # the text follows <|notimestamps|>
    said = [*words.encode(sentence), words.eot]
    places = vectors[words.eot].repeat(dims["n_text_ctx"], 1)
    places[first : first + len(said)] = vectors[said]
    places[0] = (
        vectors[words.special_tokens[f"<|{language}|>"]]
        + doubt * vectors[words.special_tokens["<|cy|>"]]
        + no_speech * vectors[words.no_speech]
    )
    return found | {
        "decoder.token_embedding.weight": vectors,
        "decoder.positional_embedding": 4 * places,
        "decoder.ln.weight": torch.full((width,), sureness),
    }


def openai_file(path: Path, weights: dict[str, Tensor], **size: int) -> Path:
    """A `.pt` file as openai-whisper publishes them, with the weights of `state`."""
    dims = dimensions(len(weights["decoder.token_embedding.weight"]), **size)
    torch.save({"dims": dims, "model_state_dict": weights}, path)
    return path


# --- the same for CTranslate2 -------------------------------------------------------------

_IN_TRANSFORMERS = (
    (".blocks.", ".layers."),
    (".cross_attn", ".encoder_attn"),
    (".attn_ln.", ".self_attn_layer_norm."),
    (".attn.", ".self_attn."),
    ("attn_ln.", "attn_layer_norm."),
    (".query.", ".q_proj."),
    (".key.", ".k_proj."),
    (".value.", ".v_proj."),
    (".out.", ".out_proj."),
    (".mlp_ln.", ".final_layer_norm."),
    (".mlp.0.", ".fc1."),
    (".mlp.2.", ".fc2."),
    (".ln_post.", ".layer_norm."),
    ("decoder.ln.", "decoder.layer_norm."),
    (".token_embedding.", ".embed_tokens."),
    (".positional_embedding", ".embed_positions.weight"),
)


def ctranslate2_folder(folder: Path, weights: dict[str, Tensor], **size: int) -> Path:
    """A folder as CTranslate2's own converter makes it of a transformers checkpoint.

    With the weights of `state`, in float32; the tokenizer is Whisper's real one.
    """
    from ctranslate2.converters import TransformersConverter
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    vocabulary = len(weights["decoder.token_embedding.weight"])
    dims = dimensions(vocabulary, **size)
    width, heads, layers = (dims[f"n_text_{name}"] for name in ("state", "head", "layer"))
    source = folder.with_name(f"{folder.name}-transformers")
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=vocabulary,
            d_model=width,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=4 * width,
            decoder_ffn_dim=4 * width,
        )
    )
    renamed = {}
    for name, value in weights.items():
        for there, here in _IN_TRANSFORMERS:
            name = name.replace(there, here)
        renamed[f"model.{name}"] = value
    absent = model.load_state_dict(renamed, strict=False)
    assert absent.missing_keys == ["proj_out.weight"]  # tied to the embedding
    model.tie_weights()
    words = tokenizer(vocabulary)
    # As in OpenAI's own generation_config.json.
    model.generation_config = GenerationConfig(
        suppress_tokens=[], begin_suppress_tokens=[220, words.eot]
    )
    if vocabulary != ENGLISH:
        model.generation_config.lang_to_id = {
            f"<|{code}|>": token
            for code, token in zip(words.all_language_codes, words.all_language_tokens, strict=True)
        }
    model.save_pretrained(source)
    _write_tokenizer(source, vocabulary)
    TransformersConverter(
        str(source), copy_files=["tokenizer.json", "preprocessor_config.json"]
    ).convert(str(folder))
    return folder


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    """The tokenizer and what belongs to it."""
    (folder / "tokenizer.json").write_text(_tokenizer_json(vocabulary), encoding="utf-8")
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"feature_size": 80, "sampling_rate": 16_000, "n_fft": 400, "hop_length": 160})
    )


@functools.cache
def _tokenizer_json(vocabulary: int) -> str:
    """openai-whisper's vocabulary as a tokenizer.json."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    words = tokenizer(vocabulary)
    ranks = words.encoding._mergeable_ranks
    letters = bytes_to_unicode()
    spelt = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [
        (rank, ranks[token[:cut]], token[:cut], token[cut:])
        for token, rank in ranks.items()
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    made = Tokenizer(
        BPE(
            {spelt[token]: rank for token, rank in ranks.items()},
            [(spelt[left], spelt[right]) for *_, left, right in sorted(merges)],
        )
    )
    made.pre_tokenizer, made.decoder = ByteLevel(add_prefix_space=False), Decoder()
    special = sorted(words.special_tokens, key=words.special_tokens.__getitem__)
    made.add_special_tokens([AddedToken(token, special=True) for token in special])
    assert all(made.token_to_id(token) == number for token, number in words.special_tokens.items())
    text: str = made.to_str()
    return text
