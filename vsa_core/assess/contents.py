"""What the report of an assessment says: sections of words, tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vsa_core.assess import Assessment, Mistake
from vsa_core.assess.figures import Figure
from vsa_core.assess.paired import McNemar, Paired
from vsa_core.assess.target import Part, TargetAssessment

_VIDEOS = 20
_MISTAKES = 30
_WORDS = 300


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """A list of short lines."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under the names of their columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A file of the report, and what it shows."""

    file: str
    says: str


Block = Words | Items | Table | Picture


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it; `level` 1 is the report's title."""

    level: int
    title: str
    blocks: tuple[Block, ...]


def shown(figure: Figure | float | None) -> str:
    """A figure with its interval, to three places; – where there is none."""
    if isinstance(figure, Figure):
        value = shown(figure.value)
        if figure.low is None or figure.high is None:
            return value
        return f"{value} ({figure.low:.3f} to {figure.high:.3f})"
    return "–" if figure is None else f"{figure:.3f}"


def tested(test: McNemar) -> str:
    """McNemar's test in words."""
    how = "exact" if test.statistic is None else f"chi² {test.statistic:.2f}"
    p = "p < 0.001" if test.p < 0.001 else f"p = {test.p:.3f}"
    return (
        f"only the first is right {test.only_first}, only the second {test.only_second}: {p}, {how}"
    )


def contents(assessment: Assessment, files: Sequence[str]) -> list[Section]:
    """The sections in their order.

    Args:
        assessment: what is reported.
        files: names of the pictures there are.
    """
    sections = [_overview(assessment)]
    for target, about in assessment.targets.items():
        sections.append(Section(2, f"{target}: classes", _classes(target, about, files)))
        sections.append(Section(2, f"{target}: confidence", _confidence(target, about, files)))
        if target in assessment.comparisons:
            sections.append(
                Section(2, f"{target}: against the others", _against(assessment, target))
            )
        sections.append(Section(2, f"{target}: where it fails", _failing(assessment, target)))
    return sections


def headline(assessment: Assessment) -> Table:
    """The figures that say most, a row for each system and target."""
    columns = (
        "target", "coverage", "n", "videos", "accuracy", "weighted F1", "macro F1", "ECE", "AURC",
        "whose",
    )  # fmt: skip
    rows = []
    for whose, abouts in (("predictions", assessment.targets), ("against", assessment.others)):
        for target, about in abouts.items():
            counts = (str(about.n), str(about.videos))
            figures = (about.accuracy, about.weighted_f1, about.macro_f1, about.ece, about.aurc)
            first = (target, shown(about.coverage.value), *counts)
            rows.append((*first, *map(shown, figures), whose))
    return Table(columns, tuple(rows))


def _overview(assessment: Assessment) -> Section:
    names = [f"predictions: {assessment.predictions}", f"truth: {assessment.truth}"]
    if assessment.against is not None:
        names.append(f"against: {assessment.against}")
    notes = Items(tuple(f"note: {note}" for note in assessment.notes))
    return Section(
        1,
        f"How right {assessment.predictions} is",
        (
            Items(tuple(names)),
            headline(assessment),
            Words(
                "Coverage is the share of all segments with a truth that got a label; one that "
                "was predicted without a label, or not at all, is not covered. Every other figure "
                "is over the covered ones, so read it beside the coverage. In brackets: 95 % "
                "intervals if videos like these were drawn anew."
            ),
            *((notes,) if notes.lines else ()),
        ),
    )


def _classes(target: str, about: TargetAssessment, files: Sequence[str]) -> tuple[Block, ...]:
    rows: list[tuple[str, ...]] = [
        (c.name, str(c.support), str(c.decided), shown(c.precision), shown(c.recall), shown(c.f1))
        for c in about.by_class
    ]
    n, decided = str(about.n), str(sum(c.decided for c in about.by_class))
    macro = (about.macro_precision, about.macro_recall, about.macro_f1.value)
    weighted = (about.weighted_precision, about.weighted_recall, about.weighted_f1.value)
    rows.append(("macro mean", n, decided, *map(shown, macro)))
    rows.append(("weighted mean", n, decided, *map(shown, weighted)))
    said = [*about.classes, "abstained"]
    confusion = [
        (name, *map(str, row)) for name, row in zip(about.classes, about.confusion, strict=True)
    ]
    return (
        Table(("class", "support", "decided", "precision", "recall", "F1"), tuple(rows)),
        *_picture(files, target, "confusion", f"{target}: counts by truth and decision"),
        Table(("truth \\ said", *said), tuple(confusion)),
    )


