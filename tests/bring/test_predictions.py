"""Predictions of somebody else's: all that makes sense is read, anything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bring.tables import Row, rows, write
from vsa_core.bring.predictions import Predictions, read_predictions
from vsa_core.errors import UsageError
from vsa_core.fusion.spool import Spooled
from vsa_core.fusion.views import Held, Views


def vectors(views: Views, v: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(n, d) embeddings of one view; NaN where there is none."""
    embedding = views.embeddings[v]
    found = np.full((len(views), embedding.width), np.nan, np.float32)
    for at, block in embedding.blocks():
        assert np.isnan(found[at]).all()
        found[at] = block
    return found


def same(one: Predictions, other: Predictions) -> None:
    a, b = one.views, other.views
    assert a.segment_ids.equals(b.segment_ids)
    assert (a.videos, a.names, a.classes, a.notes) == (b.videos, b.names, b.classes, b.notes)
    for x, y in (
        (a.video, b.video),
        (a.present, b.present),
        (a.embedded, b.embedded),
        (a.probs["label"], b.probs["label"]),
        *((vectors(a, v), vectors(b, v)) for v in range(len(a.names))),
    ):
        np.testing.assert_array_equal(x, y)


def test_a_table_is_read_as_it_stands(tmp_path: Path) -> None:
    table = rows()
    table[3] |= {"status": "absent", "probs": None, "embedding": None}
    table[4] |= {"probs": None}
    table[6] |= {"embedding": None}
    read = read_predictions(write(tmp_path / "p.parquet", table), ["a", "b", "c"])
    views = read.views
    assert views.segment_ids.to_pylist() == [f"s{i:03d}" for i in range(60)]
    assert views.names == ("text", "face")
    assert views.classes == {"label": ("a", "b", "c")}
    assert views.notes == ()
    assert [views.videos[i] for i in views.video[:3]] == ["v0", "v1", "v2"]
    probs = views.probs["label"]
    for i, row in enumerate(table):
        at = divmod(i, 2)
        said, seen = row["probs"] is not None, row["embedding"] is not None
        assert views.present[at] == (said or seen)
        assert views.embedded[at] == seen
        assert np.isnan(probs[at]).all() != said
        if said:
            assert probs[at] == pytest.approx(row["probs"])
        if seen:
            assert vectors(views, at[1])[at[0]] == pytest.approx(row["embedding"])


def test_the_order_of_rows_changes_nothing_but_the_order_of_labels(tmp_path: Path) -> None:
    table = rows(widths={"face": 3, "voice": 2, "text": 4})
    table[7] |= {"embedding": [1.0, float("nan")]}
    plain = read_predictions(write(tmp_path / "p.parquet", table))
    shuffled = [table[i] for i in np.random.default_rng(1).permutation(len(table))]
    other = read_predictions(write(tmp_path / "q.parquet", shuffled))
    assert plain.views.names == ("text", "face", "voice")
    same(plain, other)
    assert (plain.order == np.arange(60)).all()
    ids = other.views.segment_ids.take(pa.array(other.order)).to_pylist()
    assert ids == list(dict.fromkeys(row["segment_id"] for row in shuffled))


def test_streamed_embeddings_are_the_held_ones(tmp_path: Path) -> None:
    table = rows(300)
    for i in range(0, 600, 7):
        table[i]["embedding"] = None
    table[9] |= {"status": "error"}
    table[10] |= {"embedding": [float("inf")] * 4}
    order = np.random.default_rng(2).permutation(600)
    path = write(tmp_path / "p.parquet", [table[i] for i in order], row_group_size=50)
    held, streamed = read_predictions(path), read_predictions(path, held_bytes=0)
    assert all(isinstance(e, Held) for e in held.views.embeddings)
    assert all(isinstance(e, Spooled) for e in streamed.views.embeddings)
    same(held, streamed)
    for one, other in zip(held.views.embeddings, streamed.views.embeddings, strict=True):
        for (at, x), (at2, x2) in zip(one.blocks(), other.blocks(), strict=True):
            assert (at == at2).all()
            assert (x == x2).all()


