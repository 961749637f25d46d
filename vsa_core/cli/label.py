"""`vsa label`: somebody else's predictions in, labels out, with scores where the truth is known."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vsa_core.cli import OK
from vsa_core.cli.confidence import write_levels
from vsa_core.cli.screen import write_json, write_table
from vsa_core.errors import UsageError, VsaError, meant
from vsa_core.story import estimate_line

if TYPE_CHECKING:
    from vsa_core.bring.kept import Kept
    from vsa_core.bring.predictions import Predictions
    from vsa_core.bring.truth import Said
    from vsa_core.evaluate import Part, Split
    from vsa_core.fusion.decide import Decided
    from vsa_core.fusion.judging import Judged
    from vsa_core.fusion.strategies import Fused, Known
    from vsa_core.fusion.views import Views

# Nobody waits for a second to be told how far it is.
_QUIET_S = 2.0
_LINE_EVERY_S = 30.0


class _Progress:
    """How far the work is: on a terminal one line over and over, elsewhere a line now and then."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._told = time.monotonic() + _QUIET_S
        self._open = False

    def __call__(self, what: str, share: float) -> None:
        now = time.monotonic()
        screen = self._out.isatty()
        if now < self._told:
            return
        self._told = now + (0.2 if screen else _LINE_EVERY_S)
        line = f"{what}: {share:.0%}"
        self._out.write(f"\r{line:<60}" if screen else f"{line}\n")
        self._out.flush()
        self._open = screen

    def done(self) -> None:
        """Leave a terminal's line as it was."""
        if self._open:
            self._out.write("\r" + " " * 60 + "\r")


def run(args: argparse.Namespace) -> int:
    """Label the segments, write the labels, and say what came of it."""
    begun = time.monotonic()
    from vsa_core.bring.labels import MIN_VOTE, labels_of, write_labels
    from vsa_core.bring.predictions import TARGET
    from vsa_core.config import Fusion
    from vsa_core.fusion.judging import judge
    from vsa_core.fusion.knowing import report, second_opinion
    from vsa_core.fusion.strategies import fuse

    given = _read(args)
    views, kept = given.predictions.views, given.kept
    reviews = given.reviews.known if given.reviews else None
    notes, strategy = given.notes, given.strategy
    settings = Fusion(seed=args.seed)
    progress = _Progress(sys.stderr)

    def fused_by(name: str, known: Known | None = reviews, what: str = "") -> Fused:
        return fuse(
            views,
            name,
            settings=settings,
            min_confidence=MIN_VOTE,
            known=known,
            progress=lambda share: progress(what or name, share),
        )

    fused = fused_by(strategy) if kept is None else kept.label(views, seed=args.seed)
    second = second_opinion(views, fused) if kept is None else None
    knowing = report(views, fused, second)
    if kept is not None:
        # What is odd about segments to learn from says nothing about these.
        of_model = [f"when the model was learned: {line}" for line in kept.warnings]
        knowing["warnings"] = [*fused.report["drift"], *of_model]
        estimate = knowing["targets"][TARGET]["estimate"]
        if estimate["value"] is not None and kept.model.engine is not None:
            estimate["method"] += "; by confidences fitted when the model was learned"
    judged = None
    if reviews is not None:
        judged = judge(
            views,
            fused,
            reviews,
            # A kept model has learned from none of the reviews.
            lambda known: fused if kept else fused_by(strategy, known, "judging by reviews"),
            inclusion=given.reviews.inclusion if given.reviews else None,
            seed=args.seed,
        )
        fused = judged.fused
    levels = _levels(views, fused, judged, second)
    decided = labels_of(views, fused, min_confidence=args.min_confidence, known=reviews)
    made_with: dict[str, Any] = {
        "min_vote": MIN_VOTE,
        "min_confidence": args.min_confidence,
        "conformal": args.conformal,
        "reviews": 0 if reviews is None else len(reviews.rows),
        **(
            {"fusion": settings.model_dump(mode="json")}
            if kept is None
            else {"model": {"folder": str(args.model), "card_sha256": kept.digest}}
        ),
    }
    sets = judged.label_sets(args.conformal) if judged and args.conformal else None
    write_labels(
        args.output,
        views,
        fused,
        decided,
        order=given.predictions.order,
        settings=made_with,
        sets=sets,
    )
    asked = _ask(args, views, labels_of(views, fused, known=reviews)) if args.ask else None
    scores = _all_scores(given, decided, fused_by, args.min_confidence)
    of_table = given.predictions.warnings
    warnings = [*of_table, *fused.report.get("warnings", ()), *knowing["warnings"]]
    if args.save_model:
        from vsa_core.bring.kept import keep

        keep(
            args.save_model,
            views,
            fused,
            settings=made_with,
            known=reviews if fused.model.engine is not None else None,  # others learn from none
            warnings=warnings,
            seed=args.seed,
        )
        if judged and judged.recalibrated:
            notes.append("the model is kept without the correction of confidences by the reviews")
    progress.done()
    if kept and fused.report["known_videos"]:
        notes.append(
            f"{fused.report['known_videos']} of {len(views.videos)} videos are among those the "
            "model was learned from: each is judged by what never saw it"
        )
    notes.extend(note for note in fused.report.get("notes", ()) if note not in notes)
    summary: dict[str, Any] = {
        "predictions": str(args.predictions),
        "output": str(args.output),
        "strategy": strategy,
        "model": made_with.get("model"),
        "saved_model": str(args.save_model) if args.save_model else None,
        "segments": len(views),
        "videos": len(views.videos),
        "modalities": list(views.names),
        "classes": list(views.classes[TARGET]),
        **_counts(decided, views.classes[TARGET]),
        "reviews": made_with["reviews"],
        "notes": notes,
        "warnings": [*warnings, *(judged.warnings if judged else ())],
        "report": fused.report,
        "estimate": (judged.report if judged else knowing["targets"][TARGET])["estimate"],
        "by_confidence": levels,
        "without_reviews": knowing["targets"][TARGET],
        "with_reviews": judged.report if judged else None,
        "label_set_sizes": None if sets is None else float(sets.sum(axis=1).mean()),
        "asked": asked,
        "scores": {name: asdict(split) for name, split in scores.items()} or None,
        "seconds": round(time.monotonic() - begun, 2),
    }
    if args.json:
        write_json(sys.stdout, summary)
    else:
        _show(summary, scores, sys.stdout)
    return OK


