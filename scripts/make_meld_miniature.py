"""Make a MELD in miniature of the sample's clips: its layout, names and columns, and its defects

Usage: python scripts/make_meld_miniature.py OUT [--clips DIR ...]

A sample is a folder as data/sample: clips/ and truth.csv. Each line of it that is taken becomes a
clip of at most 160 px and 3 s, with the line's true labels: 48 in 12 dialogues of train, 12 each of
dev and test; no two splits share a film.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vsa_core.errors import UsageError, VsaError
from vsa_core.media import SAMPLE_RATE_HZ, audio_between, frames

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"
# As MELD.Raw.tar.gz and the archives in it unpack: split, table, clips, dialogues and their size.
LAYOUT = (
    ("dev", "dev_sent_emo.csv", "dev_splits_complete", ((0, 4), (110, 8))),
    ("test", "test_sent_emo.csv", "output_repeated_splits_test", ((0, 4), (1, 4), (2, 4))),
    (
        "train",
        "train/train_sent_emo.csv",
        "train/train_splits",
        (*((dialogue, 4) for dialogue in range(11)), (125, 4)),
    ),
)
COLUMNS = (
    "Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID",
    "Season", "Episode", "StartTime", "EndTime",
)  # fmt: skip
# Upstream's own: one clip that does not open, one that is not there.
CORRUPT, MISSING = ("train", 125, 3), ("dev", 110, 7)
SPEAKERS = ("Ana", "Ben", "Cho", "Dev", "Eli", "Fay")
_LONGEST_MS, _SHORTEST_MS = 3_000, 1_000
_SIDE_PX = 160
_FPS = 12


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a sample: where it is said, what, and its true labels."""

    clip: Path
    start_ms: int
    end_ms: int
    text: str
    sentiment: str
    emotion: str


def make(out: Path, samples: Sequence[Path] = (SAMPLE,)) -> Path:
    """Write a miniature.

    Args:
        out: a folder that holds no miniature yet.
        samples: folders with clips/ and truth.csv.

    Returns:
        The folder to give to `vsa meld prepare`.

    Raises:
        UsageError: a sample has no such files, or they have too few lines.
    """
    root = out / "MELD.Raw"
    if root.exists():
        raise UsageError(f"{root} is there already: give another folder, or remove it")
    films = iter([film for sample in samples for film in _films(sample)])
    for split, table, clips, sizes in LAYOUT:
        folder = root / clips
        folder.mkdir(parents=True)
        rows: list[tuple[Any, ...]] = []
        left: list[Line] = []  # of a film; what one split leaves no other takes
        for dialogue, size in sizes:
            while len(left) < size:
                left = next(films, [])
                if not left:
                    raise UsageError(f"too few lines for {split}: give one more --clips")
            said, left = left[:size], left[size:]
            for number, line in enumerate(said):
                rows.append(_row(len(rows) + 1, line, dialogue, number))
                if (split, dialogue, number) != MISSING:
                    _cut(line, folder / f"dia{dialogue}_utt{number}.mp4")
        with (root / table).open("w", encoding="cp1252", newline="") as file:
            out_rows = csv.writer(file, lineterminator="\n")
            out_rows.writerow(COLUMNS)
            out_rows.writerows(rows)
    split, dialogue, number = CORRUPT
    broken = root / {s: clips for s, _, clips, _ in LAYOUT}[split]
    broken /= f"dia{dialogue}_utt{number}.mp4"
    broken.write_bytes(broken.read_bytes()[:1_500])  # its index, at the end, is cut off
    # What macOS leaves in archives, and what lies among the clips of test.
    test = root / "output_repeated_splits_test"
    (test / "._dia0_utt0.mp4").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    (test / "final_videos_testdia0_utt0.mp4").write_bytes((test / "dia0_utt0.mp4").read_bytes())
    return out


def _films(sample: Path) -> Iterator[list[Line]]:
    """The lines of each film of a sample, in order."""
    table = sample / "truth.csv"
    try:
        rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    except OSError as error:
        raise UsageError(f"{table} cannot be read: {error.strerror}: give a sample") from error
    for name in sorted({row["video"] for row in rows}):
        yield [
            Line(
                sample / "clips" / f"{name}.mp4",
                int(row["start_ms"]),
                min(int(row["end_ms"]), int(row["start_ms"]) + _LONGEST_MS),
                row["text"],
                row["sentiment"],
                row["emotion"],
            )
            for row in rows
            if row["video"] == name
        ]


def _row(serial: int, line: Line, dialogue: int, number: int) -> tuple[Any, ...]:
    """A row as MELD has them, with its curly apostrophes."""
    speaker = SPEAKERS[sum(line.clip.stem.encode()) % len(SPEAKERS)]
    text = line.text.replace("'", "\u2019")
    times = (_time(line.start_ms), _time(line.end_ms))
    return serial, text, speaker, line.emotion, line.sentiment, dialogue, number, 1, 1, *times


def _time(ms: int) -> str:
    """00:16:16,059."""
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"


def _cut(line: Line, target: Path) -> None:
    """Write a line's picture and sound as a small MP4."""
    end_ms = max(line.end_ms, line.start_ms + _SHORTEST_MS)
    with av.open(str(target), "w") as out:
        picture: Any = None
        for frame in frames(line.clip, _FPS, _SIDE_PX, start_ms=line.start_ms, end_ms=end_ms):
            even = frame.rgb[: frame.rgb.shape[0] // 2 * 2, : frame.rgb.shape[1] // 2 * 2]
            if picture is None:
                picture = out.add_stream("libx264", rate=_FPS, options={"preset": "ultrafast"})
                picture.height, picture.width = even.shape[:2]
                picture.pix_fmt = "yuv420p"
                picture.codec_context.time_base = Fraction(1, 1000)
                sound = out.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
            shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            shown.pts = frame.time_ms - line.start_ms
            shown.time_base = Fraction(1, 1000)
            out.mux(picture.encode(shown))
        samples = audio_between(line.clip, line.start_ms, end_ms)
        heard = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        heard.sample_rate, heard.pts = SAMPLE_RATE_HZ, 0
        out.mux(sound.encode(heard))
        out.mux(picture.encode(None))
        out.mux(sound.encode(None))


def main() -> int:
    """Make one where the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", metavar="OUT", type=Path, help="a folder to make it in")
    parser.add_argument(
        "--clips",
        metavar="DIR",
        type=Path,
        action="append",
        default=[SAMPLE],
        help="one more folder with clips/ and truth.csv",
    )
    args = parser.parse_args()
    try:
        sys.stdout.write(f"{make(args.out, args.clips)}\n")
    except VsaError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