def test_large_embeddings_do_not_need_their_file_again(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", rows(40))
    [text, _] = read_predictions(path, held_bytes=0).views.embeddings
    path.unlink()
    assert sum(len(at) for at, _ in text.blocks()) == 40


def test_no_room_for_large_embeddings_is_told_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "p.parquet", rows(40))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(UsageError, match=r"the embeddings needs 0\.0 GB, .* set TMPDIR"):
        read_predictions(path, held_bytes=0)


@pytest.mark.parametrize(
    ("probs", "embedding"),
    [
        (pa.list_(pa.float32()), pa.list_(pa.float32())),
        (pa.list_(pa.float64()), pa.list_(pa.float64())),
        (pa.large_list(pa.float64()), pa.large_list(pa.float16())),
        (pa.list_(pa.float32(), 3), pa.list_(pa.float64(), 2)),
    ],
    ids=str,
)
def test_lists_of_any_kind(tmp_path: Path, probs: pa.DataType, embedding: pa.DataType) -> None:
    said = [[0.5, 0.25, 0.25], None, [0.25, 0.5, 0.25], None]
    seen = [[1.0, 2.0], None, None, [3.0, 4.0]]
    table = pa.table(
        {
            "segment_id": pa.array([7, 7, 8, 8]),
            "video_id": pa.array(["v"] * 4, pa.large_string()),
            "modality": pa.array(["text", "face", "text", "face"]).dictionary_encode(),
            "probs": pa.array(said, probs),
            "embedding": pa.array(seen, embedding),
        }
    )
    pq.write_table(table, tmp_path / "p.parquet")
    views = read_predictions(tmp_path / "p.parquet").views
    assert views.segment_ids.to_pylist() == ["7", "8"]
    assert views.probs["label"][:, 0].tolist() == [said[0], said[2]]
    assert vectors(views, 0)[0].tolist() == [1, 2]
    assert vectors(views, 1)[1].tolist() == [3, 4]
    assert views.present.tolist() == [[True, False], [True, True]]
    assert "face never votes" in views.notes


@pytest.mark.parametrize(("k", "modalities"), [(2, 2), (7, 3), (20, 8), (3, 4), (3, 1)])
def test_numbers_of_classes_and_modalities(tmp_path: Path, k: int, modalities: int) -> None:
    widths = {f"m{i}": i for i in range(modalities)}  # m0 has no embedding
    views = read_predictions(write(tmp_path / "p.parquet", rows(40, k, widths))).views
    assert views.probs["label"].shape == (40, modalities, k)
    assert views.classes["label"] == tuple(map(str, range(k)))
    assert [e.width for e in views.embeddings] == list(range(modalities))
    assert f"classes are numbered 0 to {k - 1} in the order of probs" in views.notes
    assert any("is the only modality" in note for note in views.notes) == (modalities == 1)


@pytest.mark.parametrize("how", ["no column", "all null", "all empty"])
def test_no_embeddings_at_all(tmp_path: Path, how: str) -> None:
    table = rows()
    for row in table:
        row["embedding"] = [] if how == "all empty" else None
        if how == "no column":
            del row["embedding"], row["status"]
    views = read_predictions(write(tmp_path / "p.parquet", table)).views
    assert [e.width for e in views.embeddings] == [0, 0]
    assert [list(e.blocks()) for e in views.embeddings] == [[], []]
    assert views.present.all()
    assert not views.embedded.any()


@pytest.mark.parametrize("bad", [[1.0, float("nan"), 0.0], [float("inf")] * 3, [1e300, 0, 0]])
def test_an_embedding_that_is_not_finite_makes_its_view_absent(
    tmp_path: Path, bad: list[float]
) -> None:
    table = rows()
    table[5] |= {"embedding": bad}
    table[7] |= {"embedding": [float("nan")] * 3}
    views = read_predictions(write(tmp_path / "p.parquet", table), ["a", "b", "c"]).views
    assert views.notes == ("face: 2 embeddings are not finite: absent there",)
    assert not views.present[[2, 3], 1].any()
    assert np.isnan(views.probs["label"][[2, 3], 1]).all()
    assert views.present.sum() == 118
    assert len(next(views.embeddings[1].blocks())[0]) == 58


def test_what_a_row_says_counts_only_where_its_status_is_ok(tmp_path: Path) -> None:
    table = rows()
    table[0]["status"] = "error"
    table[2]["status"] = None
    views = read_predictions(write(tmp_path / "p.parquet", table), ["a", "b", "c"]).views
    assert views.present[:2, 0].tolist() == [False, True]
    assert views.notes == ("text: probs of 1 rows are passed over: their status is not ok",)


