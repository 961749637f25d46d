"""What can be typed: every verb with its arguments and an example; nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vsa_core import __version__
from vsa_core.cli.exits import Exit
from vsa_core.cli.learning_arguments import add_learning
from vsa_core.cli.parsing import (
    Parser,
    add_config,
    add_store,
    added,
    count,
    names,
    risk,
    seed,
    share,
)

# Each is a module here with `run(args) -> exit code`, imported when it is chosen.
VERBS = (
    "run",
    "relabel",
    "label",
    "query",
    "status",
    "predict",
    "meld",
    "train",
    "evaluate",
    "export",
    "classify",
    "models",
    "store",
    "forget",
    "experiment",
)
EXPERIMENTS = ("tf-mvsa", "digits", "mosi", "crema-d")
QUERY_FORMATS = ("table", "csv", "tsv", "json", "jsonl", "parquet")


def parser() -> Parser:
    """The parser of the whole command; `args.verb` is the verb, `args.action` a part of it."""
    top = Parser(
        prog="vsa",
        description="Sentiment and emotion labels for every spoken segment of video.",
        epilog="exit codes: "
        + "; ".join(f"{code.value} {code.meaning}" for code in Exit)
        + ". example: vsa run videos/ && vsa query @most_negative",
    )
    top.add_argument("--version", action="version", version=f"vsa {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    _run(verbs)
    _relabel(verbs)
    _label(verbs)
    _query(verbs)
    _status(verbs)
    _predict(verbs)
    add_learning(verbs)
    _models(verbs)
    _store(verbs)
    _forget(verbs)
    _experiment(verbs)
    return top


def _run(verbs: Any) -> None:
    run = added(
        verbs,
        "run",
        "label videos",
        "Label sources: find words, see faces, hear voices, let the models vote, and learn from "
        "where they agree what to say where they do not. What was done before is not done again.",
        "vsa run videos/ --store store",
    )
    run.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="a video file, a folder of them, an http(s) address (a video, a playlist, a channel, "
        "a feed), or a text file of addresses",
    )
    add_store(run)
    add_config(run)
    run.add_argument("--limit", type=count, metavar="N", help="label the first N videos only")
    run.add_argument(
        "--offline",
        action="store_true",
        help="fetch no weights; otherwise what the profile lacks is fetched first",
    )
    run.add_argument("--json", action="store_true", help="print the summary as one JSON object")


def _relabel(verbs: Any) -> None:
    relabel = added(
        verbs,
        "relabel",
        "label a store's videos anew",
        "Label the videos of a store anew with another fusion model, from what the models said of "
        "them: no video is opened, fetched or needed.",
        "vsa relabel --domain cooking",
    )
    relabel.add_argument(
        "--model",
        metavar="ID",
        help="a model of `vsa models fusion list`, or a strategy that learns nothing, such as "
        "late-mean (default: the one promoted for the domain)",
    )
    relabel.add_argument(
        "--domain", default="default", metavar="NAME", help="whose model (default: default)"
    )
    relabel.add_argument(
        "--channel",
        action="append",
        metavar="NAME",
        help="only videos of this channel of channels.yaml; may be repeated",
    )
    add_store(relabel)
    add_config(relabel)
    relabel.add_argument("--json", action="store_true", help="print the summary as one JSON object")


def _label(verbs: Any) -> None:
    label = added(
        verbs,
        "label",
        "label segments from predictions of your own",
        "Fuse what any models say of any segments: a table with segment_id, video_id, modality, "
        "status, probs and embedding goes in, a label per segment comes out.",
        "vsa label predictions.parquet -o labels.parquet --classes negative,neutral,positive",
    )
    label.add_argument(
        "predictions",
        metavar="PREDICTIONS",
        help="a file (Parquet, CSV, TSV, JSON or JSON Lines), a folder of Parquet files, or a "
        "pattern in quotes",
    )
    label.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="the file to write: .parquet, .csv, .tsv, .json or .jsonl",
    )
    label.add_argument(
        "--strategy",
        metavar="NAME",
        help="late-mean, late-product, vote, tf-mvsa, crossview or crossview-attention (default)",
    )
    label.add_argument(
        "--classes", type=names, metavar="A,B,C", help="names of the classes in the order of probs"
    )
    label.add_argument(
        "--truth",
        type=Path,
        metavar="FILE",
        help="segment_id and label (any table): score every strategy; changes no label",
    )
    label.add_argument(
        "--reviews",
        type=Path,
        metavar="FILE",
        help="segment_id and label of segments that people looked at: to learn from, to correct "
        "confidences by, and to tell how right the labels are",
    )
    label.add_argument(
        "--ask",
        type=count,
        metavar="N",
        help="also list the N segments most worth reviewing, for --reviews",
    )
    label.add_argument(
        "--ask-file",
        type=Path,
        metavar="FILE",
        help="the file to list them in, as -o (default: ask.csv beside the labels)",
    )
    label.add_argument(
        "--conformal",
        type=risk,
        metavar="ALPHA",
        help="also write label_set, which misses the truth in a share ALPHA of the segments; "
        "needs --reviews",
    )
    label.add_argument(
        "--save-model",
        type=Path,
        metavar="DIR",
        help="keep what was learned in this new folder, for --model",
    )
    label.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="label with what --save-model kept, without learning; warns of other segments than "
        "it knows; --reviews then only judge",
    )
    label.add_argument(
        "--min-confidence",
        type=share,
        default=0.0,
        metavar="P",
        help="give no label that is less probable than this (default: 0)",
    )
    label.add_argument(
        "--drop-constant",
        action="store_true",
        help="take a modality for absent where its rows repeat one constant, as a missing face may "
        "have been written",
    )
    label.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="of what is random (default: 0)"
    )
    label.add_argument("--json", action="store_true", help="print one JSON object")


def _query(verbs: Any) -> None:
    query = added(
        verbs,
        "query",
        "ask a store in SQL",
        "Ask a store in SQL (DuckDB's), read-only. The views are videos, transcripts, segments, "
        "predictions, embeddings, faces, labels (the current ones; human wins), label_history, "
        "current_runs, reviews, runs, attempts, promotions and utterances; DESCRIBE labels lists "
        "columns. Of several SELECTs, with ; between, the last one answers; each other gives one "
        "row, whose columns are $parameters of those behind it.",
        'vsa query "SELECT sentiment, count(*) FROM labels GROUP BY ALL" -o counts.csv',
    )
    query.add_argument(
        "sql", metavar="SQL", nargs="?", help="a SELECT, or @NAME of a shipped query"
    )
    query.add_argument("--list", action="store_true", help="list the shipped queries")
    query.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of $NAME in the query; may be repeated",
    )
    add_store(query)
    query.add_argument(
        "--format", choices=QUERY_FORMATS, help="default: what FILE's ending says, else table"
    )
    query.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write there instead of the screen: .csv, .tsv, .json, .jsonl or .parquet",
    )


def _status(verbs: Any) -> None:
    status = added(
        verbs,
        "status",
        "what a store holds and what failed",
        "Counts of videos, segments and labels, the last runs, the videos that failed with their "
        "reasons, and the room each table takes.",
        "vsa status --store store --json",
    )
    add_store(status)
    status.add_argument("--json", action="store_true", help="print one JSON object")


def _predict(verbs: Any) -> None:
    predict = added(
        verbs,
        "predict",
        "try the models on text or pictures",
        "Try a profile's models without a video. Prints one JSON object per line.",
        'echo "what a day" | vsa predict text -',
    )
    actions = predict.add_subparsers(dest="action", metavar="WHAT", required=True)
    text = added(
        actions,
        "text",
        "one object per line of text that is not empty",
        "Sentiment and emotion of every line of a text file; null where the model abstains, with a "
        "note where it does not speak the language.",
        "vsa predict text reviews.txt",
    )
    text.add_argument("file", metavar="FILE", help="UTF-8 text, or - for standard input")
    text.add_argument(
        "--language",
        metavar="TAG",
        help="what all lines are in, as en or pt-BR; else the letters of each tell, and a line too "
        "short for that is taken for a language the model speaks",
    )
    image = added(
        actions,
        "image",
        "one object per picture",
        "Every face of every picture, with its box, emotion and sentiment. Exit code 3 when a "
        "picture could not be read.",
        "vsa predict image photos/*.jpg",
    )
    image.add_argument("files", metavar="FILE", nargs="+", type=Path, help="a picture")
    for action in (text, image):
        add_config(action)


def _models(verbs: Any) -> None:
    models = added(
        verbs,
        "models",
        "list, fetch and check weight files",
        "The weights that models need: where they come from, where they are, and whether they are "
        "what they should be. Only this and `vsa run` fetch any.",
        "vsa models pull yunet",
    )
    actions = models.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = added(
        actions,
        "list",
        "every known weight file",
        "Every known weight file or checkpoint with its licence, size, revision and SHA-256, and "
        "whether it is here: present, missing, altered, or yours where the content is not the "
        "published one. A file that did not change since it was hashed is not hashed again.",
        "vsa models list --profile embedded",
    )
    add_config(listing)
    listing.add_argument("--verify", action="store_true", help="hash every file again")
    listing.add_argument("--json", action="store_true", help="print one JSON array, with all files")
    pull = added(
        actions,
        "pull",
        "fetch weights",
        "Fetch weights and check them against their SHA-256; what was cut off goes on where it "
        "stopped. Without a name: whatever the profile lacks. A checkpoint of the Hugging Face hub "
        "(or of $HF_ENDPOINT) needs no name here: give hf:ORG/NAME, or hf:ORG/NAME@REVISION.",
        "vsa models pull twitter-roberta hf:google-bert/bert-base-cased",
    )
    pull.add_argument("names", metavar="NAME", nargs="*", help="from `vsa models list`, or hf:…")
    add_config(pull)
    add = added(
        actions,
        "add",
        "take in weights fetched by hand",
        "Copy a file or folder that was fetched by hand, say on another machine, to where it is "
        "looked for, once its SHA-256 is right. With --trust another content stands in for the "
        "published one, as your own, until `vsa models remove`.",
        "vsa models add whisper-small /media/usb/small.pt",
    )
    add.add_argument("name", metavar="NAME", help="from `vsa models list`, or hf:ORG/NAME")
    add.add_argument("path", metavar="PATH", help="the file; for a checkpoint its folder")
    add.add_argument("--trust", action="store_true", help="take it whatever its SHA-256")
    remove = added(
        actions,
        "remove",
        "delete fetched weights",
        "Delete what was fetched or taken in of these weights, half fetched ones too; what a "
        "package carries, or another program fetched, stays.",
        "vsa models remove whisper-small",
    )
    remove.add_argument("names", metavar="NAME", nargs="+", help="from `vsa models list`, or hf:…")
    path = added(
        actions,
        "path",
        "where a weight file is",
        "Print where a weight file or checkpoint is; with exit code 1, where it would have to be.",
        "vsa models path yunet",
    )
    path.add_argument("name", metavar="NAME", help="from `vsa models list`")
    _fusion_models(actions)


def _fusion_models(actions: Any) -> None:
    fusion = added(
        actions,
        "fusion",
        "which fusion model of a store labels",
        "The fusion models that runs learned in a store. A domain is a set of channels with a "
        "name; its current model labels it until a better one is promoted, by the flow "
        "adapt-domain or by hand.",
        "vsa models fusion list --store store",
    )
    chosen = fusion.add_subparsers(dest="fusion_action", metavar="ACTION", required=True)
    listing = added(
        chosen,
        "list",
        "every fusion model of a store",
        "Every fusion model with what it learned from, how many of its sentiments are right as far "
        "as agreement tells, whether it labels a domain now (current), did (former) or was only "
        "compared (candidate), and the last decision of each domain with its reason.",
        "vsa models fusion list --json",
    )
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    promote = added(
        chosen,
        "promote",
        "let a model label a domain",
        "Let a model label a domain from now on, whatever it was found to be worth.",
        "vsa models fusion promote 7ce7d301d7a6 --domain news",
    )
    promote.add_argument("model", metavar="MODEL_ID", help="from `vsa models fusion list`")
    rollback = added(
        chosen,
        "rollback",
        "let the model before label again",
        "Take the current model back: the one that labelled the domain before labels again, and "
        "the flow does not promote the one taken back once more.",
        "vsa models fusion rollback --domain news",
    )
    listing.add_argument(
        "--domain", metavar="D", help="only models that were decided on for it (default: all)"
    )
    for action in (promote, rollback):
        action.add_argument("--domain", default="default", metavar="D", help="default: default")
        action.add_argument("--reason", metavar="TEXT", help="why, kept with the decision")
    for action in (listing, promote, rollback):
        add_store(action)


def _store(verbs: Any) -> None:
    store = added(
        verbs,
        "store",
        "verify, compact or migrate a store",
        "Keep a store in order.",
        "vsa store verify --store store",
    )
    actions = store.add_subparsers(dest="action", metavar="ACTION", required=True)
    verify = added(
        actions,
        "verify",
        "read everything, and say what is wrong",
        "Read every file of a store and say, line by line, what is wrong and what to do. Exit "
        "code 1 when something is.",
        "vsa store verify",
    )
    verify.add_argument(
        "--repair",
        action="store_true",
        help="put files that do not read aside in .quarantine/, so that the next run makes anew "
        "what can be made",
    )
    compact = added(
        actions,
        "compact",
        "join small files into large ones",
        "Join the files of single videos into one per table and model: queries over thousands of "
        "videos get faster, the rows stay the same.",
        "vsa store compact",
    )
    migrate = added(
        actions,
        "migrate",
        "bring a store of an older vsa up to date",
        "Write every file of an older version of its table anew as the present one has it, one "
        "after the other; interrupted, the same command goes on. What is not known is null, and "
        "what a run would make in the same way is not made again.",
        "vsa store migrate --store store",
    )
    migrate.add_argument("--json", action="store_true", help="print one JSON object")
    for action in (verify, compact, migrate):
        add_store(action)


def _forget(verbs: Any) -> None:
    forget = added(
        verbs,
        "forget",
        "remove a person's videos everywhere",
        "Remove videos, or all videos of a channel, from every table, with their downloads, "
        "reviews and every fusion model that learned from them, search the whole store for what "
        "may be left, and keep runs from taking them in again. Says first what would go. Files of "
        "your own are named and stay. Cut off, the same command, or one without a name, ends it.",
        "vsa forget https://example.org/talk --store store",
    )
    forget.add_argument(
        "targets",
        metavar="VIDEO|CHANNEL",
        nargs="*",
        help="of a video its id, that of a segment, its address or media file; of a channel its "
        "id, its name, or its name in channels.yaml",
    )
    add_store(forget)
    forget.add_argument(
        "--dry-run", action="store_true", help="only say what would go; remove nothing"
    )
    forget.add_argument("--yes", action="store_true", help="do not ask")
    forget.add_argument(
        "--keep-models",
        action="store_true",
        help="leave fusion models that learned from them; they know the ids of their videos",
    )
    forget.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings of the runs, where they say where downloads lie (download.media_dir)",
    )
    forget.add_argument("--json", action="store_true", help="print one JSON object")


def _experiment(verbs: Any) -> None:
    experiment = added(
        verbs,
        "experiment",
        "run a study again from its seeds",
        "Score every way to fuse where the truth is known: on synthetic segments (tf-mvsa), on "
        "handwriting (digits), or on real data that you have (mosi, crema-d). Writes tables "
        "(Parquet), figures (PNG) and summary.md; the same seeds give the same bytes.",
        "vsa experiment tf-mvsa --seeds 5 --out experiments/tf-mvsa",
    )
    experiment.add_argument(
        "name", metavar="NAME", choices=EXPERIMENTS, help=f"one of {', '.join(EXPERIMENTS)}"
    )
    experiment.add_argument(
        "--seeds",
        type=count,
        default=5,
        metavar="N",
        help="repetitions, with seeds 0 to N − 1 (default: 5)",
    )
    experiment.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write (default: ./experiments/NAME)"
    )
    experiment.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of the real data sets (default: $VSA_SHARED/data, else ../shared/data)",
    )
    experiment.add_argument("--json", action="store_true", help="print tables as one JSON object")
