"""A supervised network small enough for a test: a tiny BERT, ResNet-18 over two frames, a voice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Wav2Vec2Config

from tests.small_checkpoints import bert
from vsa_core.supervised.encoders import make_encoders
from vsa_core.supervised.model import MultimodalNet
from vsa_core.supervised.recipe import Audio, Encoders, Fusion, Recipe, Text, Video

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
WORDS = ("what", "a", "lovely", "day", "i", "hate", "this")


def network(
    checkpoint: Path, kind: str = "hybrid", **left_out: Any
) -> tuple[MultimodalNet, Recipe]:
    """A network drawn at random, in evaluation mode, and its recipe.

    Args:
        checkpoint: where its text encoder is made, if it is not there.
        kind: of the fusion.
        **left_out: `text`, `video` or `audio`, None.
    """
    if not checkpoint.exists():
        bert(checkpoint, WORDS)
    encoders: dict[str, Any] = {
        "text": Text(checkpoint=str(checkpoint)),
        "video": Video(network="resnet18", frames=2),
        "audio": Audio(mels=16),
        "width": 16,
    }
    recipe = Recipe(
        encoders=Encoders(**encoders | left_out),
        fusion=Fusion(kind=kind, width=16, layers=1, heads=2),  # type: ignore[arg-type]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = MultimodalNet(recipe, make_encoders(recipe.encoders)).eval()
        with torch.no_grad():  # far enough apart that a clip's logits say which clip it was
            for head in net.heads.values():
                head.weight.normal_(0, 1)  # type: ignore[union-attr,operator]
    return net, recipe


def wave(norm: str) -> Wav2Vec2Config:
    """Of a small wav2vec 2.0 with two convolutions, 80 samples a state; norm `layer` or `group`."""
    return Wav2Vec2Config(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16, 16),
        conv_stride=(10, 8),
        conv_kernel=(10, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
    )