def test_folders_and_patterns(tmp_path: Path) -> None:
    whole = read_predictions(write(tmp_path / "whole.parquet", rows()))
    folder = tmp_path / "parts"
    (folder / "deep").mkdir(parents=True)
    table = rows()
    write(folder / "a.parquet", table[:50])
    write(folder / "deep" / "b.parquet", [{**row, "note": "x"} for row in table[50:]])
    for where in (folder, str(folder / "**" / "*.parquet")):
        same(whole, read_predictions(where))


def test_names_of_classes_stand_in_the_file(tmp_path: Path) -> None:
    names = ["no", "maybe", "yes"]
    path = write(tmp_path / "p.parquet", rows(), metadata={"vsa.classes": json.dumps(names)})
    assert read_predictions(path).views.classes["label"] == tuple(names)
    assert read_predictions(path).views.notes == ()
    assert read_predictions(path, ["x", "y", "z"]).views.classes["label"] == ("x", "y", "z")


def without(name: str) -> Callable[[list[Row]], None]:
    def change(table: list[Row]) -> None:
        for row in table:
            del row[name]

    return change


def with_row(number: int, **values: Any) -> Callable[[list[Row]], None]:
    def change(table: list[Row]) -> None:
        table[number] |= values

    return change


def every(**values: Any) -> Callable[[list[Row]], None]:
    def change(table: list[Row]) -> None:
        for row in table:
            row |= values

    return change


def nine_modalities(table: list[Row]) -> None:
    for i, row in enumerate(table):
        row["modality"] = f"m{i % 10}"


_COLUMNS = "segment_id, video_id, modality, probs"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("modality"),
            f"PATH lacks the column modality: it needs {_COLUMNS} and may have status and "
            "embedding; there are segment_id, video_id, status, probs, embedding",
        ),
        (
            without("probs"),
            "PATH lacks the column probs (or a column of each class: name them with --classes): it "
            f"needs {_COLUMNS} and may have status and embedding; there are segment_id, video_id, "
            "modality, status, embedding",
        ),
        (
            with_row(7, segment_id="s001"),
            "PATH: column segment_id: 's001' has two rows for face, the second is row 8: keep one "
            "row per segment and modality",
        ),
        (
            with_row(7, video_id="v5"),
            "PATH: column video_id: segment 's003' is in two videos, see row 8: give every "
            "segment an id of its own",
        ),
        (
            with_row(7, segment_id=None),
            "PATH: column segment_id is empty in row 8: every row needs one",
        ),
        (
            with_row(4, modality=""),
            "PATH: column modality is empty in row 5: every row needs one",
        ),
        (every(segment_id=0.5), "PATH: column segment_id is double: make it a string"),
        (
            nine_modalities,
            "PATH: column modality has 10 values (m0, m1, m2, m3, m4, m5, m6, m7, m8, …): at most "
            "8 can be fused",
        ),
        (
            with_row(4, status="fine"),
            "PATH: column status says 'fine': use ok, absent or error",
        ),
        (
            with_row(4, probs=[0.5, 0.5]),
            "PATH: column probs: segment 's002' has 2 probabilities, others 3: give one per "
            "class, in one order",
        ),
        (
            with_row(4, probs=[1.2, -0.1, -0.1]),
            "PATH: column probs: segment 's002' (text) has a negative probability: give shares "
            "from 0 to 1",
        ),
        (
            with_row(4, probs=[0.5, 0.2, 0.2]),
            "PATH: column probs: segment 's002' (text) sums to 0.9, not 1: divide by the sum",
        ),
        (
            with_row(4, probs=[0.5, 0.5, float("nan")]),
            "PATH: column probs: segment 's002' (text) is not finite: use null where a model "
            "abstains",
        ),
        (
            every(probs=[1.0]),
            "PATH: column probs: segment 's000' has 1 probabilities: 2 to 20 classes can be told "
            "apart",
        ),
        (every(probs="high"), "PATH: column probs: 'high' is no list of numbers: write [0.1, 0.9]"),
        (
            every(probs=["a", "b", "c"]),
            "PATH: column probs is list<element: string>: make it a list of floats",
        ),
        (
            every(probs=None),
            "PATH: column probs is null wherever status is ok: there is no vote",
        ),
        (
            every(status="absent"),
            "PATH: column probs is null wherever status is ok: there is no vote",
        ),
        (
            every(probs=[float("nan")] * 3),
            "PATH: no row has probs that can be used: there is nothing to label",
        ),
        (
            with_row(5, embedding=[1.0, 2.0]),
            "PATH: column embedding: segment 's002' has 2 numbers for face, others 3: give one "
            "modality vectors of one width",
        ),
        (every(embedding=1.5), "PATH: column embedding is double: make it a list of floats"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[list[Row]], None], message: str
) -> None:
    table = rows()
    change(table)
    path = write(tmp_path / "p.parquet", table)
    with pytest.raises(UsageError) as caught:
        read_predictions(path)
    assert str(caught.value) == message.replace("PATH", str(path))


