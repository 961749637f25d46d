"""`vsa predict`: lines of text and pictures of every odd kind."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPO
from vsa_core.cli import main, predict
from vsa_core.errors import MediaError
from vsa_core.labels import EMOTIONS, SENTIMENTS

_CONFIG = """
backends:
  text: {name: fake-text, options: {absent: [hm], abstain: [ugh], batch_size: 3}}
  face: {name: fake-face}
"""
KEYS = ["sentiment", "sentiment_probs", "emotion", "emotion_probs"]


@pytest.fixture
def config(tmp_path: Path, fakes_in_children: None) -> Path:
    path = tmp_path / "fake.yaml"
    path.write_text(_CONFIG, encoding="utf-8")
    return path


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def picture(seed: int = 0, width: int = 60, height: int = 40) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


class TestText:
    def run(
        self, content: bytes, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> list[dict[str, Any]]:
        path = config.parent / "lines.txt"
        path.write_bytes(content)
        assert main(["predict", "text", str(path), "--config", str(config)]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return objects(out)

    def test_one_object_per_line(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = self.run("good\nbad, née 😀\n".encode(), config, capsys)
        assert [list(row) for row in found] == [["text", *KEYS]] * 2
        assert [row["text"] for row in found] == ["good", "bad, née 😀"]
        for row in found:
            assert list(row["sentiment_probs"]) == list(SENTIMENTS)
            assert list(row["emotion_probs"]) == list(EMOTIONS)
            assert sum(row["sentiment_probs"].values()) == pytest.approx(1, abs=1e-5)
            assert row["sentiment"] == max(SENTIMENTS, key=row["sentiment_probs"].__getitem__)
            assert row["emotion"] == max(EMOTIONS, key=row["emotion_probs"].__getitem__)

    def test_a_model_that_abstains_or_sees_nothing_gives_null(
        self, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ugh, fine, hm = self.run(b"ugh\nfine\nhm\n", config, capsys)
        assert all(ugh[key] is None and hm[key] is None for key in KEYS)
        assert all(fine[key] is not None for key in KEYS)

    def test_odd_line_ends_encodings_and_empty_lines(
        self, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = self.run(b"\xef\xbb\xbfa\r\n\r\n  \n\tb \ncaf\xe9\n\x00\nlast", config, capsys)
        assert [row["text"] for row in found] == ["a", "b", "caf\ufffd", "\x00", "last"]

    def test_nothing_in_nothing_out(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(b"", config, capsys) == []
        assert self.run(b"\n\n", config, capsys) == []

    def test_many_lines_keep_their_order_whatever_the_batches(
        self, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lines = [f"line {n} " + "x" * (n % 997) for n in range(1_000)]
        many = self.run("\n".join(lines).encode(), config, capsys)
        assert [row["text"] for row in many] == [line.strip() for line in lines]
        assert self.run(lines[500].encode(), config, capsys) == [many[500]]

    def test_an_endless_line_is_cut(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        first, second = self.run(b"x" * 3_000_000 + b"\nnext\n", config, capsys)
        assert len(first["text"]) < 1_200_000
        assert second["text"] == "next"

    def test_standard_input(
        self, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"good\n")))
        assert main(["predict", "text", "-", "--config", str(config)]) == 0
        assert objects(capsys.readouterr().out)[0]["text"] == "good"

    def test_a_line_is_answered_before_the_next_is_there(self, config: Path) -> None:
        entry = "import sys; from vsa_core.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", entry, "predict", "text", "-", "--config", str(config)]
        with subprocess.Popen(
            command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for word in (b"one", b"two"):
                process.stdin.write(word + b"\n")
                process.stdin.flush()
                assert json.loads(process.stdout.readline())["text"] == word.decode()
            process.stdin.close()
            assert process.wait() == 0

    @pytest.mark.parametrize("name", ["", "nope.txt"])
    def test_a_file_that_is_not_there(
        self, name: str, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = config.parent / name
        assert main(["predict", "text", str(path), "--config", str(config)]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"vsa: {path} cannot be read")
        assert err.count("\n") == 1

    def test_a_profile_without_a_text_model(
        self, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config.write_text("backends: {text: null, face: {name: fake-face}}")
        assert main(["predict", "text", "-", "--config", str(config)]) == 2
        assert "no text model" in capsys.readouterr().err


class TestImage:
    def run(
        self, config: Path, capsys: pytest.CaptureFixture[str], *paths: Path, code: int = 0
    ) -> list[dict[str, Any]]:
        found = main(["predict", "image", *map(str, paths), "--config", str(config)])
        out, err = capsys.readouterr()
        assert (found, err) == (code, "")
        return objects(out)

    def test_every_face_with_its_box(
        self, config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        picture().save(tmp_path / "a.png")
        Image.new("RGB", (30, 20)).save(tmp_path / "black.png")
        seen, empty = self.run(config, capsys, tmp_path / "a.png", tmp_path / "black.png")
        assert list(seen) == ["image", "width", "height", "faces"]
        assert (seen["image"], seen["width"], seen["height"]) == (str(tmp_path / "a.png"), 60, 40)
        [face] = seen["faces"]
        assert list(face) == ["box", "score", *KEYS]
        assert face["box"] == [15, 10, 30, 20]
        assert sum(face["emotion_probs"].values()) == pytest.approx(1, abs=1e-5)
        joy, surprise = face["emotion_probs"]["joy"], face["emotion_probs"]["surprise"]
        assert face["sentiment_probs"]["positive"] == pytest.approx(joy + surprise / 2, abs=1e-5)
        assert empty["faces"] == []

    def test_a_picture_is_turned_upright(
        self, config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        upright = picture()
        upright.save(tmp_path / "upright.png")
        for orientation, turn in ((3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90)):
            exif = Image.Exif()
            exif[0x0112] = orientation
            upright.transpose(turn).save(tmp_path / f"{orientation}.png", exif=exif)
        found = self.run(
            config, capsys, *(tmp_path / name for name in ("upright.png", "3.png", "6.png"))
        )
        assert [(row["width"], row["height"]) for row in found] == [(60, 40)] * 3
        # The fake answers by a hash of the pixels.
        assert found[0]["faces"] == found[1]["faces"] == found[2]["faces"]

    def test_a_file_that_is_no_picture_is_an_object_too(
        self, config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        (tmp_path / "text.jpg").write_text("not a picture")
        (tmp_path / "empty.png").touch()
        picture().save(tmp_path / "good.jpg")
        torn = (tmp_path / "good.jpg").read_bytes()
        (tmp_path / "torn.jpg").write_bytes(torn[: len(torn) // 2])
        (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
        names = ["text.jpg", "empty.png", "torn.jpg", "script.eps", ".", "good.jpg"]
        *bad, good = self.run(config, capsys, *(tmp_path / name for name in names), code=3)
        assert [list(row) for row in bad] == [["image", "error"]] * 5
        assert all(row["image"] in row["error"] for row in bad)
        assert len(good["faces"]) == 1

    @pytest.mark.parametrize("size", [(9_000, 9_000), (20_000, 20_000)])
    def test_a_bomb_is_refused_unopened(
        self,
        config: Path,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        size: tuple[int, int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Image, "MAX_IMAGE_PIXELS", None)
            Image.new("1", size).save(tmp_path / "bomb.png")
        assert (tmp_path / "bomb.png").stat().st_size < 100_000
        monkeypatch.setattr(Image.Image, "convert", pytest.fail)
        [row] = self.run(config, capsys, tmp_path / "bomb.png", code=3)
        assert "limit" in row["error"]

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
    def test_every_kind_of_pixel_becomes_rgb(self, tmp_path: Path, mode: str) -> None:
        grey = Image.linear_gradient("L")  # 256×256, black to white
        path = tmp_path / "a.tiff"
        if mode == "I;16":
            Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(path)
        else:
            grey.convert("RGB" if mode == "CMYK" else "L").convert(mode).save(path)
        rgb = predict._read_image(path)
        assert (rgb.shape, rgb.dtype) == ((256, 256, 3), np.uint8)
        assert rgb.mean() == pytest.approx(127.5, abs=2)
        assert rgb[:20].mean() < 20 < 235 < rgb[-20:].mean()

    def test_torn_bytes_never_raise_anything_else(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        path = tmp_path / "x"
        outcomes = set()
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
            whole = io.BytesIO()
            picture().save(whole, kind)
            for _ in range(60):
                data = bytearray(whole.getvalue())
                for at in rng.integers(0, min(len(data), 300), 4):
                    data[at] = rng.integers(256)
                path.write_bytes(data)
                try:
                    predict._read_image(path)
                    outcomes.add("read")
                except MediaError:
                    outcomes.add("refused")
        assert outcomes == {"read", "refused"}

    def test_a_model_of_videos_only(
        self, config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        config.write_text("backends: {face: {name: fake-text}}")
        assert main(["predict", "image", "a.png", "--config", str(config)]) == 2
        assert "videos only" in capsys.readouterr().err


class TestRealModels:
    """The default profile, as a person meets it."""

    def test_text(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "lines.txt"
        path.write_text("I love this, it is wonderful!\nThis is terrible, I hate it.\n")
        assert main(["predict", "text", str(path)]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert [row["sentiment"] for row in objects(out)] == ["positive", "negative"]

    def test_a_language_it_does_not_speak_is_said_and_not_guessed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "lines.txt"
        path.write_text("Das ist das schönste Geschenk, das ich je bekommen habe.\nGreat!\n")
        assert main(["predict", "text", str(path)]) == 0
        german, english = objects(capsys.readouterr().out)
        assert all(german[key] is None for key in KEYS)
        assert "text-minilm speaks en, not de" in german["note"]
        assert english["sentiment"] == "positive"
        assert "note" not in english

    @pytest.mark.parametrize(
        ("line", "asked", "spoken"),
        [
            ("Das ist schrecklich.", None, "de"),
            ("Me encanta esto.", None, "es"),
            ("C'est magnifique.", None, "fr"),
            ("That is terrible.", None, None),
            ("That is terrible.", "en-GB", None),
            ("Che schifo!", "it", "it"),
            ("Ciao!", "ita", "ita"),
        ],
    )
    def test_a_short_line_is_told_by_its_letters_or_by_what_is_asked_for(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        line: str,
        asked: str | None,
        spoken: str | None,
    ) -> None:
        path = tmp_path / "lines.txt"
        path.write_text(line)
        option = ["--language", asked] if asked else []
        assert main(["predict", "text", str(path), *option]) == 0
        (said,) = objects(capsys.readouterr().out)
        assert (said["sentiment"] is None) == (spoken is not None)
        assert f"text-minilm speaks en, not {spoken}" in said.get("note", "") or not spoken

    def test_a_language_that_is_none_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["predict", "text", "-", "--language", "German please"]) == 2
        assert capsys.readouterr().err == (
            "vsa: --language is 'German please': give a tag, as en or pt-BR\n"
        )

    def test_image(self, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["predict", "image", str(shared / "faces" / "single_face.jpg")]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        [row] = objects(out)
        [face] = row["faces"]
        assert (face["emotion"], face["sentiment"]) == ("joy", "positive")
        x, y, width, height = face["box"]
        assert 0 <= x < x + width <= row["width"]
        assert 0 <= y < y + height <= row["height"]
