"""The Arrow schema of every table; column names live nowhere else.

`docs/tables.md` is made from the descriptions here (`vsa_core.query` reads them too).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vsa_core.errors import StoreError
from vsa_core.labels import EMOTIONS, MODALITIES, SENTIMENTS, Modality

SENTIMENT_PROBS = pa.list_(pa.field("element", pa.float32(), nullable=False), len(SENTIMENTS))
EMOTION_PROBS = pa.list_(pa.field("element", pa.float32(), nullable=False), len(EMOTIONS))
# Probabilities are float32 sums of up to seven terms.
_SUM_TOLERANCE = 1e-3
EMBEDDING = pa.list_(pa.field("element", pa.float32(), nullable=False))
TIMESTAMP = pa.timestamp("us", tz="UTC")
# Fingerprints of transcripts, and sources of texts, that a corpus brought: no stage makes others.
CORPUS = "corpus:"


@dataclass(frozen=True)
class TableSpec:
    """One table.

    Attributes:
        name: the folder it lives in.
        version: raised whenever a column changes; stands in every file's metadata.
        row: what one row is.
        file: what one file holds.
        schema: columns in order; a field's metadata `doc` says what it means and what null means.
        id: the columns that name a row; unique over the whole table.
        probs: columns that hold probabilities and must sum to 1 where not null.
    """

    name: str
    version: int
    row: str
    file: str
    schema: pa.Schema
    id: tuple[str, ...]
    probs: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """The value of the `vsa.schema` metadata, `<table>/<version>`."""
        return f"{self.name}/{self.version}"


def _column(name: str, kind: pa.DataType, doc: str, *, null: str | None = None) -> pa.Field:
    """A column; `null` says what null means, and a column without it is never null."""
    text = doc if null is None else f"{doc} Null: {null}."
    return pa.field(name, kind, nullable=null is not None, metadata={"doc": text})


_VIDEO_ID = _column("video_id", pa.string(), "The video: `v` and 16 hex digits of its SHA-256.")
_SEGMENT_ID = _column("segment_id", pa.string(), "The segment: `<video_id>-<start_ms>-<end_ms>`.")
_START = _column("start_ms", pa.int64(), "Start of the segment from the start of the video, ms.")
_END = _column("end_ms", pa.int64(), "End of the segment from the start of the video, ms.")
_TEXT = _column("text", pa.string(), "What is said.")
_SPEAKER = _column("speaker", pa.string(), "Who says it.", null="nobody is named")
_TEXT_SOURCE = _column(
    "text_source",
    pa.string(),
    "Where the words come from: `captions`, `auto_captions`, `asr:<transcriber>` or "
    "`corpus:<name>`.",
)

VIDEOS = TableSpec(
    "videos",
    3,
    "a video, also one that failed",
    "a video",
    pa.schema(
        [
            _VIDEO_ID,
            _column(
                "status",
                pa.string(),
                "`ok`, or `error`: it does not open, or a stage failed on it; `note` says why.",
            ),
            _column("note", pa.string(), "Why it failed, or what was odd.", null="nothing odd"),
            _column("channel_id", pa.string(), "The channel's id.", null="no info.json says so"),
            _column("channel", pa.string(), "The channel's name.", null="no info.json says so"),
            _column(
                "source_url",
                pa.string(),
                "Web page it came from, else the file's URI as it was given.",
            ),
            _column("title", pa.string(), "Title; the file's name without an info.json."),
            _column("published_at", TIMESTAMP, "When it was published.", null="not known"),
            _column("duration_ms", pa.int64(), "Length, ms.", null="it could not be opened"),
            _column("language", pa.string(), "BCP 47 tag of the speech.", null="not known"),
            _column("media_path", pa.string(), "The file that was read, absolute."),
            _column("media_bytes", pa.int64(), "Size of that file.", null="unreadable"),
            _column(
                "media_mtime_ns",
                pa.int64(),
                "Its modification time, ns since 1970; with path and size it spares hashing again.",
                null="unreadable",
            ),
            _column(
                "captions_kind",
                pa.string(),
                "Where its words come from: `captions`, `auto_captions`, `asr:<transcriber>`, "
                "`corpus:<name>`, or `none`: no captions, and no sound to recognise.",
                null="it failed before that was known",
            ),
            _column("sha256", pa.string(), "SHA-256 of the media file.", null="unreadable"),
            _column("width", pa.int32(), "Width as it is shown, px.", null="no video stream"),
            _column("height", pa.int32(), "Height as it is shown, px.", null="no video stream"),
            _column("fps", pa.float32(), "Average frames per second.", null="no video stream"),
            _column("has_video", pa.bool_(), "A picture decodes."),
            _column("has_audio", pa.bool_(), "Sound decodes."),
            _column(
                "sound_track",
                pa.int32(),
                "Which of its sound tracks is heard, from 0.",
                null="there is no choice",
            ),
            _column(
                "source_id",
                pa.string(),
                "The address it was fetched from, as in `attempts`.",
                null="a file that lay there",
            ),
            _column(
                "view_count",
                pa.int64(),
                "How often it had been watched when it was fetched.",
                null="no info.json says so",
            ),
        ]
    ),
    id=("video_id",),
)

_WORD = pa.struct(
    [
        pa.field("start_ms", pa.int64(), nullable=False),
        pa.field("end_ms", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)

TRANSCRIPTS = TableSpec(
    "transcripts",
    2,
    "a caption cue, or a stretch of recognised speech",
    "a video",
    pa.schema(
        [
            _VIDEO_ID,
            _column("index", pa.int32(), "Number within the video, from 0, in order of time."),
            _column("start_ms", pa.int64(), "Start from the start of the video, ms."),
            _column("end_ms", pa.int64(), "End from the start of the video, ms."),
            _TEXT,
            _SPEAKER,
            _column(
                "words",
                pa.list_(pa.field("element", _WORD, nullable=False)),
                "The words with their times, ms.",
                null="the captions time whole lines only",
            ),
            _TEXT_SOURCE,
            _column("language", pa.string(), "BCP 47 tag.", null="not known"),
        ]
    ),
    id=("video_id", "index"),
)

SEGMENTS = TableSpec(
    "segments",
    2,
    "a span of speech: an utterance",
    "a video",
    pa.schema(
        [
            _VIDEO_ID,
            _SEGMENT_ID,
            _column("index", pa.int32(), "Number within the video, from 0, in order of time."),
            _START,
            _END,
            _TEXT,
            _SPEAKER,
            _TEXT_SOURCE,
            _column("language", pa.string(), "BCP 47 tag.", null="not known"),
        ]
    ),
    id=("segment_id",),
)

PREDICTIONS = TableSpec(
    "predictions",
    3,
    "a segment seen by one backend",
    "backend × video",
    pa.schema(
        [
            _VIDEO_ID,
            _SEGMENT_ID,
            _column("modality", pa.string(), "`text`, `face` or `audio`."),
            _column("backend", pa.string(), "The model: `name@hash of its weights and options`."),
            _column(
                "status",
                pa.string(),
                "`ok`; `absent`: nothing of this modality in the segment; `foreign`: in a language "
                "the model does not speak; `error`: it failed, and the next run tries again.",
            ),
            _column(
                "sentiment_probs",
                SENTIMENT_PROBS,
                "P(negative), P(neutral), P(positive).",
                null="absent, foreign, error, or the backend gives no vote",
            ),
            _column(
                "emotion_probs",
                EMOTION_PROBS,
                "P(anger, disgust, fear, joy, neutral, sadness, surprise).",
                null="absent, foreign, error, or the backend knows no emotions",
            ),
            _column(
                "people",
                pa.int32(),
                "Different people seen in the segment (tracks of `faces`).",
                null="no face model",
            ),
            _column(
                "track",
                pa.int32(),
                "Whose face it is: the track of `faces`.",
                null="nobody is seen, or no face model",
            ),
            _column(
                "speaks",
                pa.bool_(),
                "True: that face was chosen because its mouth moves with the speech. False: it is "
                "the largest, longest and most central one.",
                null="nobody is seen, or no face model",
            ),
            _column(
                "note", pa.string(), "Why it is absent, foreign or failed.", null="nothing to say"
            ),
        ]
    ),
    id=("segment_id", "backend"),
    probs=("sentiment_probs", "emotion_probs"),
)

EMBEDDINGS = TableSpec(
    "embeddings",
    1,
    "a segment's vector in one backend (rows with status ok only)",
    "backend × video",
    pa.schema(
        [
            _VIDEO_ID,
            _SEGMENT_ID,
            _column("modality", pa.string(), "`text`, `face` or `audio`."),
            _column("backend", pa.string(), "The model: `name@hash of its weights and options`."),
            _column("embedding", EMBEDDING, "float32, as wide as the backend says."),
        ]
    ),
    id=("segment_id", "backend"),
)

FACES = TableSpec(
    "faces",
    2,
    "a face in a sampled frame",
    "backend × video",
    pa.schema(
        [
            _VIDEO_ID,
            _column("backend", pa.string(), "The model that found and read it."),
            _column("time_ms", pa.int64(), "Time of the frame, ms."),
            _column("track", pa.int32(), "A number per person followed over time, from 0."),
            _column("x_px", pa.int32(), "Left edge of the box in the upright frame, px."),
            _column("y_px", pa.int32(), "Upper edge, px."),
            _column("width_px", pa.int32(), "Width, px."),
            _column("height_px", pa.int32(), "Height, px."),
            _column("score", pa.float32(), "The detector's own score; higher is surer."),
            _column(
                "speaking",
                pa.float32(),
                "How much the mouth moves with the speech that is heard around that time; above 0 "
                "where it does.",
                null="one face alone is in the picture, or nothing is heard",
            ),
            _column(
                "emotion_probs",
                EMOTION_PROBS,
                "P(anger, disgust, fear, joy, neutral, sadness, surprise).",
            ),
        ]
    ),
    id=("video_id", "backend", "time_ms", "track"),
    probs=("emotion_probs",),
)


def vote_column(modality: Modality) -> str:
    """Name of the labels column that holds a modality's vote."""
    return f"{modality}_vote"