def test_rows_are_counted_in_their_own_file(tmp_path: Path) -> None:
    table = rows()
    write(tmp_path / "a.parquet", table[:50])
    second = write(tmp_path / "b.parquet", [*table[50:], {**table[3], "embedding": [9.0] * 3}])
    with pytest.raises(UsageError) as caught:
        read_predictions(tmp_path)
    assert str(caught.value) == (
        f"{second}: column segment_id: 's001' has two rows for face, the second is row 71: keep "
        "one row per segment and modality"
    )


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ["a", "b"],
            "--classes names 2 classes (a, b), probs has 3: name each, in the order of probs",
        ),
        (["a", "b", "a"], "--classes (a, b, a): give each class a name of its own"),
        (["a", "", "c"], "--classes (a, , c): give each class a name of its own"),
    ],
)
def test_classes_that_do_not_fit(tmp_path: Path, classes: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_predictions(write(tmp_path / "p.parquet", rows()), classes)
    assert str(caught.value) == message


def test_metadata_that_does_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", rows(), metadata={"vsa.classes": "a,b,c"})
    with pytest.raises(UsageError, match=r"metadata vsa.classes is no JSON list of names: mend it"):
        read_predictions(path)
    write(path, rows()[:60], metadata={"vsa.classes": '["a", "b", "c"]'})
    write(tmp_path / "b.parquet", rows()[60:], metadata={"vsa.classes": '["c", "b", "a"]'})
    with pytest.raises(UsageError, match=r"is c, b, a, in another file a, b, c: give --classes"):
        read_predictions(tmp_path)
    path.unlink()
    write(path, rows()[:60], metadata={"vsa.classes": '["a", "b"]'})
    with pytest.raises(UsageError, match=r"a\.parquet: metadata vsa\.classes names 2 classes"):
        read_predictions(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    def refused(where: Path) -> str:
        with pytest.raises(UsageError) as caught:
            read_predictions(where)
        return str(caught.value)

    path = tmp_path / "p.parquet"
    assert refused(path) == (
        f"{path} is not there: give a file (CSV, TSV, JSON, JSON Lines or Parquet), a folder or a "
        "pattern"
    )
    assert refused(tmp_path) == f"{tmp_path} is a folder without a .parquet file"
    path.write_text("segment_id,video_id\n")
    assert refused(path).startswith(f"{path} is not Parquet, or is torn (")
    path.write_bytes(b"")
    assert refused(path).startswith(f"{path} is not Parquet, or is torn (")
    whole = write(tmp_path / "whole.parquet", rows(3000), compression="none").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert refused(path).startswith(f"{path} is not Parquet, or is torn (")
    (tmp_path / "whole.parquet").unlink()
    write(path, rows())
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert refused(path) == f"{path} has no rows: write one for each segment"
    both = pa.table([pa.array(["s"])] * 5, ["segment_id", "video_id", "modality", "probs", "probs"])
    pq.write_table(both, path)
    assert refused(path) == f"{path} has the column probs twice: keep one"


def as_text(table: list[Row], mark: str, *, wide: bool = False) -> str:
    """The rows without embeddings, as a spreadsheet writes them; `wide`: a column of each class."""
    names = ["a", "b", "c"] if wide else ["probs"]
    lines = [mark.join(["segment_id", "video_id", "modality", *names])]
    comma = "," if mark == ";" else "."
    for row in table:
        numbers = [f"{p:.6f}".replace(".", comma) for p in row["probs"] or []]
        said = (numbers or ["", "", ""]) if wide else [f'"{"; ".join(numbers)}"']
        lines.append(mark.join([row["segment_id"], row["video_id"], row["modality"], *said]))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_spreadsheets_table_says_the_same(tmp_path: Path, mark: str, wide: bool) -> None:
    table = [{**row, "embedding": None} for row in rows()]
    table[4]["probs"] = None
    if mark == "," and not wide:
        table = [{**row, "embedding": [0.5, i]} for i, row in enumerate(table)]
    whole = read_predictions(write(tmp_path / "p.parquet", table), ["a", "b", "c"]).views
    path = tmp_path / "p.csv"
    if mark == "," and not wide:  # as `vsa query -o p.csv` writes lists
        lines = ["segment_id,video_id,modality,probs,embedding"]
        for row in table:
            ids = [row[name] for name in ("segment_id", "video_id", "modality")]
            probs = f'"{row["probs"]}"' if row["probs"] else ""
            lines.append(",".join([*ids, probs, f'"{row["embedding"]}"']))
        path.write_text("\n".join(lines))
    else:
        path.write_bytes(as_text(table, mark, wide=wide).encode("utf-16"))
    views = read_predictions(path, ["a", "b", "c"]).views
    assert views.segment_ids.equals(whole.segment_ids)
    assert (views.videos, views.names, views.classes) == (whole.videos, whole.names, whole.classes)
    np.testing.assert_allclose(views.probs["label"], whole.probs["label"], atol=1e-6)
    for v in range(2):
        np.testing.assert_allclose(vectors(views, v), vectors(whole, v))


def test_classes_that_are_not_among_the_columns_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(as_text(rows(), ";", wide=True))
    for given in (None, ["x", "y", "z"]):
        with pytest.raises(UsageError, match=r"lacks the column probs \(or a column of each class"):
            read_predictions(tmp_path / "p.csv", given)


def test_columns_of_our_classes_need_no_names(tmp_path: Path) -> None:
    text = as_text(rows(), ";", wide=True).replace("a;b;c", "negative;neutral;positive", 1)
    (tmp_path / "p.csv").write_text(text)
    views = read_predictions(tmp_path / "p.csv").views
    assert views.classes["label"] == ("negative", "neutral", "positive")


def logits(row: Row, shift: float) -> list[float]:
    return (5 * np.log(row["probs"]) + shift).tolist()


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda row: logits(row, 40), "look like logits: give the softmax of each row"),
        (lambda row: logits(row, 2), "look like logits: give the softmax of each row"),
        (lambda row: logits(row, -9), "look like logits: give the softmax of each row"),
        (lambda row: np.log(row["probs"]).tolist(), "look like log-probabilities: give exp of"),
        (
            lambda row: [0.0, -np.inf, -np.inf] if row["segment_id"] == "s000" else logits(row, 0),
            "look like logits",
        ),
        (lambda row: [100 * p for p in row["probs"]], "sum to 100, percent it seems: divide by"),
        (lambda row: [1000.5 * p for p in row["probs"]], "sum to 1000: divide each row by its sum"),
        (lambda row: [round(9 * p) for p in row["probs"]], "look like counts of votes: divide"),
        (
            lambda row: [p**0.3 for p in row["probs"]],
            "are from 0 to 1 but do not sum to 1, as each class's own yes or no",
        ),
        (lambda row: [0.99 * p for p in row["probs"]], "sums to 0.99, not 1: divide by the sum"),
    ],
)
def test_numbers_that_are_no_probabilities_are_told_apart(
    tmp_path: Path, change: Callable[[Row], list[float]], advice: str
) -> None:
    table = [
        {**row, "probs": change(row) if row["modality"] == "face" else row["probs"]}
        for row in rows()
    ]
    with pytest.raises(UsageError) as caught:
        read_predictions(write(tmp_path / "p.parquet", table))
    assert "column probs: segment 's000' (face) " in str(caught.value)
    assert advice in str(caught.value)