@dataclass(frozen=True, slots=True)
class _Given:
    """What the command was given; `notes` are added to as the work goes on."""

    strategy: str
    kept: Kept | None
    predictions: Predictions
    reviews: Said | None
    truth: Said | None
    notes: list[str]


def _read(args: argparse.Namespace) -> _Given:
    """Read and check everything before any work is done."""
    from vsa_core.bring.predictions import read_predictions
    from vsa_core.bring.truth import read_said
    from vsa_core.fusion.strategies import DEFAULT, STRATEGIES

    strategy = args.strategy or DEFAULT
    if strategy not in STRATEGIES:
        known = ", ".join(STRATEGIES) + meant(strategy, STRATEGIES)
        raise UsageError(f"no strategy {strategy!r}: take one of {known}")
    _check_output(args)
    kept = _kept(args)
    if kept is not None:
        strategy = kept.model.strategy
    predictions = read_predictions(
        args.predictions,
        args.classes,
        unnamed=kept.classes if kept else None,
        drop_constant=args.drop_constant,
    )
    views = predictions.views
    if kept is not None:
        kept.check(views)
    notes = list(views.notes)
    reviews = truth = None
    if args.reviews:
        reviews = read_said(args.reviews, views)
        notes.extend(reviews.notes)
        if kept is not None:
            kept.check_reviews(views, reviews.known, args.reviews)
    if args.truth:
        truth = read_said(args.truth, views)
        notes.extend(truth.notes)
        if len(truth.elsewhere):
            notes.append(
                f"{len(truth.elsewhere)} segments of the truth are not among the predictions: they "
                "count as not covered"
            )
    return _Given(strategy, kept, predictions, reviews, truth, notes)