def attention_column(modality: Modality) -> str:
    """Name of the labels column that holds a modality's attention weight."""
    return f"{modality}_attention"


LABELS = TableSpec(
    "labels",
    4,
    "a segment, labelled by one run",
    "run × shard",
    pa.schema(
        [
            _column("run_id", pa.string(), "The run that labelled it."),
            _VIDEO_ID,
            _SEGMENT_ID,
            _column("channel_id", pa.string(), "The channel's id.", null="not known"),
            _column("title", pa.string(), "The video's title."),
            _column("published_at", TIMESTAMP, "When it was published.", null="not known"),
            _START,
            _END,
            _TEXT,
            _TEXT_SOURCE,
            _column("language", pa.string(), "BCP 47 tag of the text.", null="not known"),
            _column(
                "people",
                pa.int32(),
                "Different people seen in the segment; one of them gives the face vote.",
                null="no face model looked",
            ),
            _column(
                "sentiment",
                pa.string(),
                "`negative`, `neutral` or `positive`.",
                null="nobody votes, classes tie, or it is less probable than is asked for (origin "
                "`none`)",
            ),
            _column(
                "emotion",
                pa.string(),
                "`anger`, `disgust`, `fear`, `joy`, `neutral`, `sadness` or `surprise`.",
                null="no model that saw it knows emotions, or the likeliest ties, is less probable "
                "than is asked for or does not suit the sentiment",
            ),
            _column(
                "sentiment_probs",
                SENTIMENT_PROBS,
                "P(negative), P(neutral), P(positive) behind the label.",
                null="no label",
            ),
            _column(
                "emotion_probs",
                EMOTION_PROBS,
                "P(anger, disgust, fear, joy, neutral, sadness, surprise).",
                null="nobody votes, or no model that saw it knows emotions",
            ),
            _column("confidence", pa.float32(), "P(sentiment).", null="no label"),
            _column("emotion_confidence", pa.float32(), "P(emotion).", null="no emotion"),
            _column(
                "origin",
                pa.string(),
                "Who stands behind it: `consensus` (confident votes agree, and it is what they "
                "say), `single` (one model votes, and it is its vote), `fusion` (the strategy's "
                "own), `human`, or `none` without a label.",
            ),
            _column(
                "agreement",
                pa.string(),
                "`agree`, `disagree`, `single` (one voter), `uncertain` (votes below the floor) "
                "or `absent`.",
            ),
            *(
                _column(
                    vote_column(m),
                    pa.string(),
                    f"What the {m} model says alone.",
                    null="absent, failed, it abstains, or it never votes",
                )
                for m in MODALITIES
            ),
            _column(
                "face_text_distance",
                pa.float32(),
                "How far apart the face and the text model's probabilities of the sentiment are: "
                "total variation, 0 the same to 1 opposite.",
                null="one of them has none",
            ),
            *(
                _column(
                    attention_column(m),
                    pa.float32(),
                    f"Weight of {m} in the label; over the modalities present they sum to 1.",
                    null="not present, or nothing decides",
                )
                for m in MODALITIES
            ),
            _column(
                "backends",
                pa.list_(pa.field("element", pa.string(), nullable=False)),
                "Ids of the models that looked at it.",
            ),
            _column(
                "model_id",
                pa.string(),
                "The fusion model: `models/<model_id>/` in the store, or the name of a strategy "
                "that learns nothing, such as `late-mean`.",
            ),
            _column("config_id", pa.string(), "Fingerprint of the configuration."),
        ]
    ),
    id=("run_id", "segment_id"),
    probs=("sentiment_probs", "emotion_probs"),
)