def test_what_a_sum_leaves_below_zero_is_zero(tmp_path: Path) -> None:
    table = rows()
    for row in table:
        row["probs"] = [row["probs"][0], 1 - row["probs"][0] + 1e-9, -1e-9]
    views = read_predictions(write(tmp_path / "p.parquet", table)).views
    assert np.nanmin(views.probs["label"]) == 0


def test_rows_of_zeros_are_a_view_that_saw_nothing(tmp_path: Path) -> None:
    table = rows()
    for i in range(1, 40, 2):
        table[i]["probs"] = [0.0, 0.0, 0.0]
    with pytest.raises(
        UsageError, match=r"\(face\) is all zeros: .* leave probs null, or .* absent"
    ):
        read_predictions(write(tmp_path / "p.parquet", table))


@pytest.mark.parametrize("embedded", [True, False])
def test_a_missing_view_written_as_a_constant_is_named(tmp_path: Path, embedded: bool) -> None:
    table = rows(200)
    gone = [i for i in range(1, 400, 2) if i % 8 == 1]
    for row in table if not embedded else []:
        row["embedding"] = None
    absent = [dict(row) for row in table]
    for i in gone:
        table[i] |= {"probs": [0.98, 0.01, 0.01]}
        table[i]["embedding"] = [0.0, 0.0, 0.0] if embedded else None
        absent[i] |= {"status": "absent", "probs": None, "embedding": None}
    path = write(tmp_path / "p.parquet", table)
    read = read_predictions(path, ["a", "b", "c"])
    [warning] = read.warnings
    assert warning.startswith("face: 50 of 200 rows (25%) are all the same (probs 0.98, 0.01, 0.01")
    assert ("one embedding" in warning) == embedded
    assert "status absent" in warning
    assert read.views.present.all()
    dropped = read_predictions(path, ["a", "b", "c"], drop_constant=True)
    control = read_predictions(write(tmp_path / "q.parquet", absent), ["a", "b", "c"])
    assert dropped.warnings == ()
    [note] = dropped.views.notes
    assert note.endswith("taken for absent")
    same(replace(dropped, views=replace(dropped.views, notes=())), control)


