"""A store asked and a command run in a notebook: in a real kernel, without ipywidgets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from tests.conftest import REPO
from tests.small_store import small_store

Cell = Callable[[str], str]

_BARS = """
import sys, time
from vsa_core.cli.run import _Bars
from vsa_core.cli.screen import progress_console
from vsa_core.cli.stopping import Stop
bars = _Bars(progress_console(), Stop("here"))
print(sys.stderr.isatty(), flush=True)
with bars.progress:
    bars.begin("face", 20)
    for _ in range(20):
        time.sleep(0.05)
        bars.advance("face", 1)
"""


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    """Runs a cell, and gives what it shows."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "bars.py").write_text(_BARS)
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPO),
        "IPYTHONDIR": str(folder),
        "STORE": str(small_store(folder / "store").root),
    }
    manager, client = start_new_kernel(env=environment, cwd=str(folder))

    def run(code: str) -> str:
        shown: list[str] = []

        def take(message: dict[str, Any]) -> None:
            content = message["content"]
            shown.append(content.get("text") or content.get("data", {}).get("text/plain") or "")

        reply = client.execute_interactive(code, timeout=120, output_hook=take)
        content = reply["content"]
        assert content["status"] == "ok", f"{content['ename']}: {content['evalue']}"
        return "".join(shown)

    try:
        run("import os, sys; store = os.environ['STORE']")
        run("from vsa_core.query import ask; from vsa_core.store import Store")
        yield run
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_an_answer_is_a_data_frame(cell: Cell) -> None:
    cell("frame = ask(Store(store), 'FROM labels ORDER BY segment_id').table().to_pandas()")
    shown = cell("print(type(frame).__name__, len(frame), frame.video_id[0])")
    assert shown.split() == ["DataFrame", "5", "v01"]


def test_a_long_question_draws_no_bar(cell: Cell) -> None:
    slow = "SELECT sum(a.range * b.range) AS n FROM range(60_000) a, range(50_000) b"
    shown = cell(f"print(ask(Store(store), '{slow}').table().num_rows)")
    assert shown.split() == ["1"]


def test_the_command_is_a_function(cell: Cell) -> None:
    shown = cell(
        "from vsa_core.cli import main\n"
        "print('code', main(['query', 'SELECT count(*) AS n FROM labels', '--store', store]))"
    )
    assert shown.split() == ["n", "5", "code", "0"]
    assert "did you mean @coverage?" in cell("main(['query', 'coverage', '--store', store])")


def test_a_command_of_a_cell_redraws_no_bar(cell: Cell) -> None:
    """`!` gives it a terminal, of which the notebook shows every state below the last."""
    shown = cell("!{sys.executable} bars.py").split("\n")
    said = [line.strip() for line in shown if line.strip()]
    assert said[0] == "True"
    assert len(said) == 2, said
    assert said[1].startswith("Faces: 20 done in")
