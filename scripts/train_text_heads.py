"""Train the two heads of the text backend, measure them, and write the file, its card and figures.

Nothing is random: the parts of the VADER sets follow from the texts, the fits are convex. All
choices are made on the dev parts; the test parts are measured on once, at the end.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import html
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from vsa_core.assess import TargetAssessment, assess_arrays
from vsa_core.backends import text_minilm
from vsa_core.backends.text_lines import cleaned
from vsa_core.backends.text_minilm import EMBEDDING_DIM, LAYERS, Encoder, Head, is_bare
from vsa_core.labels import EMOTIONS, SENTIMENTS, Sentiment

REPO = Path(__file__).resolve().parent.parent
ENCODER = text_minilm.ENCODER_SHA256["model.safetensors"]
MAX_TOKENS = 256
# A mean rating of at least this, in [-4, 4], is a polarity; a weaker one counts as neutral.
CUTOFF = 0.5
VADER_WEIGHT = 0.5
C_SENTIMENT = (3e-4, 1e-3, 3e-3, 1e-2)
C_EMOTION = (1e-3, 3e-3, 1e-2, 3e-2)
# For the head that sees VADER alone: what counts as neutral, how much a review weighs.
VADER_CUTOFFS = (0.5, 0.8, 1.1)
REVIEW_WEIGHTS = (1.0, 0.3, 0.1)
VADER_SETS = {"tweets": "tweets_GroundTruth.txt", "reviews": "movieReviewSnippets_GroundTruth.txt"}
SURE = 0.6
BARE = ", bare"
CARD = Path(__file__).with_name("text_heads_card.md")

Matrix = NDArray[np.float32]
Labels = NDArray[np.int64]
Piece = tuple[Matrix, Labels, float]


@dataclass(frozen=True)
class Part:
    """One part of a data set, n lines.

    Attributes:
        texts: cleaned; lines with nothing to read are left out.
        sentiment: (n,) index into SENTIMENTS.
        emotion: (n,) index into EMOTIONS; meaningless (0) where the data has none.
        rating: (n,) mean human rating in [-4, 4]; NaN where the data has none.
    """

    texts: tuple[str, ...]
    sentiment: Labels
    emotion: Labels
    rating: NDArray[np.float64]

    def bare(self) -> Part:
        """The same lines as recognisers and automatic captions write them."""
        texts = (" ".join(re.sub(r"[^\w'&@#]+", " ", t).lower().split()) for t in self.texts)
        return Part(tuple(texts), self.sentiment, self.emotion, self.rating)


def by_rating(rating: NDArray[np.float64] | float, cutoff: float) -> Labels:
    """Index into SENTIMENTS of mean ratings in [-4, 4]."""
    return np.where(np.abs(rating) < cutoff, 1, 1 + np.sign(rating)).astype(np.int64)


def part_of(rows: Iterable[tuple[str, int, int, float]]) -> Part:
    """Of (text, sentiment, emotion, rating) per line."""
    read = [(line, *row[1:]) for row in rows if (line := cleaned(row[0])) is not None]
    texts, sentiment, emotion, rating = zip(*read, strict=True)
    return Part(texts, np.array(sentiment), np.array(emotion), np.array(rating))


def read_parts(folder: Path) -> dict[str, Part]:
    """Every part of every data set, by name."""
    parts = {}
    for split in ("train", "dev", "test"):
        rows = csv_rows(folder / "meld" / f"{split}.csv")
        parts[f"MELD {split}"] = part_of(
            (r["Utterance"], SENTIMENTS.index(r["Sentiment"]), EMOTIONS.index(r["Emotion"]), np.nan)
            for r in rows
        )
        parts[f"MELD {split}{BARE}"] = parts[f"MELD {split}"].bare()
    for name, file_name in VADER_SETS.items():
        content = (folder / "vader" / file_name).read_text(encoding="utf-8")
        rated = [line.split("\t", 2)[1:] for line in content.splitlines()]
        for split, tenths in (("train", range(2, 10)), ("dev", (1,)), ("test", (0,))):
            parts[f"{name} {split}"] = part_of(
                (html.unescape(text), int(by_rating(float(rating), CUTOFF)), 0, float(rating))
                for rating, text in rated
                if tenth_of(text) in tenths
            )
    mosi = [row for row in csv_rows(folder / "mosi" / "utterances.csv") if row["part"] == "test"]
    parts["MOSI test"] = part_of((r["text"], 2 * int(r["positive"]), 0, np.nan) for r in mosi)
    return parts


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tenth_of(text: str) -> int:
    """0 to 9 by the words of a text, so that repeats fall into one part."""
    words = " ".join(re.findall(r"\w+", text.lower()))
    return int(hashlib.sha256(words.encode()).hexdigest(), 16) % 10


def encoded(parts: dict[str, Part], cache: Path) -> dict[str, Matrix]:
    """(n, 3 · 384) pooled layers per part; what was encoded before is read from the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    encoder = Encoder(MAX_TOKENS)
    recipe = [text_minilm.RECIPE, MAX_TOKENS, LAYERS, text_minilm.ENCODER_SHA256]
    found = {}
    for name, part in parts.items():
        key = hashlib.sha256(json.dumps([recipe, part.texts]).encode()).hexdigest()[:16]
        file = cache / f"{key}.npy"
        if not file.is_file():
            print(f"encoding {name}: {len(part.texts):,} lines", flush=True)
            partial = file.with_suffix(".part.npy")
            np.save(partial, encoder.pooled(part.texts).reshape(len(part.texts), -1))
            partial.rename(file)
        found[name] = np.load(file)
    return found