def test_votes_that_are_alike_by_nature_are_no_missing_view(tmp_path: Path) -> None:
    table = rows(200)
    for row in table:
        best = int(np.argmax(row["probs"]))
        hard = np.eye(3)[best] if row["modality"] == "text" else np.full(3, 1 / 3)
        row |= {"probs": hard.tolist(), "embedding": None}
    for i in range(1, 400, 4):
        table[i]["probs"] = [0.5, 0.25, 0.25] if i % 8 == 1 else [0.25, 0.5, 0.25]
    read = read_predictions(write(tmp_path / "p.parquet", table), ["a", "b", "c"])
    assert read.warnings == ()
    assert read.views.notes == (
        "text: probs are all 0 or 1: nothing tells how sure it is",
        "face: 100 rows find all classes alike: no vote there",
    )


def test_rows_that_stand_twice_count_once(tmp_path: Path) -> None:
    once = read_predictions(write(tmp_path / "p.parquet", rows()), ["a", "b", "c"])
    twice = read_predictions(write(tmp_path / "q.parquet", [*rows(), *rows()[:9]]), ["a", "b", "c"])
    assert twice.views.notes == ("9 rows stand in the table twice, all the same: once will do",)
    same(replace(twice, views=replace(twice.views, notes=())), once)


def test_files_as_they_are_found(shared: Path) -> None:
    """A folder per modality, written twice; and what a missing face was written as."""
    found = shared / "faults" / "predictions"
    whole = read_predictions(found / "p0_control.parquet")
    parted = read_predictions(found / "p4_hive")
    assert "600 rows stand in the table twice, all the same: once will do" in parted.views.notes
    same(replace(parted, views=replace(parted.views, notes=whole.views.notes)), whole)
    for name, complaint in (
        ("p1_logits_above_zero", "look like logits"),
        ("p2_missing_is_zeros", "is all zeros"),
    ):
        with pytest.raises(UsageError, match=complaint):
            read_predictions(found / f"{name}.parquet")
    constant = read_predictions(found / "p3_missing_is_constant.parquet")
    assert constant.warnings[0].startswith("face: 90 of 300 rows (30%) are all the same")
    assert read_predictions(found / "p3_control_absent.parquet").warnings == ()
    assert whole.warnings == ()
