"""Text checkpoints small enough for a test, in the layout of the real ones.

Two layers, 32 wide, with weights drawn at random, around real tokenizers: RoBERTa's own byte pairs
from the shared `roberta_bpe`, the most frequent of them or all, or a Unigram trained here. What
they say of a line means nothing, but depends on all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

SENTIMENTS = ("negative", "neutral", "positive")
# Those of j-hartmann/emotion-english-distilroberta-base.
EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
WIDTH = 32
TINY: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_XLM_SENTENCES = (
    "Das ist wirklich schön, oder nicht?",
    "C'est le plus beau jour de ma vie.",
    "यह बहुत अच्छा है।",
    "هذا فيلم جميل جدا",
    "¡Qué buena noticia, amigos!",
    "I am so happy for you, and I am so sorry for them.",
)


def roberta(
    folder: Path,
    bpe: Path,
    seed: int = 0,
    *,
    labels: Sequence[str] | None = SENTIMENTS,
    pickled: bool = False,
    without: Sequence[str] = (),
    merges: int | None = 2_000,
    spread: float = 0.2,
    **config: Any,
) -> Path:
    """A checkpoint shaped as cardiffnlp/twitter-roberta-base-sentiment-latest.

    Args:
        folder: where to write it; made if it is not there.
        bpe: the shared folder `roberta_bpe`.
        seed: of the weights.
        labels: its names of its classes; None for a bare encoder.
        pickled: `pytorch_model.bin`, as the published file is; else `model.safetensors`.
        without: beginnings of the names of weights that are left out.
        merges: how many of its byte pairs it keeps; None for all, and the real ids (which take a
            third of a second to load).
        spread: standard deviation of its weights.
        **config: what differs in `config.json`, from `TINY`.

    Returns:
        The folder.
    """
    from transformers import RobertaConfig, RobertaForSequenceClassification, RobertaModel

    shape = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    vocabulary, rules = _roberta_tokenizer(bpe, merges)
    settings = TINY | shape | {"vocab_size": len(vocabulary)} | config
    if labels is None:
        model = _drawn(lambda: RobertaModel(RobertaConfig(**settings)), seed, spread)
    else:
        named = RobertaConfig(**settings, **_named(labels))
        model = _drawn(lambda: RobertaForSequenceClassification(named), seed, spread)
    _save(model, folder, pickled, without)
    folder.joinpath("vocab.json").write_text(json.dumps(vocabulary))
    folder.joinpath("merges.txt").write_text("\n".join(rules) + "\n", encoding="utf-8")
    return folder


def xlm_roberta(
    folder: Path, seed: int = 0, *, labels: Sequence[str] = SENTIMENTS, **config: Any
) -> Path:
    """A checkpoint shaped as cardiffnlp/twitter-xlm-roberta-base-sentiment, with tokenizer.json."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import (
        XLMRobertaConfig,
        XLMRobertaForSequenceClassification,
        XLMRobertaTokenizer,
    )

    special = [*_ROBERTA_SPECIAL, "<mask>"]
    unigram = Tokenizer(models.Unigram())
    plain = XLMRobertaTokenizer().backend_tokenizer
    unigram.pre_tokenizer = plain.pre_tokenizer
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    unigram.train_from_iterator(_XLM_SENTENCES * 4, trainer)
    pieces = json.loads(unigram.to_str())["model"]["vocab"]
    tokenizer = XLMRobertaTokenizer(vocab=[tuple(piece) for piece in pieces])
    shape = {"max_position_embeddings": 514, "type_vocab_size": 1, "vocab_size": len(tokenizer)}
    made = XLMRobertaConfig(**TINY | shape | config, **_named(labels))
    _save(_drawn(lambda: XLMRobertaForSequenceClassification(made), seed), folder)
    tokenizer.save_pretrained(folder)
    return folder


def bert(folder: Path, words: Iterable[str], seed: int = 0) -> Path:
    """An encoder shaped as bert-base-uncased, whose vocabulary is letters and the given words."""
    from transformers import BertConfig, BertModel

    letters = [chr(code) for code in range(33, 127)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    tokens += [f"##{letter}" for letter in letters] + sorted(set(words) - set(letters))
    config = BertConfig(**TINY, vocab_size=len(tokens), max_position_embeddings=512)
    _save(_drawn(lambda: BertModel(config), seed), folder)
    folder.joinpath("vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    return folder


def edit_config(folder: Path, **changed: Any) -> Path:
    """Change `config.json`; None takes a key away."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changed
    kept = {key: value for key, value in config.items() if value is not None}
    path.write_text(json.dumps(kept, indent=2), encoding="utf-8")
    return folder


def _named(labels: Sequence[str]) -> dict[str, Mapping[Any, Any]]:
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {name: index for index, name in enumerate(labels)},
    }


def _drawn(make: Callable[[], torch.nn.Module], seed: int, spread: float = 0.2) -> torch.nn.Module:
    """A network with weights large enough that lines differ, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "LayerNorm" not in name:
                    weight.normal_(0, spread)
    return model


def _save(model: Any, folder: Path, pickled: bool = False, without: Sequence[str] = ()) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    folder.joinpath("config.json").write_text(model.config.to_json_string(use_diff=False))
    weights = {
        name: weight.contiguous()
        for name, weight in model.state_dict().items()
        if not name.startswith(tuple(without))
    }
    if pickled:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _roberta_tokenizer(bpe: Path, merges: int | None) -> tuple[dict[str, int], list[str]]:
    """`vocab.json` and the lines of `merges.txt`: GPT-2's pairs in fairseq's dictionary's order."""
    version, *rules = (bpe / "vocab.bpe").read_text(encoding="utf-8").split("\n")
    rules = [rule for rule in rules if rule][:merges]
    pairs = json.loads((bpe / "encoder.json").read_text(encoding="utf-8"))
    whole = merges is None
    kept = pairs if whole else {*(p for p in pairs if len(p) == 1), *map(_joined, rules)}
    of_id = {str(number): pair for pair, number in pairs.items()}
    vocabulary = {name: number for number, name in enumerate(_ROBERTA_SPECIAL)}
    for line in (bpe / "dict.txt").read_text(encoding="utf-8").splitlines():
        word = of_id.get(name := line.split()[0], name)
        if whole or word in kept:
            vocabulary[word] = len(vocabulary)
    vocabulary["<mask>"] = len(vocabulary)
    return vocabulary, [version, *rules]


def _joined(rule: str) -> str:
    return rule.replace(" ", "")
