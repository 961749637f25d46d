"""What is scored, and what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vsa_core.errors import UsageError
from vsa_core.experiments.regimes import REGIMES, draw
from vsa_core.experiments.study import SEGMENTS, Outcome, compare, prepare, scored, write
from vsa_core.experiments.supervised import supervised
from vsa_core.fusion.views import views_from_arrays


def test_segments_that_agree_disagree_or_were_seen_by_one_view() -> None:
    sure, other, none = [0.8, 0.2], [0.4, 0.6], [np.nan, np.nan]
    probs = np.array([[sure, sure], [sure, other], [other, other], [sure, none]])
    views = views_from_arrays(
        np.array(list("aabb")), probs, [None, None], names=("x", "y"), classes=("no", "yes")
    )
    opinion = np.array([sure, sure, none, sure])
    rows = {row["segments"]: row for row in scored(views, opinion, np.array([0, 1, 1, 0]))}
    assert tuple(rows) == SEGMENTS
    assert [rows[s]["rows"] for s in SEGMENTS] == [4, 2, 1]
    assert [rows[s]["coverage"] for s in SEGMENTS] == [0.75, 0.5, 1.0]
    assert rows["all"]["accuracy"] == pytest.approx(2 / 3)
    assert rows["disagreeing"]["accuracy"] == 0
    assert rows["agreeing"]["ece"] == pytest.approx(0.2)


def test_the_best_view_is_the_one_that_is_right_most_often() -> None:
    drawn = draw(REGIMES["missing"], 0)
    rows = compare(drawn.views, drawn.truth, 0, ("late-product",))
    f1 = {row["strategy"]: row["macro_f1"] for row in rows if row["segments"] == "all"}
    assert list(f1) == ["random", "text", "face", "best-single", "late-product", "supervised"]
    assert f1["best-single"] == f1["text"]
    assert f1["random"] == pytest.approx(1 / 3, abs=0.04)
    assert f1["face"] < f1["text"] < f1["late-product"] < f1["supervised"]


def test_true_labels_of_a_video_do_not_help_to_label_it() -> None:
    drawn = draw(REGIMES["n300"], 0)
    shuffled = np.random.default_rng(0).permutation(drawn.truth)
    said = supervised(drawn.views, shuffled, (0.03,)).argmax(axis=1)
    assert (said == shuffled).mean() == pytest.approx(1 / 3, abs=0.09)


def test_of_several_ridges_one_is_chosen_by_whole_videos() -> None:
    drawn = draw(REGIMES["n300"], 1)
    weak, strong = (supervised(drawn.views, drawn.truth, (c,)) for c in (1e-9, 0.01))
    chosen = supervised(drawn.views, drawn.truth, (1e-9, 0.01))
    assert np.array_equal(chosen, strong)
    assert not np.array_equal(chosen, weak)


def test_an_outcome_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    table = pa.table({"x": [1, 2]})
    good = Outcome({"results": table}, "# found\n", {"dots": Figure()})
    files = write(good, tmp_path)
    assert [path.name for path in files] == ["results.parquet", "dots.png", "summary.md"]
    assert pq.read_table(files[0]).equals(table)
    before = [path.read_bytes() for path in files]
    write(good, tmp_path)
    assert [path.read_bytes() for path in files] == before

    class Broken(Figure):
        def savefig(self, fname: Path, **_: object) -> None:
            fname.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(Outcome({}, "# lost\n", {"dots": Broken()}), tmp_path)
    assert [path.read_bytes() for path in files] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in files)


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--out .*file/x: .*take another folder"):
        prepare(tmp_path / "file" / "x")
    prepare(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
