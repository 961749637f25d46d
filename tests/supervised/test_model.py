"""The network: every fusion learns, hides what is missing, and the loss does what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, HubertModel, Wav2Vec2Model, WavLMModel

from tests.small_supervised import NEEDS_GPU, wave
from vsa_core.backends.text_minilm import encoder_folder
from vsa_core.folders import configs_dir
from vsa_core.labels import EMOTIONS, SENTIMENTS
from vsa_core.supervised.batch import Batch
from vsa_core.supervised.encoders import (
    AttentionPool,
    ClipEncoder,
    FrameEncoder,
    SpectrogramEncoder,
    TextEncoder,
    WaveEncoder,
    make_encoders,
)
from vsa_core.supervised.model import MultimodalNet, MultitaskLoss
from vsa_core.supervised.rates import Rates, trained_parts
from vsa_core.supervised.recipe import Loss, Recipe, load_recipe, recipe_of

WIDTH = 16
FUSIONS = ("late", "early", "attention", "hybrid")


def bert() -> BertModel:
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    return BertModel(config)


def recipe(**sections: Any) -> Recipe:
    values = {
        "encoders": {"width": WIDTH},
        "fusion": {"width": 24, "heads": 2, "layers": 1, "dropout": 0.0, "modality_dropout": 0.0},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return recipe_of(values, "test")


def network(recipe: Recipe) -> MultimodalNet:
    torch.manual_seed(0)
    encoders = nn.ModuleDict(
        {
            "text": TextEncoder(WIDTH, bert()),
            "video": ClipEncoder(WIDTH),
            "audio": SpectrogramEncoder(16, WIDTH),
        }
    )
    return MultimodalNet(recipe, encoders)


def batch(rows: int = 4, **absent: list[int]) -> Batch:
    draw = torch.Generator().manual_seed(1)
    there = torch.ones(rows, dtype=torch.bool)
    present = {name: there.clone() for name in ("text", "video", "audio")}
    for name, some in absent.items():
        present[name][some] = False
    return Batch(
        inputs={
            "text_tokens": torch.randint(5, 60, (rows, 9), generator=draw),
            "text_mask": torch.ones(rows, 9, dtype=torch.bool),
            "text_own": torch.ones(rows, 9, dtype=torch.bool),
            "video_frames": torch.rand(rows, 4, 3, 16, 16, generator=draw),
            "video_mask": torch.ones(rows, 4, dtype=torch.bool),
            "audio_mel": torch.randn(rows, 64, 16, generator=draw),
            "audio_mask": torch.ones(rows, 64, dtype=torch.bool),
        },
        present=present,
        labels={
            "sentiment": torch.arange(rows) % len(SENTIMENTS),
            "emotion": torch.arange(rows) % len(EMOTIONS),
        },
        weight=torch.ones(rows),
        rows=torch.arange(rows),
    )


def other(given: Batch, name: str) -> Batch:
    """The same batch with other values in one tensor."""
    x = given.inputs[name]
    changed = (x + 7) % 60 if x.dtype == torch.int64 else torch.rand_like(x)
    return Batch(
        {**given.inputs, name: changed}, given.present, given.labels, given.weight, given.rows
    )


@pytest.mark.parametrize("kind", FUSIONS)
def test_every_fusion_learns_a_batch_by_heart(kind: str) -> None:
    of = recipe(fusion={"kind": kind})
    net, given = network(of).train(), batch()
    # R3D-18 takes nearly all of the time: with one of the fusions it learns too.
    net.encoders["video"].backbone.requires_grad_(kind == "late")
    loss = MultitaskLoss(
        Loss(label_smoothing=0), {"sentiment": torch.ones(3), "emotion": torch.ones(7)}
    )
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 3e-3)
    for _ in range(25):
        optimizer.zero_grad()
        loss(net(given), given).backward()
        optimizer.step()
    said = net(given)
    for target, labels in given.labels.items():
        assert torch.equal(said[target].argmax(dim=1), labels)


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize(
    ("name", "tensor"),
    [("text", "text_tokens"), ("video", "video_frames"), ("audio", "audio_mel")],
)
def test_what_is_missing_is_not_seen_and_what_is_there_is(
    kind: str, name: str, tensor: str
) -> None:
    net = network(recipe(fusion={"kind": kind})).eval()
    given = batch(**{name: [1]})
    with torch.inference_mode():
        one, two = (net(b)["sentiment"] for b in (given, other(given, tensor)))
    assert torch.allclose(one[1], two[1], atol=1e-5)
    assert (one[[0, 2, 3]] - two[[0, 2, 3]]).abs().amax(dim=1).min() > 1e-6


@pytest.mark.parametrize("kind", FUSIONS)
def test_leaving_rows_out_changes_no_row(kind: str) -> None:
    """Rows that lack a modality are left out of its encoder, or encoded and hidden: the same."""
    net = network(recipe(fusion={"kind": kind})).eval()
    given = batch(text=[0], video=[1, 2], audio=[0, 1, 2, 3])
    with torch.inference_mode():
        one = net(given)["emotion"]
        net.every_row = True
        assert torch.allclose(one, net(given)["emotion"], atol=1e-5)


def test_batch_normalisation_never_sees_what_is_missing() -> None:
    net = network(recipe())
    given = batch(video=[0, 1, 2, 3])
    before = net.encoders["video"].backbone.stem[1].running_mean.clone()
    net.train()(given)
    assert torch.equal(net.encoders["video"].backbone.stem[1].running_mean, before)


def test_hidden_modalities_leave_something_of_every_row() -> None:
    net = network(recipe(fusion={"modality_dropout": 0.5})).train()
    present = torch.tensor([[True, False, False], [True, True, True]]).repeat(500, 1)
    seen = net._seen(present)
    assert seen.any(dim=1).all()
    assert not (seen & ~present).any()
    assert seen[1::2].sum(dim=1).unique().tolist() == [1, 2, 3]
    assert torch.equal(net.eval()._seen(present), present)


@NEEDS_GPU
@pytest.mark.parametrize("kind", FUSIONS)
def test_a_gpu_says_what_the_cpu_says_also_of_half_the_bits(kind: str) -> None:
    net = network(recipe(fusion={"kind": kind})).eval()
    given = batch(text=[0], video=[1, 2], audio=[0, 1])
    with torch.inference_mode():
        said = net(given)["emotion"].softmax(dim=1)
        net.to("cuda")
        exact = net(given.to("cuda"))["emotion"].softmax(dim=1).cpu()
        with torch.autocast("cuda", torch.float16):
            half = net(given.to("cuda"))["emotion"].float().softmax(dim=1).cpu()
    assert torch.allclose(exact, said, atol=2e-3)
    assert torch.allclose(half, said, atol=2e-2)


@NEEDS_GPU
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", FUSIONS)
def test_a_gpu_learns_in_half_the_bits_also_where_something_is_missing(
    kind: str, precision: str
) -> None:
    net, given = network(recipe(fusion={"kind": kind})).to("cuda").train(), batch(video=[1, 2])
    given = given.to("cuda")
    loss = MultitaskLoss(
        Loss(label_smoothing=0, consistency=0.1),
        {"sentiment": torch.ones(3), "emotion": torch.ones(7)},
    ).to("cuda")
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    scaler = torch.amp.GradScaler("cuda", enabled=precision == "float16")
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        with torch.autocast("cuda", getattr(torch, precision)):
            said = net(given)
        value = loss(said, given)
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        values.append(value.item())
    assert values[-1] < 0.2 * values[0]


# --- encoders: padding changes nothing ----------------------------------------------------


def padded(x: Tensor, by: int) -> Tensor:
    return torch.cat([x, torch.zeros(x.shape[0], by, *x.shape[2:], dtype=x.dtype)], dim=1)


def test_padding_changes_no_encoder_of_sequences() -> None:
    torch.manual_seed(0)
    there = torch.ones(2, 320, dtype=torch.bool)
    for encoder, inputs in (
        (
            TextEncoder(WIDTH, bert()),
            [torch.randint(5, 60, (2, 320 // 8)), there[:, :40], there[:, :40]],
        ),
        (SpectrogramEncoder(16, WIDTH), [torch.randn(2, 320, 16), there]),
        *(
            (
                WaveEncoder(WIDTH, Wav2Vec2Model(wave(norm))),
                [torch.randn(2, 3200), torch.ones(2, 3200, dtype=torch.bool)],
            )
            for norm in ("layer", "group")
        ),
        (FrameEncoder("resnet18", WIDTH), [torch.rand(2, 4, 3, 32, 32), there[:, :4]]),
    ):
        encoder.eval()
        by = inputs[0].shape[1] // 2
        with torch.inference_mode():
            one = encoder(*inputs)
            two = encoder(*(padded(x, by) for x in inputs))
        name = type(encoder).__name__
        assert torch.allclose(one.summary, two.summary, atol=1e-4), name
        assert int(two.mask.sum()) == int(one.mask.sum()), name


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_voice_is_heard_alike_beside_a_longer_one_and_however_short(norm: str) -> None:
    torch.manual_seed(0)
    encoder = WaveEncoder(WIDTH, Wav2Vec2Model(wave(norm)))
    samples = torch.tensor([3200, 1000, 450])
    heard = torch.randn(3, 3200)
    mask = torch.arange(3200) < samples[:, None]
    heard = heard * mask
    encoder.train()(heard, mask)  # its own way of hiding stretches would find the last too short
    encoder.eval()
    with torch.inference_mode():
        found = encoder(heard, mask)
        for row, n in enumerate(samples.tolist()):
            alone = encoder(heard[row : row + 1, :n], mask[row : row + 1, :n])
            assert int(found.mask[row].sum()) == int(alone.mask.sum()) == n // 80
            assert torch.allclose(found.summary[row], alone.summary[0], atol=1e-4)


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")  # WavLM's
@pytest.mark.parametrize("family", [Wav2Vec2Model, HubertModel, WavLMModel])
def test_a_voice_alone_is_heard_as_its_network_hears_it(family: Any) -> None:
    torch.manual_seed(0)
    kind = family.config_class
    settings = {k: v for k, v in wave("group").to_dict().items() if k != "model_type"}
    encoder = WaveEncoder(WIDTH, family(kind(**settings))).eval()
    heard = torch.randn(2, 3200)
    with torch.inference_mode():
        published = encoder.backbone(heard).last_hidden_state
        found = encoder(heard, torch.ones(2, 3200, dtype=torch.bool))
        assert torch.allclose(found.sequence, encoder.sequence(published), atol=1e-5)


def test_the_recipe_that_ships_reads_text_with_minilm_as_published() -> None:
    of = load_recipe(configs_dir() / "supervised" / "meld.yaml")
    text = make_encoders(of.encoders.model_copy(update={"video": None, "audio": None}))["text"]
    published = load_file(encoder_folder() / "model.safetensors")
    own = {name: x for name, x in text.backbone.state_dict().items() if name in published}
    assert len(own) > 90
    assert all(torch.equal(x, published[name]) for name, x in own.items())


def test_a_pool_of_nothing_is_nothing() -> None:
    pool = AttentionPool(WIDTH)
    assert torch.equal(
        pool(torch.randn(2, 3, WIDTH), torch.zeros(2, 3, dtype=torch.bool)), torch.zeros(2, WIDTH)
    )


# --- the loss -----------------------------------------------------------------------------


def logits(emotion: int, sentiment: int) -> dict[str, Tensor]:
    said = {"emotion": torch.zeros(1, 7), "sentiment": torch.zeros(1, 3)}
    said["emotion"][0, emotion] = 30.0
    said["sentiment"][0, sentiment] = 30.0
    return said


@pytest.mark.parametrize(
    ("emotion", "sentiment", "contradicts"),
    [
        ("anger", "negative", False),
        ("anger", "positive", True),
        ("joy", "positive", False),
        ("joy", "neutral", True),
        ("neutral", "neutral", False),
        ("surprise", "positive", False),
        ("surprise", "negative", False),
    ],
)
def test_emotions_but_surprise_imply_a_sentiment(
    emotion: str, sentiment: str, contradicts: bool
) -> None:
    weights = {"sentiment": torch.ones(3), "emotion": torch.ones(7)}
    loss = MultitaskLoss(Loss(consistency=1), weights)
    at = [str(e) for e in EMOTIONS].index(emotion), [str(s) for s in SENTIMENTS].index(sentiment)
    assert float(loss.contradiction(logits(*at))) == pytest.approx(
        2.0 if contradicts else 0.0, abs=1e-4
    )


def test_rows_without_a_label_count_nothing_in_that_head() -> None:
    weights = {"sentiment": torch.ones(3), "emotion": torch.ones(7)}
    loss = MultitaskLoss(Loss(), weights)
    given = batch(2)
    said = {
        "sentiment": torch.randn(2, 3, requires_grad=True),
        "emotion": torch.randn(2, 7, requires_grad=True),
    }
    given.labels["sentiment"][1] = -1
    loss(said, given).backward()
    assert said["sentiment"].grad is not None
    assert not said["sentiment"].grad[1].any()
    assert said["emotion"].grad is not None
    assert said["emotion"].grad[1].any()


def test_learned_weights_trust_the_target_that_is_told_apart() -> None:
    weights = {"sentiment": torch.ones(3), "emotion": torch.ones(7)}
    loss = MultitaskLoss(Loss(learned_weights=True, label_smoothing=0), weights)
    given = batch(6)
    said = {
        "sentiment": 20.0 * torch.eye(3)[given.labels["sentiment"]],
        "emotion": torch.zeros(6, 7),
    }
    optimizer = torch.optim.SGD(loss.parameters(), 0.1)
    for _ in range(30):
        optimizer.zero_grad()
        loss(said, given).backward()
        optimizer.step()
    found = {name: x.item() for name, x in loss.log_variance.items()}
    assert found["sentiment"] < found["emotion"]


def test_class_weights_and_smoothing_are_torchs() -> None:
    weights = {"sentiment": torch.tensor([0.5, 1.0, 2.0])}
    loss = MultitaskLoss(Loss(label_smoothing=0.2, emotion=0), weights)
    given, said = batch(3), torch.randn(3, 3)
    each = nn.functional.cross_entropy(
        said, given.labels["sentiment"], weights["sentiment"], label_smoothing=0.2, reduction="none"
    )
    assert float(loss({"sentiment": said}, given)) == pytest.approx(float(each.mean()), rel=1e-5)


# --- what is trained, and how fast ---------------------------------------------------------


def test_an_encoder_is_frozen_and_thawed_by_the_epoch() -> None:
    of = recipe(encoders={"video": {"frozen_epochs": 2}, "text": {"trained_blocks": 1}})
    net = network(of)
    trained_parts(net, of, 1)
    assert not any(p.requires_grad for p in net.encoders["video"].backbone.parameters())
    assert not net.encoders["video"].backbone.training
    assert all(p.requires_grad for p in net.encoders["video"].sequence.parameters())
    trained_parts(net, of, 2)
    assert all(p.requires_grad for p in net.encoders["video"].backbone.parameters())
    assert net.encoders["video"].backbone.training
    bert = net.encoders["text"].backbone
    assert [all(p.requires_grad for p in layer.parameters()) for layer in bert.encoder.layer] == [
        False,
        True,
    ]
    assert not any(p.requires_grad for p in bert.embeddings.parameters())
    before = {name: x.clone() for name, x in net.state_dict().items()}
    given = batch()
    trained_parts(net, of, 0)
    MultitaskLoss(Loss(), {"sentiment": torch.ones(3), "emotion": torch.ones(7)})(
        net(given), given
    ).backward()
    rates = Rates(of, net, nn.Module(), 10)
    rates.set()
    rates.optimizer.step()
    moved = {name for name, x in net.state_dict().items() if not torch.equal(x, before[name])}
    assert not [name for name in moved if name.startswith("encoders.video.backbone")]
    assert [name for name in moved if name.startswith("encoders.text.backbone.encoder.layer.1")]
    assert not [name for name in moved if name.startswith("encoders.text.backbone.encoder.layer.0")]


def test_each_part_has_its_own_rate_and_all_warm_up_and_fall() -> None:
    of = recipe(
        encoders={
            "text": {"learning_rate": 1e-5},
            "video": {"learning_rate": 2e-4},
            "audio": {"learning_rate": 3e-4},
        },
        schedule={"epochs": 10, "learning_rate": 4e-4, "warmup_share": 0.2},
    )
    rates = Rates(of, network(of), nn.Module(), 5)
    shares = []
    for _ in range(50):
        rates.set()
        rates.count()
        shares.append(rates.optimizer.param_groups[0]["lr"] / 1e-5)
        assert {round(g["lr"] / shares[-1], 8) for g in rates.optimizer.param_groups} == {
            1e-5,
            2e-4,
            3e-4,
            4e-4,
        }
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == pytest.approx(shares[10])
    assert shares[10] == pytest.approx(1.0)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[-1] < 0.01


def test_a_plateau_halves_the_rate() -> None:
    of = recipe(schedule={"kind": "plateau", "plateau_patience": 1, "warmup_share": 0.0})
    rates = Rates(of, network(of), nn.Module(), 1)
    rates.count()
    for better, expected in ((True, 1), (False, 1), (False, 0.5), (False, 0.5), (False, 0.25)):
        rates.heard(better)
        assert rates.current == expected


def test_weights_decay_but_not_biases_and_normalisations() -> None:
    of = recipe(loss={"l2": 0.3})
    net = network(of)
    groups = Rates(of, net, nn.Module(), 1).optimizer.param_groups
    assert {g["weight_decay"] for g in groups for p in g["params"] if p.dim() > 1} == {0.3}
    assert {g["weight_decay"] for g in groups for p in g["params"] if p.dim() <= 1} == {0.0}
    assert sum(len(g["params"]) for g in groups) == len(list(net.parameters()))