REVIEWS = TableSpec(
    "reviews",
    1,
    "a human decision, append-only",
    "decision batch",
    pa.schema(
        [
            _column("review_id", pa.string(), "The decision."),
            _VIDEO_ID,
            _SEGMENT_ID,
            _column("sentiment", pa.string(), "What the human says.", null="left as it was"),
            _column("emotion", pa.string(), "What the human says.", null="left as it was"),
            _column("reviewer", pa.string(), "Who."),
            _column("reviewed_at", TIMESTAMP, "When; the latest decision on a segment wins."),
            _column("reason", pa.string(), "Why.", null="not said"),
        ]
    ),
    id=("review_id",),
)

RUNS = TableSpec(
    "runs",
    1,
    "a run: a set of videos labelled with one configuration",
    "run",
    pa.schema(
        [
            _column(
                "run_id", pa.string(), "Derived from what went in: the same work has the same id."
            ),
            _column("status", pa.string(), "`complete`, `partial` (some videos failed), `failed`."),
            _column("started_at", TIMESTAMP, "When it was last carried out."),
            _column("finished_at", TIMESTAMP, "When that ended; the latest run wins in `labels`."),
            _column("seconds", pa.float64(), "How long that took, s."),
            _column(
                "sources",
                pa.list_(pa.field("element", pa.string(), nullable=False)),
                "What was asked for.",
            ),
            _column("profile", pa.string(), "The profile."),
            _column("config", pa.string(), "The whole configuration, JSON."),
            _column("config_id", pa.string(), "Its fingerprint."),
            _column("fingerprint", pa.string(), "Fingerprint of everything that went in."),
            _column(
                "backends",
                pa.list_(pa.field("element", pa.string(), nullable=False)),
                "Ids of the models used.",
            ),
            _column("model_id", pa.string(), "The fusion model, as in `labels`."),
            _column(
                "model_card",
                pa.string(),
                "Its card, which says what was learned from what; a path in the store.",
                null="the strategy learns nothing",
            ),
            _column("videos", pa.int64(), "Videos asked for, failed ones too."),
            _column("videos_failed", pa.int64(), "Videos that failed; `videos.note` says why."),
            _column("segments", pa.int64(), "Segments found."),
            _column(
                "counts",
                pa.string(),
                "Counts by modality, agreement and origin; what was left out and why. JSON.",
            ),
            _column("metrics", pa.string(), "What the strategy found out about the models, JSON."),
            _column(
                "failures",
                pa.list_(pa.field("element", pa.string(), nullable=False)),
                "One line per failed video: path and reason.",
            ),
            _column("version", pa.string(), "Version of vsa."),
        ]
    ),
    id=("run_id",),
)

