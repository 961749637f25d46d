"""Utterances as tensors: the right tokens, pictures and sound, repeatable whoever asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.utils.data import DataLoader

from tests import bad_media
from tests.small_checkpoints import bert, roberta
from vsa_core.errors import BackendError
from vsa_core.progress import Steps
from vsa_core.supervised.batch import Batch
from vsa_core.supervised.dataset import Sample, UtteranceDataset, class_counts, collate, log_mel
from vsa_core.supervised.encoders import checkpoint_folder, make_encoders
from vsa_core.supervised.features import FeatureCache
from vsa_core.supervised.meld import read_meld
from vsa_core.supervised.model import MultimodalNet
from vsa_core.supervised.recipe import Recipe, recipe_of
from vsa_core.supervised.tokens import Tokens
from vsa_core.supervised.utterances import Utterance

FRAMES = 4
SETTINGS = {
    "encoders": {
        "text": {"context_tokens": 24},
        "video": {"network": "resnet18", "frames": FRAMES, "learning_rate": 1e-4},
        "audio": {"mels": 40, "max_s": 2.0, "learning_rate": 1e-4},
        "width": 16,
    },
    "seed": 7,
}


def recipe(**augmentation: object) -> Recipe:
    return recipe_of({**SETTINGS, "augmentation": augmentation}, "test")


NOTHING = {
    "crop": False, "flip": False, "time_shift": 0, "time_mask_s": 0, "mel_mask": 0,
    "token_dropout": 0,
}  # fmt: skip


def noise(seconds: float, seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=round(seconds * bad_media.RATE_HZ))
    return (0.1 * made).astype(np.float32)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Four utterances, each without something but the first; their features are in `cached`."""
    folder = tmp_path_factory.mktemp("media")
    whole = bad_media.write(folder / "a.mp4", bad_media.film(50), noise(2, 0))
    mute = bad_media.write(folder / "b.mp4", bad_media.film(20))
    dark = bad_media.write(folder / "c.mp4", None, noise(1, 1))
    return [
        Utterance("a", "g", "What?", "Ross", (("Joey", "Hi."),), whole, 0, 2000, {"sentiment": 1}),
        Utterance("b", "g", " ", None, (("Joey", "Hi."),), mute, 0, 1000, {"emotion": 3}),
        Utterance("c", "h", "No way!", None, (), dark, 0, 1000, {"sentiment": 0, "emotion": 0}),
        Utterance("d", "h", "Nothing to see."),
    ]