def fit(pieces: Sequence[Piece], c: float, balanced: bool = False) -> Head:
    """A head on (features, labels, weight of a line) of every piece, not yet calibrated."""
    features, labels = (np.concatenate([piece[i] for piece in pieces]) for i in (0, 1))
    weights = np.concatenate([np.full(len(labels), weight) for _, labels, weight in pieces])
    model = LogisticRegression(
        C=c, max_iter=1000, class_weight="balanced" if balanced else None
    ).fit(features, labels, weights)
    coefficients = np.vstack([model.coef_.T, model.intercept_]).astype(np.float32)
    return Head(coefficients, np.ones(2, np.float32))


def best(
    grid: Iterable[Any], train: Callable[[Any], Head], judge: Callable[[Head], float]
) -> tuple[Any, Head]:
    """The setting with the highest dev score, and its head; every one is printed."""
    tried = []
    for setting in grid:
        head = train(setting)
        tried.append((judge(head), setting, head))
        print(f"  {setting}: {tried[-1][0]:.4f}", flush=True)
    _, setting, head = max(tried, key=lambda entry: entry[0])
    return setting, head


class Score(NamedTuple):
    """Figures of a head on a part, and all that is behind them."""

    name: str
    rows: int
    coverage: float
    accuracy: float
    macro_f1: float
    weighted_f1: float
    ece: float
    about: TargetAssessment

    def facts(self) -> dict[str, Any]:
        """JSON-able."""
        confusion = [row[:-1] for row in self.about.confusion]
        named = {"labels": self.about.classes, "confusion": confusion}
        return {**dict(zip(self._fields[:-1], self[:-1], strict=True)), **named}