ATTEMPTS = TableSpec(
    "attempts",
    1,
    "an attempt at a source: an address of a channel, a playlist, a feed, or one asked for",
    "channel × batch, append-only",
    pa.schema(
        [
            _column("attempt_id", pa.string(), "The attempt."),
            _column(
                "source_id",
                pa.string(),
                "16 hex digits of the SHA-256 of the site's own id of the video, else of its URL.",
            ),
            _column("channel", pa.string(), "Name of the channel in channels.yaml, else `-`."),
            _column("url", pa.string(), "The address."),
            _column("title", pa.string(), "Title.", null="the listing does not say"),
            _column("published_at", TIMESTAMP, "When it was published.", null="not known"),
            _column(
                "state",
                pa.string(),
                "`labelled`: its video went through every stage; `refused`: a clear no (private, "
                "removed, too long …), which is asked for seldom; `failed`: it is tried again; "
                "`later`: a live or upcoming stream. Of several attempts at a source `labelled` "
                "counts before `refused`, that before `failed`, and that before `later`.",
            ),
            _column(
                "kind",
                pa.string(),
                "Why, in a word: `private`, `removed`, `members_only`, `age_restricted`, "
                "`geo_blocked`, `live`, `network` …",
                null="labelled",
            ),
            _column("reason", pa.string(), "Why, in one line.", null="labelled"),
            _column(
                "number", pa.int32(), "How many attempts there were at it, with this one, from 1."
            ),
            _column("video_id", pa.string(), "The video.", null="none was fetched"),
            _column("tried_at", TIMESTAMP, "When."),
        ]
    ),
    id=("attempt_id",),
)