@pytest.fixture(scope="module")
def cached(spoken: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """The features of `spoken`, whose media are gone."""
    made = recipe().encoders
    cache = FeatureCache(tmp_path_factory.mktemp("features"), made.video, made.audio)
    cache.fill(spoken, 2, Steps("features"))
    for utterance in spoken:
        if utterance.media is not None:
            utterance.media.unlink()
    return cache


def same(one: Sample, other: Sample) -> bool:
    pairs = [
        (one.tokens, other.tokens),
        (one.own, other.own),
        (one.frames, other.frames),
        (one.sound, other.sound),
    ]
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


class TestBatches:
    def test_names_shapes_and_masks(self, spoken: list[Utterance], cached: FeatureCache) -> None:
        data = UtteranceDataset(spoken, recipe(), cached, train=False)
        batch = collate([data[row] for row in range(4)])
        assert {k: v.tolist() for k, v in batch.present.items()} == {
            "text": [True, False, True, True],
            "video": [True, True, False, False],
            "audio": [True, False, True, False],
        }
        frames, mel = batch.inputs["video_frames"], batch.inputs["audio_mel"]
        assert (frames.shape, frames.dtype) == ((4, FRAMES, 3, 112, 112), torch.float32)
        assert 0 < frames[:2].mean() < frames.max() <= 1
        assert frames[2:].abs().max() == 0
        assert batch.inputs["video_mask"].sum(dim=1).tolist() == [FRAMES, FRAMES, 0, 0]
        assert (mel.shape, mel.dtype) == ((4, 201, 40), torch.float32)
        assert batch.inputs["audio_mask"].sum(dim=1).tolist() == [201, 0, 101, 0]
        assert mel[~batch.inputs["audio_mask"]].abs().max() == 0
        tokens, mask, own = (batch.inputs[f"text_{n}"] for n in ("tokens", "mask", "own"))
        assert tokens.dtype == torch.int64
        assert mask.dtype == own.dtype == torch.bool
        assert (own & ~mask).sum() == 0
        assert mask.sum(dim=1).tolist() == data.token_lengths().tolist()
        assert mask[1].nonzero().tolist() == own[1].nonzero().tolist() == [[0]]
        assert batch.labels["sentiment"].tolist() == [1, -1, 0, -1]
        assert batch.labels["emotion"].tolist() == [-1, 3, 0, -1]
        assert batch.weight.tolist() == [1, 1, 1, 1]
        assert batch.rows.tolist() == [0, 1, 2, 3]

    @pytest.mark.parametrize("rows", [(0, 1, 2, 3), (3,)])
    def test_a_model_takes_them_whatever_is_missing(
        self, spoken: list[Utterance], cached: FeatureCache, rows: Sequence[int]
    ) -> None:
        made = recipe()
        data = UtteranceDataset(spoken, made, cached, train=True)
        net = MultimodalNet(made, make_encoders(made.encoders, pretrained=False)).eval()
        with torch.inference_mode():
            logits = net(collate([data[row] for row in rows]))
            net.every_row = True
            again = net(collate([data[row] for row in rows]))
        assert logits["emotion"].shape == (len(rows), 7)
        assert torch.allclose(logits["sentiment"], again["sentiment"], atol=1e-5)

    def test_the_waveform_is_of_mean_0_and_variance_1(
        self, spoken: list[Utterance], cached: FeatureCache
    ) -> None:
        audio = {"network": "wav2vec2", "checkpoint": "x", "max_s": 2.0, "learning_rate": 1e-4}
        encoders = {**SETTINGS["encoders"], "audio": audio}  # type: ignore[dict-item]
        made = recipe_of({**SETTINGS, "encoders": encoders}, "test")
        data = UtteranceDataset(spoken, made, cached, train=False)
        batch = collate([data[row] for row in (0, 2, 3)])
        wave, mask = batch.inputs["audio_wave"], batch.inputs["audio_mask"]
        assert mask.sum(dim=1).tolist() == [32_000, 16_000, 0]
        for row in range(2):
            heard = wave[row][mask[row]]
            assert float(heard.mean()) == pytest.approx(0, abs=1e-4)
            assert float(heard.var()) == pytest.approx(1, abs=1e-3)
        assert wave[1, 16_000:].abs().max() == wave[2].abs().max() == 0

    def test_without_a_cache_there_is_text_alone(self, spoken: list[Utterance]) -> None:
        batch = collate([UtteranceDataset(spoken, recipe(), None, train=False)[0]])
        assert [bool(batch.present[n]) for n in ("text", "video", "audio")] == [True, False, False]


class TestRandomness:
    def test_it_is_of_seed_epoch_and_row_alone(
        self, spoken: list[Utterance], cached: FeatureCache
    ) -> None:
        data = UtteranceDataset(spoken, recipe(), cached, train=True)
        data.set_epoch(3)
        third = [data[row] for row in range(4)]
        other = UtteranceDataset(spoken, recipe(), cached, train=True)
        other.set_epoch(3)
        backwards = [other[row] for row in reversed(range(4))][::-1]
        assert all(same(a, b) for a, b in zip(third, backwards, strict=True))
        data.set_epoch(4)
        assert not same(data[0], third[0])
        seeded = UtteranceDataset(
            spoken, recipe().model_copy(update={"seed": 8}), cached, train=True
        )
        seeded.set_epoch(3)
        assert not same(seeded[0], third[0])

    def test_workers_that_live_on_hear_of_the_next_epoch(
        self, spoken: list[Utterance], cached: FeatureCache
    ) -> None:
        data = UtteranceDataset(spoken, recipe(), cached, train=True)
        loader: DataLoader[Sample] = DataLoader(
            data,
            batch_size=2,
            num_workers=1,
            persistent_workers=True,
            collate_fn=collate,
            multiprocessing_context="spawn",
        )
        for epoch in (1, 2):
            data.set_epoch(epoch)
            here = [collate([data[row], data[row + 1]]) for row in (0, 2)]
            for mine, theirs in zip(here, loader, strict=True):
                assert isinstance(theirs, Batch)
                for name, tensor in mine.inputs.items():
                    assert torch.equal(tensor, theirs.inputs[name]), (epoch, name)

    def test_evaluation_is_the_same_every_time(
        self, spoken: list[Utterance], cached: FeatureCache
    ) -> None:
        data = UtteranceDataset(spoken, recipe(), cached, train=False)
        first = data[0]
        data.set_epoch(9)
        assert same(data[0], first)

    def test_training_without_augmentation_is_evaluation(
        self, spoken: list[Utterance], cached: FeatureCache
    ) -> None:
        train = UtteranceDataset(spoken, recipe(**NOTHING), cached, train=True)
        assert same(train[0], UtteranceDataset(spoken, recipe(), cached, train=False)[0])


class TestPictures:
    def test_all_frames_of_a_clip_are_cropped_and_flipped_alike(
        self, spoken: list[Utterance], cached: FeatureCache
    ) -> None:
        """The film's colours meet at half the width: where, tells the crop; which side, the flip"""
        data = UtteranceDataset(
            spoken, recipe(**NOTHING | {"crop": True, "flip": True}), cached, train=True
        )
        places = set()
        for epoch in range(12):
            data.set_epoch(epoch)
            frames = data[0].frames
            assert frames is not None
            red = (frames[:, 0, 20].int() - frames[:, 1, 20].int()) > 0  # (T, 112)
            assert (red == red[0]).all()
            places.add((int(red[0].sum()), bool(red[0, 0])))
        assert len({where for where, _ in places}) > 5
        assert {side for _, side in places} == {True, False}

    def test_a_shift_takes_other_frames_of_the_denser_grid(
        self, spoken: list[Utterance], cached: FeatureCache
    ) -> None:
        data = UtteranceDataset(spoken, recipe(**NOTHING | {"time_shift": 0.5}), cached, train=True)
        plain = UtteranceDataset(spoken, recipe(), cached, train=False)[0].frames
        assert plain is not None
        moved = set()
        for epoch in range(12):
            data.set_epoch(epoch)
            frames = data[0].frames
            assert frames is not None
            grey = frames[1:-1, :, 90].float().mean() - plain[1:-1, :, 90].float().mean()
            moved.add(round(float(grey)))
        # 50 pictures over 8 places: half a frame's distance is 6.25 pictures, 12.5 of grey.
        assert {np.sign(m) for m in moved} == {-1, 0, 1}
        assert max(map(abs, moved)) < 16


class TestSound:
    def test_a_band_rises_where_its_tone_sets_in(self) -> None:
        time = torch.arange(32_000) / 16_000
        quiet = 0.001 * torch.randn(32_000, generator=torch.Generator().manual_seed(0))
        tone = 0.3 * torch.sin(2 * torch.pi * 1000 * time) * (time > 1)
        found = log_mel(quiet + tone, 64)
        assert found.shape == (201, 64)
        assert float(found.mean(dim=0).abs().max()) < 1e-4
        assert torch.allclose(found.std(dim=0, correction=0), torch.ones(64), atol=1e-3)
        edges = 700 * (10 ** (np.linspace(*_mel([60, 7600]), 66) / 2595) - 1)
        band = int(np.abs(edges[1:-1] - 1000).argmin())
        assert float(found[:95, band].mean()) < -0.9
        assert float(found[105:, band].mean()) > 0.9
        assert abs(float(found[105:, 55].mean() - found[:95, 55].mean())) < 0.5

    def test_a_window_is_what_a_sum_by_hand_gives(self) -> None:
        wave = torch.from_numpy(noise(0.5, 3))
        found = log_mel(wave, 32)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
        edges = 700 * (10 ** (np.linspace(*_mel([60, 7600]), 34) / 2595) - 1)
        hz = np.arange(257) * 31.25
        rows = []
        for at in range(2, 45):
            piece = wave.numpy()[160 * at - 200 : 160 * at + 200] * hann
            power = np.abs(np.fft.rfft(piece, 512)) ** 2
            triangles = [np.interp(hz, edges[n : n + 3], [0, 1, 0]) for n in range(32)]
            rows.append([np.log(power @ triangle) for triangle in triangles])
        by_hand = np.array(rows)
        # Up to the mean and variance over all windows, which are straight lines.
        for band in range(8, 32):  # narrower ones are at least a bin wide
            slope = np.polyfit(by_hand[:, band], found[2:45, band].numpy(), 1)
            rest = np.polyval(slope, by_hand[:, band]) - found[2:45, band].numpy()
            assert np.abs(rest).max() < 0.01

    def test_no_band_is_deaf(self) -> None:
        found = log_mel(torch.from_numpy(noise(0.5, 3)), 128)
        assert float(found.std(dim=0).min()) > 0.5

    def test_silence_is_nothing(self) -> None:
        assert float(log_mel(torch.zeros(4000), 64).abs().max()) == 0

    def test_a_stretch_and_some_bands_are_hidden(
        self, spoken: list[Utterance], cached: FeatureCache
    ) -> None:
        data = UtteranceDataset(
            spoken, recipe(**NOTHING | {"time_mask_s": 0.3, "mel_mask": 8}), cached, train=True
        )
        stretches, bands = set(), set()
        for epoch in range(20):
            data.set_epoch(epoch)
            hidden = data[0].sound == 0
            assert isinstance(hidden, torch.Tensor)
            stretches.add(int(hidden.all(dim=1).sum()))
            bands.add(int(hidden.all(dim=0).sum()))
        assert len(stretches) > 5
        assert len(bands) > 3
        assert max(stretches) <= 30
        assert max(bands) <= 8

    def test_a_shift_crops_a_tenth_at_most(
        self, spoken: list[Utterance], cached: FeatureCache
    ) -> None:
        data = UtteranceDataset(spoken, recipe(**NOTHING | {"time_shift": 0.5}), cached, train=True)
        lengths = set()
        for epoch in range(12):
            data.set_epoch(epoch)
            sound = data[0].sound
            assert sound is not None
            lengths.add(len(sound))
        assert len(lengths) > 5
        assert 180 <= min(lengths) < max(lengths) <= 201


def _mel(hz: list[float]) -> np.ndarray:
    return 2595 * np.log10(1 + np.array(hz) / 700)


BEFORE = (
    ("Joey", "This one is far too long to be read at all, so it and what is before it go."),
    ("Joey", "Hi."),
    (None, "Who is there?"),
)
LAST = Utterance("u", "g", "Only me!", "Ross", BEFORE)


class TestText:
    def shown(self, tokens: list[int], own: list[bool]) -> tuple[str, str]:
        tokenizer = Tokenizer.from_file(str(checkpoint_folder("minilm") / "tokenizer.json"))
        ours = [token for token, mine in zip(tokens, own, strict=True) if mine]
        whole = tokenizer.decode(tokens, skip_special_tokens=False)
        return whole, tokenizer.decode(ours, skip_special_tokens=False)

    def of(self, utterance: Utterance, **changed: object) -> tuple[str, str]:
        text = recipe_of({"encoders": {"text": changed}}, "t").encoders.text
        assert text is not None
        ids, own, there = Tokens(text).of(utterance)
        assert there
        return self.shown(ids, own)

    def test_lines_it_keeps_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vsa_core.supervised.tokens._LINES", 2)
        text = recipe_of({"encoders": {"text": {"context_tokens": 12}}}, "t").encoders.text
        assert text is not None
        tokens = Tokens(text)
        said = [Utterance(str(n), "g", f"line {n}") for n in range(5)]
        found = [tokens.of(one) for one in said]
        assert len(tokens._lines) <= 2
        assert [tokens.of(one) for one in said] == found

    def test_whole_earlier_utterances_the_latest_that_fit(self) -> None:
        assert self.of(LAST, context_tokens=12) == (
            "[CLS] joey : hi. [SEP] who is there? [SEP] ross : only me! [SEP]",
            "ross : only me! [SEP]",
        )

    def test_what_does_not_fit_whole_is_left_out(self) -> None:
        assert self.of(LAST, context_tokens=9)[0] == (
            "[CLS] who is there? [SEP] ross : only me! [SEP]"
        )
        assert self.of(LAST, context_tokens=0)[0] == "[CLS] ross : only me! [SEP]"

    def test_names_can_be_left_out(self) -> None:
        assert self.of(LAST, context_tokens=12, speakers=False)[0] == (
            "[CLS] hi. [SEP] who is there? [SEP] only me! [SEP]"
        )

    def test_a_long_one_is_cut(self) -> None:
        long = Utterance("u", "g", "word " * 600, None, (("Joey", "Hi."),))
        text = recipe_of({"encoders": {"text": {"max_tokens": 20}}}, "t").encoders.text
        assert text is not None
        ids, own, _ = Tokens(text).of(long)
        assert (len(ids), sum(own)) == (22, 21)
        most = text.model_copy(update={"max_tokens": 512, "context_tokens": 512})
        assert len(Tokens(most).of(long)[0]) == 512

    def test_dropped_tokens_are_hidden_and_special_ones_stay(self) -> None:
        data = UtteranceDataset([LAST], recipe(token_dropout=0.5), None, train=True)
        plain = UtteranceDataset([LAST], recipe(), None, train=False)[0].tokens
        assert plain is not None
        mask, special = 103, {101, 102}
        changed = 0
        for epoch in range(8):
            data.set_epoch(epoch)
            tokens = data[0].tokens
            assert tokens is not None
            for was, now in zip(plain.tolist(), tokens.tolist(), strict=True):
                assert now in (was, mask)
                assert was == now or was not in special
                changed += was != now
        share = changed / (8 * (len(plain) - 4))
        assert 0.35 < share < 0.65

    def test_checkpoints_without_tokenizer_json(self, tmp_path: Path, shared: Path) -> None:
        folder = roberta(tmp_path / "roberta", shared / "roberta_bpe", labels=None)
        assert not (folder / "tokenizer.json").exists()
        text = recipe_of(
            {"encoders": {"text": {"checkpoint": str(folder), "context_tokens": 30}}}, "t"
        ).encoders.text
        assert text is not None
        tokens = Tokens(text)
        ids, own, _ = tokens.of(Utterance("u", "g", "Me!", None, (("Joey", "Hi."),)))
        ends = [at for at, token in enumerate(ids) if token == 2]
        assert ids[0] == 0  # <s>
        assert ends[-1] == len(ids) - 1
        assert own.index(True) == ends[0] + 1
        assert tokens.of(Utterance("u", "g"))[0] == [0]
        hidden = tokens.dropped(ids, 0.99, np.random.default_rng(0))
        assert hidden[0] == 0
        assert [at for at, token in enumerate(hidden) if token == 2] == ends

    def test_a_bert_of_words(self, tmp_path: Path) -> None:
        folder = bert(tmp_path / "bert", ["hello", "there"])
        text = recipe_of({"encoders": {"text": {"checkpoint": str(folder)}}}, "t").encoders.text
        assert text is not None
        ids, own, there = Tokens(text).of(Utterance("u", "g", "Hello there"))
        assert (len(ids), own, there) == (4, [False, True, True, True], True)
        assert (ids[0], ids[-1]) == (2, 3)

    def test_a_damaged_tokenizer_is_one_line(self, tmp_path: Path) -> None:
        folder = bert(tmp_path / "bert", ["hello"])
        (folder / "tokenizer.json").write_text("{}")
        text = recipe_of({"encoders": {"text": {"checkpoint": str(folder)}}}, "t").encoders.text
        assert text is not None
        with pytest.raises(BackendError, match=r"tokenizer\.json cannot be read"):
            Tokens(text)


def test_classes_are_counted_without_decoding(shared: Path) -> None:
    train = read_meld(shared / "meld").utterances["train"]
    assert class_counts(train, "sentiment").tolist() == [2945, 4710, 2334]
    assert class_counts(train[:0], "emotion").tolist() == [0] * 7
    assert class_counts([Utterance("u", "g")], "emotion").tolist() == [0] * 7