def _all_scores(
    given: _Given, decided: Decided, fused_by: Callable[[str], Fused], min_confidence: float
) -> dict[str, Split]:
    """Every strategy and every modality alone against the truth; empty where there is none."""
    from vsa_core.bring.labels import labels_of
    from vsa_core.fusion.strategies import STRATEGIES, UNTRAINED

    if given.truth is None:
        return {}
    views = given.predictions.views
    labelled = {given.strategy: decided}
    # With a kept model nothing is learned, for the scores no more than for the labels.
    for name in STRATEGIES if given.kept is None else UNTRAINED:
        if name not in labelled:
            try:
                labelled[name] = labels_of(views, fused_by(name), min_confidence=min_confidence)
            except VsaError as error:
                given.notes.append(f"{name} is not scored: {error}")
    if given.reviews is not None:
        given.notes.append("reviewed segments are left out of the scores")
    in_order = {name: labelled[name] for name in STRATEGIES if name in labelled}
    return _scores(given, given.truth, in_order)


def _check_output(args: argparse.Namespace) -> None:
    """Before hours of work: whether its outcome can be kept."""
    from vsa_core.table_files import check_table_file

    output: Path = args.output
    check_table_file(output)
    if args.conformal and not args.reviews:
        raise UsageError("--conformal needs --reviews: list segments for them with --ask 100")
    if args.ask_file and not args.ask:
        raise UsageError("--ask-file without --ask: say how many segments to list")
    written = {output: "-o"}
    if args.ask:
        ask = _ask_file(args)
        check_table_file(ask, "--ask-file")
        if ask.absolute() == output.absolute():
            raise UsageError(f"{ask} is where the labels go: give another name with --ask-file")
        written[ask] = "--ask-file"
    for given in (args.predictions, args.truth, args.reviews):
        for path, option in written.items():
            if given and path.exists() and Path(given).exists() and path.samefile(given):
                raise UsageError(f"{path} is what is read: give another name with {option}")


def _kept(args: argparse.Namespace) -> Kept | None:
    """The model to label with; None to learn. Before hours of work: whether one can be kept."""
    if not args.model and not args.save_model:
        return None
    from vsa_core.bring.kept import check_free, read_kept

    for option, given in (("--strategy", args.strategy), ("--save-model", args.save_model)):
        if args.model and given:
            raise UsageError(f"--model learns nothing anew: leave out {option}, or --model")
    folder = args.model or args.save_model
    for path in (args.output, _ask_file(args)) if args.ask else (args.output,):
        if path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{path} would be in the model's folder {folder}: write it elsewhere")
    if args.save_model:
        check_free(folder)
        return None
    return read_kept(folder)


def _levels(
    views: Views, fused: Fused, judged: Judged | None, second: Fused | None
) -> list[dict[str, Any]]:
    """What keeping only labels at least so sure comes to."""
    from vsa_core.bring.predictions import TARGET
    from vsa_core.fusion.knowing import by_confidence, expected

    said = expected(views, fused, TARGET, second)
    if judged is None:
        return by_confidence(said.confidence, said.right)
    own = judged.held_out.max(axis=1)
    rows = judged.known.rows
    chance = None if judged.inclusion is None else judged.inclusion[rows]
    right = said.confidence if judged.recalibrated else said.right
    return by_confidence(own, right, (rows, judged.right, chance))


def _ask(args: argparse.Namespace, views: Views, decided: Decided) -> dict[str, Any]:
    """List the segments most worth reviewing; those that people have labelled are none."""
    from vsa_core.bring.ask import write_questions
    from vsa_core.fusion.review import choose_for_review
    from vsa_core.labels import Agreement

    agree = decided.agreement == Agreement.AGREE.value
    chosen = choose_for_review(decided.confidence, args.ask, agree=agree, seed=args.seed)
    path = _ask_file(args)
    write_questions(path, views, chosen, args.predictions)
    return {"file": str(path), "segments": len(chosen.rows)}


def _ask_file(args: argparse.Namespace) -> Path:
    path: Path = args.ask_file or args.output.with_name("ask.csv")
    return path


def _counts(decided: Decided, classes: tuple[str, ...]) -> dict[str, Any]:
    """How many segments have each label, origin and state of agreement."""
    import numpy as np

    from vsa_core.labels import Agreement, Origin

    made = decided.label >= 0
    by_class = np.bincount(decided.label[made], minlength=len(classes)).tolist()
    return {
        "labels": dict(zip(classes, by_class, strict=True)),
        "unlabelled": int((~made).sum()),
        "coverage": float(made.mean()),
        "agreement": {s.value: int((decided.agreement == s.value).sum()) for s in Agreement},
        "origin": {o.value: int((decided.origin == o.value).sum()) for o in Origin},
    }