PROMOTIONS = TableSpec(
    "promotions",
    1,
    "a decision about a fusion model",
    "decision, append-only",
    pa.schema(
        [
            _column("decision_id", pa.string(), "The decision."),
            _column("domain", pa.string(), "The set of channels the model is for."),
            _column("sequence", pa.int64(), "Number of the decision within its domain, from 1."),
            _column(
                "action",
                pa.string(),
                "`candidate`: it was learned and compared, and did not take over; `promoted`: it "
                "labels from now on; `rolled_back`: an earlier one labels again.",
            ),
            _column("model_id", pa.string(), "The model, as in `labels`."),
            _column(
                "current_model_id",
                pa.string(),
                "The domain's model after the decision.",
                null="none was ever promoted",
            ),
            _column("decided_at", TIMESTAMP, "When."),
            _column("decided_by", pa.string(), "Who: a person, or a flow."),
            _column("reason", pa.string(), "Why, in one line."),
            _column("metrics", pa.string(), "What was compared, JSON."),
        ]
    ),
    id=("decision_id",),
)

UTTERANCES = TableSpec(
    "utterances",
    1,
    "an utterance of a corpus that people have labelled",
    "corpus × split",
    pa.schema(
        [
            _column(
                "utterance_id",
                pa.string(),
                "The utterance, as `meld-train-dia0-utt0`.",
            ),
            _column("corpus", pa.string(), "The corpus: `meld`."),
            _column("split", pa.string(), "Its part: `train`, `dev` or `test`."),
            _column("dialogue", pa.string(), "The dialogue, as `train-dia0`."),
            _column("utterance", pa.int32(), "Its number in the dialogue, in order."),
            _column("speaker", pa.string(), "Who says it.", null="not known"),
            _TEXT,
            _column("sentiment", pa.string(), "As people labelled it.", null="not labelled"),
            _column("emotion", pa.string(), "As people labelled it.", null="not labelled"),
            _column("video_id", pa.string(), "Its clip.", null="none that decodes"),
            _column("segment_id", pa.string(), "Its segment: the whole clip.", null="no clip"),
            _column("note", pa.string(), "Why it has no clip.", null="it has one"),
        ]
    ),
    id=("utterance_id",),
)

TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        VIDEOS,
        TRANSCRIPTS,
        SEGMENTS,
        PREDICTIONS,
        EMBEDDINGS,
        FACES,
        LABELS,
        REVIEWS,
        RUNS,
        ATTEMPTS,
        PROMOTIONS,
        UTTERANCES,
    )
}


def table_from_rows(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """An Arrow table of a known schema from rows that name every column, and no other.

    Raises:
        StoreError: a row misses a column or has one too many (pyarrow's `from_pylist` hides
            both), or a value has the wrong type.
    """
    schema = TABLES[table].schema
    names = set(schema.names)
    for row in rows:
        if row.keys() != names:
            missing, unknown = sorted(names - row.keys()), sorted(row.keys() - names)
            raise StoreError(f"row of {table}: missing columns {missing}, unknown {unknown}")
    try:
        try:
            return pa.Table.from_pylist(list(rows), schema=schema)
        except UnicodeEncodeError:  # half a character, which JSON can write and UTF-8 cannot
            return pa.Table.from_pylist([_encodable(row) for row in rows], schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StoreError(f"row of {table}: {error}") from error


def _encodable(value: Any) -> Any:
    """A value with a question mark for what no UTF-8 can hold of its texts."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case Mapping():
            return {name: _encodable(part) for name, part in value.items()}
        case list() | tuple():
            return [_encodable(part) for part in value]
    return value


def checked(spec: TableSpec, data: pa.Table, where: str) -> pa.Table:
    """The data as the table's schema wants it.

    Raises:
        StoreError: naming the first thing that is wrong, and where.
    """
    if data.column_names != spec.schema.names:
        missing = [n for n in spec.schema.names if n not in data.column_names]
        unknown = [n for n in data.column_names if n not in spec.schema.names]
        raise StoreError(
            f"{where}: columns are not those of {spec.tag}: missing {missing}, unknown {unknown}"
            + ("" if missing or unknown else ", order differs")
        )
    for field in spec.schema:
        column = data[field.name]
        if column.type != field.type:
            raise StoreError(f"{where}: column {field.name} is {column.type}, not {field.type}")
        if not field.nullable and column.null_count:
            raise StoreError(f"{where}: column {field.name} has {column.null_count} nulls")
    for name in spec.probs:
        column = data[name].combine_chunks().drop_null()
        if len(column):
            probs = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
            # `not <=` also catches NaN.
            if not (np.abs(probs.sum(1) - 1) <= _SUM_TOLERANCE).all() or (probs < 0).any():
                raise StoreError(f"{where}: column {name} has rows that are no probabilities")
    if data.group_by(list(spec.id)).aggregate([]).num_rows < data.num_rows:
        raise StoreError(f"{where}: {' + '.join(spec.id)} repeats")
    return pa.Table.from_arrays(data.columns, schema=spec.schema)
