"""Audio-classification checkpoints small enough for a test, in the layout of the real ones.

Two layers, 32 wide, behind the real seven convolutions (one frame each 20 ms), with weights drawn
at random: what they say of a voice means nothing, but depends on all of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SUPERB = ("neu", "hap", "ang", "sad")
WIDTH = 32
FAMILIES = {
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2ForSequenceClassification"),
    "hubert": ("HubertConfig", "HubertForSequenceClassification"),
    "wavlm": ("WavLMConfig", "WavLMForSequenceClassification"),
}
TINY: dict[str, Any] = {
    "conv_dim": [16] * 7,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "classifier_proj_size": 16,
}
# As s3prl's models stand on the Hub, and the sounds they take.
_FRONT_END = {
    "do_normalize": True,
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0,
    "return_attention_mask": False,
    "sampling_rate": 16_000,
}


def wav2vec2_er(
    folder: Path,
    seed: int = 0,
    *,
    family: str = "wav2vec2",
    labels: Sequence[str] = SUPERB,
    pickled: bool = False,
    front_end: Mapping[str, Any] | None = None,
    **config: Any,
) -> Path:
    """A checkpoint shaped as superb/wav2vec2-base-superb-er, and others of its kind.

    Args:
        folder: where to write it; made if it is not there.
        seed: of the weights.
        family: one of `FAMILIES`.
        labels: its names of its classes.
        pickled: `pytorch_model.bin` with the names that torch gave a weight norm before 2.1, as
            the published file is; else `model.safetensors`.
        front_end: what differs in `preprocessor_config.json`.
        **config: what differs in `config.json`, from `TINY` with a weighted sum of layers.

    Returns:
        The folder.
    """
    import transformers

    config_class, model_class = (getattr(transformers, name) for name in FAMILIES[family])
    settings = TINY | {"use_weighted_layer_sum": True} | config
    made = config_class(**settings, id2label=dict(enumerate(labels)), num_labels=len(labels))
    model = getattr(transformers, model_class.__name__)(made)
    weights = _drawn(model.state_dict(), seed)
    folder.mkdir(parents=True, exist_ok=True)
    about = json.loads(made.to_json_string()) | {"architectures": [model_class.__name__]}
    about["label2id"] = {name: index for index, name in enumerate(labels)}
    (folder / "config.json").write_text(json.dumps(about, indent=2, sort_keys=True))
    (folder / "preprocessor_config.json").write_text(
        json.dumps(_FRONT_END | dict(front_end or {}), indent=2)
    )
    if pickled:
        torch.save(
            {
                name.replace("parametrizations.weight.original0", "weight_g").replace(
                    "parametrizations.weight.original1", "weight_v"
                ): value
                for name, value in weights.items()
            },
            folder / "pytorch_model.bin",
        )
    else:
        from safetensors.torch import save_file

        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def _drawn(shapes: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Weights as large as keep what passes through the layers at its size, the head's larger."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, like in shapes.items():
        noise = torch.randn(like.shape, generator=generator)
        if name.endswith("classifier.weight"):
            drawn[name] = 0.7 * noise
        elif like.ndim > 1 and "original0" not in name:
            drawn[name] = noise / max(like[0].numel(), 1) ** 0.5
        elif name.endswith("bias"):
            drawn[name] = 0.1 * noise
        else:  # scales of norms, weights of layers
            drawn[name] = 1 + 0.2 * noise
    return drawn