class Job:
    """The encoded data, and what is trained, chosen and measured on it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.parts = read_parts(folder)
        pooled = encoded(self.parts, cache)
        deviation = pooled["MELD train"].std(axis=0)
        self.mean = pooled["MELD train"].mean(axis=0)
        # Two units of the last layer are always 0.
        self.scale = (1 / np.where(deviation > 1e-4, deviation, 1)).astype(np.float32)
        self.x = {name: (pooled[name] - self.mean) * self.scale for name in self.parts}

    def sentiment(self) -> tuple[str, Head]:
        """The head that ships: MELD as written and bare at half weight each, and VADER."""
        pieces = [
            (self.x[name], self.parts[name].sentiment, weight)
            for name, weight in (
                ("MELD train", 0.5),
                (f"MELD train{BARE}", 0.5),
                ("tweets train", VADER_WEIGHT),
                ("reviews train", VADER_WEIGHT),
            )
        ]
        devs = ("MELD dev", f"MELD dev{BARE}", "tweets dev", "reviews dev")
        print("sentiment, C: mean macro-F1 on", "; ".join(devs))
        c, head = best(
            C_SENTIMENT,
            lambda c: fit(pieces, c),
            lambda head: np.mean([self.score(head, name).macro_f1 for name in devs]),
        )
        return f"C = {c:g}", self.calibrated(head)

    def sentiment_from_vader(self) -> tuple[str, Head]:
        """A head that has seen the VADER sets alone; chosen and calibrated on MELD dev."""

        def train(setting: tuple[float, float]) -> Head:
            weights = {"tweets train": 1.0, "reviews train": setting[1]}
            pieces = [
                (self.x[name], by_rating(self.parts[name].rating, setting[0]), weight)
                for name, weight in weights.items()
            ]
            return fit(pieces, 1e-3, balanced=True)

        print("sentiment from VADER alone, (cut-off, weight of a review): macro-F1 on MELD dev")
        (cutoff, weight), head = best(
            product(VADER_CUTOFFS, REVIEW_WEIGHTS),
            train,
            lambda head: self.score(head, "MELD dev").macro_f1,
        )
        return f"cut-off {cutoff:g}, weight of a review {weight:g}", self.calibrated(head)

    def emotion(self) -> tuple[str, Head]:
        names = ("MELD train", f"MELD train{BARE}")
        pieces = [(self.x[name], self.parts[name].emotion, 0.5) for name in names]
        devs = ("MELD dev", f"MELD dev{BARE}")
        print("emotion, C: mean weighted-F1 on", "; ".join(devs))
        c, head = best(
            C_EMOTION,
            lambda c: fit(pieces, c),
            lambda head: np.mean([self.score(head, name).weighted_f1 for name in devs]),
        )
        return f"C = {c:g}", self.calibrated(head)

    def calibrated(self, head: Head) -> Head:
        """With the temperatures of least log loss on MELD dev, as written and bare."""

        def fitted(name: str) -> float:
            truth = self.truth(head, name)

            def loss(log_temperature: float) -> float:
                temperature = np.full(2, np.exp(log_temperature), np.float32)
                probs = self.probs(Head(head.weights, temperature), name)
                return float(-np.log(probs[np.arange(len(truth)), truth]).mean())

            return float(np.exp(minimize_scalar(loss, bounds=(-1, 1), method="bounded").x))

        temperature = [fitted("MELD dev"), fitted(f"MELD dev{BARE}")]
        return Head(head.weights, np.array(temperature, np.float32))

    def by_layers(self) -> dict[str, float]:
        """Macro-F1 on MELD dev of plain heads on MELD train, by what they read."""
        views: dict[str, Callable[[Matrix], Matrix]] = {
            "the last layer": lambda x: x[:, -EMBEDDING_DIM:],
            "the three layers": lambda x: x,
            "their mean, the embedding": lambda x: x.reshape(len(x), 3, -1).mean(axis=1),
        }
        dev, found = self.parts["MELD dev"], {}
        for name, view in views.items():
            head = fit([(view(self.x["MELD train"]), self.parts["MELD train"].sentiment, 1)], 1e-3)
            probs = head.probs(view(self.x["MELD dev"]), np.zeros(len(dev.texts), bool))
            found[name] = float(scored(name, probs, dev.sentiment, SENTIMENTS).macro_f1)
        return found

    def probs(self, head: Head, name: str) -> Matrix:
        bare = np.array([is_bare(text) for text in self.parts[name].texts])
        return head.probs(self.x[name], bare)

    def truth(self, head: Head, name: str) -> Labels:
        part = self.parts[name]
        return part.emotion if head.weights.shape[1] == len(EMOTIONS) else part.sentiment

    def score(self, head: Head, name: str, floor: float = 0) -> Score:
        """Of a head of either kind; a vote with less confidence than the floor abstains."""
        truth = self.truth(head, name)
        names = EMOTIONS if head.weights.shape[1] == len(EMOTIONS) else SENTIMENTS
        title = f"{name}, p ≥ {floor}" if floor else name
        return scored(title, self.probs(head, name), truth, names, floor)

    def polarity(self, head: Head, name: str) -> Score:
        """Negative against positive: no neutral line, no neutral vote."""
        truth = self.parts[name].sentiment
        polar = truth != SENTIMENTS.index(Sentiment.NEUTRAL)
        sides = self.probs(head, name)[polar][:, [0, 2]]
        sides /= sides.sum(axis=1, keepdims=True)
        return scored(f"{name}, ±", sides, truth[polar] // 2, (SENTIMENTS[0], SENTIMENTS[2]))


def scored(
    title: str, probs: Matrix, truth: Labels, names: Sequence[str], floor: float = 0
) -> Score:
    sure = probs.max(axis=1)
    said = np.where(sure >= floor, probs.argmax(axis=1), -1)
    alone = np.zeros(len(truth), np.intp)
    about = assess_arrays(truth, said, alone, names, confidence=sure, intervals=False)
    figures = (about.coverage, about.accuracy, about.macro_f1, about.weighted_f1)
    return Score(title, about.n, *(figure.value for figure in figures), about.ece, about)


# --- what is written ----------------------------------------------------------------------


def table(scores: Sequence[Score]) -> str:
    columns = ("on", "lines", "coverage", "accuracy", "macro-F1", "weighted-F1", "ECE")
    rows = [
        [s.name, f"{s.rows:,}"]
        + [f"{v:.3f}" for v in (s.coverage, s.accuracy, s.macro_f1, s.weighted_f1, s.ece)]
        for s in scores
    ]
    return markdown(columns, rows)


def class_table(score: Score) -> str:
    said = np.array(score.about.confusion).sum(axis=0)
    rows = [
        [c.name, str(c.decided), str(n), *(f"{x or 0:.2f}" for x in (c.precision, c.recall, c.f1))]
        for c, n in zip(score.about.by_class, said[:-1], strict=True)
    ]
    return markdown(("class", "lines", "said", "precision", "recall", "F1"), rows)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def counts_of(parts: dict[str, Part]) -> str:
    return "\n".join(
        f"| {name} | {len(part.texts):,} | "
        + " / ".join(f"{n:,}" for n in np.bincount(part.sentiment, minlength=3))
        + " |"
        for name, part in parts.items()
        if BARE not in name
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=REPO.parent / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=REPO / "build" / "text_heads")
    parser.add_argument("--out", type=Path, default=text_minilm.HEADS_FILE)
    parser.add_argument(
        "--train", choices=("all", "vader"), default="all", help="vader: report, write nothing"
    )
    options = parser.parse_args(argv)
    missing = [name for name in ("meld", "vader", "mosi") if not (options.folder / name).is_dir()]
    if missing:
        print(f"no {', '.join(missing)} in {options.folder}: give --folder", file=sys.stderr)
        return 2
    torch.set_num_threads(1)  # the same sums however many cores there are
    threadpool_limits(1)
    job = Job(options.folder, options.cache)
    vader_setting, vader = job.sentiment_from_vader()
    vader_scores = [job.score(vader, name) for name in ("MELD test", f"MELD test{BARE}")]
    if options.train == "vader":
        print(table(vader_scores))
        return 0
    sentiment_setting, sentiment = job.sentiment()
    emotion_setting, emotion = job.emotion()
    views = job.by_layers()
    meld = ("MELD test", f"MELD test{BARE}")
    sentiment_scores = [
        *(job.score(sentiment, name) for name in (*meld, "tweets test", "reviews test")),
        job.score(sentiment, "MELD test", SURE),
        *(job.polarity(sentiment, name) for name in ("tweets test", "reviews test", "MOSI test")),
    ]
    emotion_scores = [job.score(emotion, name) for name in meld]
    content = save(
        {
            "mean": job.mean,
            "scale": job.scale,
            "sentiment": sentiment.weights,
            "sentiment_temperature": sentiment.temperature,
            "emotion": emotion.weights,
            "emotion_temperature": emotion.temperature,
        },
        metadata={"encoder_sha256": ENCODER},
    )
    sha256 = hashlib.sha256(content).hexdigest()
    prior = np.bincount(job.parts["MELD train"].sentiment) / len(job.x["MELD train"])
    card = CARD.read_text(encoding="utf-8").format(
        sha256=sha256,
        size=len(content),
        encoder=ENCODER,
        views=", ".join(f"{value:.3f} from {name}" for name, value in views.items()),
        counts=counts_of(job.parts),
        cutoff=CUTOFF,
        vader_weight=VADER_WEIGHT,
        sentiment=sentiment_setting,
        emotion=emotion_setting,
        t_sentiment="{:.2f} and {:.2f}".format(*sentiment.temperature),
        t_emotion="{:.2f} and {:.2f}".format(*emotion.temperature),
        sentiment_table=table(sentiment_scores),
        sentiment_classes=class_table(sentiment_scores[0]),
        vader=vader_setting,
        vader_table=table(vader_scores),
        emotion_table=table(emotion_scores),
        emotion_classes=class_table(emotion_scores[0]),
        prior=", ".join(f"{name} {p:.2f}" for name, p in zip(SENTIMENTS, prior, strict=True)),
    )
    figures = {
        "sha256": sha256,
        "encoder_sha256": ENCODER,
        "max_tokens": MAX_TOKENS,
        "versions": {"torch": torch.__version__, "scikit-learn": sklearn.__version__},
        "dev_macro_f1_by_layers": views,
        "sentiment": [score.facts() for score in sentiment_scores],
        "sentiment_from_vader_alone": [score.facts() for score in vader_scores],
        "emotion": [score.facts() for score in emotion_scores],
    }
    options.out.write_bytes(content)
    options.out.with_suffix(".md").write_text(card, encoding="utf-8")
    written = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
    options.out.with_suffix(".json").write_text(written, encoding="utf-8")
    print(card)
    if sha256 != text_minilm.HEADS_SHA256:
        print(f'set in vsa_core/backends/text_minilm.py: HEADS_SHA256 = "{sha256}"')
    return 0


if __name__ == "__main__":
    sys.exit(main())