def _confidence(target: str, about: TargetAssessment, files: Sequence[str]) -> tuple[Block, ...]:
    if about.curve is None:
        return (Words("The predictions have no confidences: nothing can be said of them."),)
    bins = tuple(
        (f"{b.low:.2f} to {b.high:.2f}", str(b.rows), shown(b.confidence), shown(b.accuracy))
        for b in about.bins
        if b.rows
    )
    kept = tuple(
        (f"{k.asked:.0%}", *map(shown, (k.coverage, k.threshold, k.accuracy))) for k in about.kept
    )
    return (
        Words(
            f"ECE {shown(about.ece)}: how far confidence and accuracy lie apart, on average. AURC "
            f"{shown(about.aurc)}: the share wrong, averaged over keeping fewer and fewer of the "
            "most confident; lower is better."
        ),
        *_picture(files, target, "reliability", f"{target}: accuracy by confidence"),
        Table(("confidence", "rows", "mean confidence", "accuracy"), bins),
        *_picture(files, target, "risk-coverage", f"{target}: share wrong by share kept"),
        Table(("to be kept", "coverage", "least confidence", "accuracy"), kept),
    )


def _against(assessment: Assessment, target: str) -> tuple[Words | Table, ...]:
    comparison = assessment.comparisons[target]
    parts = {"all": comparison.all, "both decided": comparison.both_decided}
    rows = tuple(_pair(name, paired) for name, paired in parts.items() if paired is not None)
    columns = (
        "rows", "n", "accuracy", "against", "difference", "weighted F1", "against", "difference",
        "McNemar",
    )  # fmt: skip
    return (
        Table(columns, rows),
        Words(
            "Differences are the predictions less the others, with paired 95 % intervals over "
            "whole videos. On all rows a segment without a label is one that is not right. "
            "McNemar's test takes segments for independent: where those of a video err together, "
            "trust the intervals."
        ),
    )


def _pair(name: str, paired: Paired) -> tuple[str, ...]:
    (accuracy, other_accuracy), (f1, other_f1) = paired.accuracy, paired.weighted_f1
    figures: tuple[Figure | float, ...] = (
        accuracy,
        other_accuracy,
        paired.accuracy_difference,
        f1,
        other_f1,
        paired.weighted_f1_difference,
    )
    return (name, str(paired.n), *map(shown, figures), tested(paired.mcnemar))


def _failing(assessment: Assessment, target: str) -> tuple[Words | Table, ...]:
    about, mistakes = assessment.targets[target], assessment.mistakes[target]
    blocks: list[Words | Table] = [
        Words(f"By video, the worst {min(_VIDEOS, about.videos)} of {about.videos}:"),
        _parts("video", about.by_video[:_VIDEOS]),
    ]
    if about.by_length:
        blocks += [Words("By length of the segment:"), _parts("length", about.by_length)]
    for kind, parts in about.by_kind.items():
        blocks += [Words(f"By {kind}:"), _parts(kind, parts)]
    if mistakes:
        columns = ("segment", "time", "text", "truth", "said", "confidence", "votes")
        blocks.append(Words("Wrong, the most confident first:"))
        blocks.append(Table(columns, tuple(map(_mistake, mistakes[:_MISTAKES]))))
    else:
        blocks.append(Words("No decision is wrong."))
    return tuple(blocks)


def _parts(what: str, parts: Sequence[Part]) -> Table:
    rows = tuple(
        (p.name, str(p.n), *map(shown, (p.coverage, p.accuracy, p.weighted_f1))) for p in parts
    )
    return Table((what, "n", "coverage", "accuracy", "weighted F1"), rows)


def _mistake(mistake: Mistake) -> tuple[str, ...]:
    times = (mistake.start_ms, mistake.end_ms)
    text = mistake.text or ""
    votes = [f"{name} {vote}" for name, vote in mistake.votes.items() if vote is not None]
    return (
        mistake.segment_id,
        "–" if None in times else " to ".join(map(_clock, times)),
        text if len(text) <= _WORDS else f"{text[:_WORDS]}…",
        mistake.truth,
        mistake.said,
        shown(mistake.confidence),
        ", ".join(votes) or "–",
    )


def _clock(ms: int | None) -> str:
    seconds = (ms or 0) / 1000
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def _picture(files: Sequence[str], target: str, name: str, says: str) -> tuple[Picture, ...]:
    file = f"{target}-{name}.png"
    return (Picture(file, says),) if file in files else ()
