"""The parsers of the supervised line: meld, train, evaluate, export, classify"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vsa_core.cli.parsing import add_config, add_store, added, count, seed

TARGETS = ("sentiment", "emotion", "both")
_SPLITS = ("train", "dev", "test")


def add_learning(verbs: Any) -> None:
    """Add the verbs."""
    _meld(verbs)
    _train(verbs)
    _evaluate(verbs)
    _export(verbs)
    _classify(verbs)


def _meld(verbs: Any) -> None:
    meld = added(
        verbs,
        "meld",
        "check a downloaded MELD and put it into a store",
        "MELD: 13,709 utterances of TV dialogue that people labelled, to learn from and to judge "
        "by.",
        "vsa meld prepare MELD.Raw",
    )
    actions = meld.add_subparsers(dest="action", metavar="ACTION", required=True)
    prepare = added(
        actions,
        "prepare",
        "check its tables and clips and put them into a store",
        "Check every table and clip, say what is missing or broken, and put each clip into the "
        "store as a video with one segment whose words are MELD's, so that `vsa run` labels the "
        "same segments as people did. To do it again changes nothing.",
        "vsa meld prepare MELD.Raw --split test --truth meld-test.csv",
    )
    prepare.add_argument(
        "folder", metavar="DIR", type=Path, help="what MELD.Raw.tar.gz was unpacked to"
    )
    prepare.add_argument(
        "--split",
        action="append",
        choices=_SPLITS,
        help="only this one; may be repeated (default: all that are there)",
    )
    prepare.add_argument(
        "--truth",
        type=Path,
        metavar="FILE",
        help="also write what people say of each segment, for `vsa evaluate`: .csv, .tsv, .json, "
        ".jsonl or .parquet",
    )
    add_store(prepare)
    add_config(prepare)
    prepare.add_argument("--json", action="store_true", help="print one JSON object, all problems")


def _train(verbs: Any) -> None:
    train = added(
        verbs,
        "train",
        "learn a supervised model",
        "Learn from people's labels, or from the pipeline's own: text with the dialogue before it, "
        "picture and voice to a sentiment and an emotion. A training that was cut off goes on "
        "where it was by the same command.",
        "vsa train meld MELD.Raw --out meld",
    )
    actions = train.add_subparsers(dest="action", metavar="WHAT", required=True)
    meld = added(
        actions,
        "meld",
        "from MELD",
        "Learn from MELD's train split, stop by dev, score test once.",
        "vsa train meld MELD.Raw --out meld --text-only",
    )
    meld.add_argument(
        "folder",
        metavar="DIR",
        type=Path,
        nargs="?",
        help="MELD's folder (default: what `vsa meld prepare` put into the store)",
    )
    segments = added(
        actions,
        "segments",
        "from a store's own segments",
        "Learn from the segments whose models agree, or from those that people reviewed; whole "
        "videos are held out.",
        "vsa train segments --labels reviews --init meld/model --out ours",
    )
    segments.add_argument(
        "--labels",
        choices=("consensus", "reviews"),
        default="consensus",
        help="whose labels (default: consensus)",
    )
    for action in (meld, segments):
        add_store(action)
        action.add_argument(
            "--out", type=Path, required=True, metavar="DIR", help="where training and model go"
        )
        action.add_argument(
            "--recipe",
            type=Path,
            metavar="FILE",
            help="encoders, fusion, loss and schedule (default: configs/supervised/meld.yaml)",
        )
        action.add_argument(
            "--init", type=Path, metavar="MODEL", help="begin from the weights of this model"
        )
        action.add_argument(
            "--text-only", action="store_true", help="without picture and voice; needs no clips"
        )
        action.add_argument(
            "--kfold",
            type=count,
            metavar="K",
            help="K models, each scored on a fold of whole dialogues or videos that it never saw",
        )
        action.add_argument("--epochs", type=count, metavar="N", help="instead of the recipe's")
        action.add_argument("--seed", type=seed, metavar="N", help="instead of the recipe's")
        action.add_argument(
            "--journal",
            action="append",
            choices=("tensorboard", "wandb", "mlflow", "none"),
            help="where it is told of; may be repeated (default: tensorboard)",
        )
        _features(action)
        action.add_argument(
            "--workers",
            type=count,
            default=0,
            metavar="N",
            help="processes that read ahead (default: none)",
        )
        action.add_argument("--json", action="store_true", help="print one JSON object")


def _features(action: Any) -> None:
    action.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="folder of decoded pictures and sounds (default: in the cache folder)",
    )


def _evaluate(verbs: Any) -> None:
    evaluate = added(
        verbs,
        "evaluate",
        "how right predictions are",
        "Hold predictions, or a store's current labels, against what is known: coverage first, "
        "then accuracy, F1, calibration and risk by coverage, with intervals over whole videos. "
        "Known segments without a label, or without a row, count as not covered.",
        "vsa evaluate predictions.csv truth.csv --against baseline.csv --report report/",
    )
    evaluate.add_argument(
        "predictions",
        metavar="PREDICTIONS",
        help="a table (CSV, TSV, JSON, JSON Lines, Parquet) with segment_id and sentiment or "
        "emotion, or label (empty abstains), and if known confidence, emotion_confidence, "
        "video_id, start_ms, end_ms, text and face_vote, text_vote, audio_vote; or a store: a "
        "folder or s3://bucket/prefix",
    )
    evaluate.add_argument(
        "truth",
        metavar="TRUTH",
        help="a table with segment_id (or video, start_ms and end_ms) and sentiment or emotion, or "
        "label; or a store, for its reviews",
    )
    evaluate.add_argument(
        "--against",
        metavar="OTHER",
        help="other predictions, or a store: compared on the same segments",
    )
    evaluate.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="write report.html, report.md, metrics.json and pictures there; an older report "
        "gives way",
    )
    evaluate.add_argument(
        "--target", choices=TARGETS, default="both", help="what to assess (default: both)"
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")


def _export(verbs: Any) -> None:
    export = added(
        verbs,
        "export",
        "a supervised model in other forms",
        "Write a model as ONNX, with int8 weights and pruned, and say what each form costs: size, "
        "time for one clip, and what becomes of F1.",
        "vsa export meld/model --out exported --truth-from MELD.Raw",
    )
    export.add_argument("model", metavar="MODEL", type=Path, help="as `vsa train` wrote it")
    export.add_argument("--out", required=True, type=Path, metavar="DIR", help="where to")
    export.add_argument(
        "--formats",
        default="safetensors,onnx,int8,pruned",
        metavar="NAMES",
        help="some of safetensors, onnx, int8 and pruned, separated by commas (default: all)",
    )
    export.add_argument(
        "--sparsity",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="pruned: share of weights set to 0 (default: 0.5)",
    )
    export.add_argument(
        "--truth-from",
        type=Path,
        metavar="DIR",
        help="MELD's folder or a store that holds it, for F1 of each form",
    )
    export.add_argument("--split", choices=_SPLITS, default="test", help="of it (default: test)")
    _features(export)
    export.add_argument("--json", action="store_true", help="print one JSON object")


def _classify(verbs: Any) -> None:
    classify = added(
        verbs,
        "classify",
        "sentiment and emotion of clips, by a supervised model",
        "Say the sentiment and emotion of whole clips, or of a part of one, with probabilities and "
        "which modalities were there.",
        'vsa classify meld/model clip.mp4 --text "Oh my God, he\'s lost it."',
    )
    classify.add_argument(
        "model", metavar="MODEL", type=Path, help="as `vsa train` or `vsa export` wrote it"
    )
    classify.add_argument("videos", metavar="VIDEO", type=Path, nargs="+", help="video files")
    classify.add_argument("--text", metavar="TEXT", help="what is said in it")
    classify.add_argument("--start-ms", type=int, metavar="MS", help="begin of the part")
    classify.add_argument("--end-ms", type=int, metavar="MS", help="end of the part")
    classify.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs"
    )
    classify.add_argument("--json", action="store_true", help="print one JSON object per video")