def _scores(given: _Given, truth: Said, labelled: Mapping[str, Decided]) -> dict[str, Split]:
    """Every strategy and every modality alone against the truth of segments nobody reviewed.

    Whether views agree is asked of their likeliest classes here, however sure they are: the
    segments on which a view is unsure are the ones that fusion is for. A segment of the truth that
    is not among the predictions is one that nobody decided.
    """
    import numpy as np

    from vsa_core.agree import agreement, has_unique_top
    from vsa_core.bring.truth import other_order
    from vsa_core.evaluate import split_scores
    from vsa_core.labels import Agreement

    views = given.predictions.views
    target, more = truth.known.target, len(truth.elsewhere)
    known = np.full(len(views), -1)
    known[truth.known.rows] = truth.known.labels
    if given.reviews is not None:
        known[given.reviews.known.rows] = -1
    known = np.append(known, truth.elsewhere)
    states = np.append(agreement(views.probs[target], 0.0).states, [Agreement.ABSENT.value] * more)
    parts = (states == Agreement.AGREE.value, states == Agreement.DISAGREE.value)
    said = {}
    for v, name in enumerate(views.names):
        probs = views.probs[target][:, v]
        top = np.where(has_unique_top(probs), np.nan_to_num(probs).argmax(axis=1), -1)
        said[f"{name} alone"] = top
        order = other_order(known[: len(views)], top, views.classes[target])
        if order is not None:
            given.notes.append(f"{name} alone {order}")
    said |= {name: decided.label for name, decided in labelled.items()}
    return {
        name: split_scores(known, np.append(label, np.full(more, -1)), *parts)
        for name, label in said.items()
    }


def _show(summary: Mapping[str, Any], scores: Mapping[str, Split], out: TextIO) -> None:
    n = summary["segments"]
    out.write(
        f"{_many(n, 'segment')} of {_many(summary['videos'], 'video')}, seen by "
        f"{', '.join(summary['modalities'])}, fused by {summary['strategy']}"
        f"{' of ' + summary['model']['folder'] if summary['model'] else ''}\n\n"
    )
    rows = [(f"label {name}", count) for name, count in summary["labels"].items()]
    rows.append(("no label", summary["unlabelled"]))
    rows += [(f"votes: {state}", count) for state, count in summary["agreement"].items()]
    rows += [(f"labelled by {o}", c) for o, c in summary["origin"].items() if o != "none"]
    write_table(out, ("what", "segments", "share"), [(w, c, f"{c / n:.1%}") for w, c in rows if c])
    if scores:
        some = next(iter(scores.values()))
        out.write(
            f"\nAgainst the truth of {_many(some.all.rows, 'segment')}. The likeliest classes of "
            f"two or more modalities\nagree on {some.agreeing.rows} and differ on "
            f"{some.disagreeing.rows}. Macro-F1, accuracy, coverage:\n"
        )
        rows_of = ((name, *map(_figures, _parts(split))) for name, split in scores.items())
        write_table(out, ("decided by", "all", "agree", "disagree"), rows_of)
    out.write(f"\n{estimate_line(summary['estimate'])}\n")
    write_levels(out, summary["by_confidence"])
    lines = [f"warning: {line}" for line in summary["warnings"]]
    lines += [f"note: {line}" for line in summary["notes"]]
    if summary["reviews"]:
        use = "judge the model" if summary["model"] else "learnt from"
        lines.append(f"note: {summary['reviews']} segments are labelled by people and {use}")
        if summary["with_reviews"]["recalibrated"]:
            lines.append("note: confidences are corrected by the reviews")
    if summary["asked"]:
        lines.append(
            f"note: {summary['asked']['file']} lists {summary['asked']['segments']} segments to "
            "review: fill in label, and give it with --reviews"
        )
    out.write("".join(f"{line}\n" for line in ["", *lines] if lines))
    out.write(f"\nLabels: {summary['output']}\n")
    if summary["saved_model"]:
        out.write(f"Model: {summary['saved_model']}\n")


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _parts(split: Split) -> tuple[Part, Part, Part]:
    return split.all, split.agreeing, split.disagreeing


def _figures(part: Part) -> str:
    """Narrow, so that three of them fit a terminal."""
    f1, accuracy = ("-" if x is None else f"{x:.3f}" for x in (part.macro_f1, part.accuracy))
    return f"{f1} {accuracy} {part.coverage:.2f}"
