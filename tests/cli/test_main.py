"""What every verb has in common: help, exit codes, one line for whatever goes wrong."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import REPO
from vsa_core import __version__
from vsa_core.cli import main
from vsa_core.cli.arguments import VERBS, parser
from vsa_core.cli.exits import Exit
from vsa_core.errors import BackendError, ConfigError

_ENTRY = "import sys; from vsa_core.cli import main; sys.exit(main())"


def vsa(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", _ENTRY, *arguments],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def choosing(monkeypatch: pytest.MonkeyPatch, run: object) -> None:
    """Let `vsa status` do this instead."""
    real = importlib.import_module
    stub = SimpleNamespace(run=run)
    monkeypatch.setattr(
        "vsa_core.cli.importlib.import_module",
        lambda name: stub if name == "vsa_core.cli.status" else real(name),
    )


def raising(error: BaseException) -> object:
    def run(_: argparse.Namespace) -> int:
        raise error

    return run


def test_help_and_version_import_nothing_heavy() -> None:
    heavy = "av cv2 duckdb numpy pandas prefect pyarrow pydantic rich torch transformers yaml"
    script = (
        "import sys, contextlib, io\n"
        "from vsa_core.cli import main\n"
        "for argument in ('--help', '--version'):\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        main([argument])\n"
        f"print([name for name in {heavy.split()} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"vsa {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        (),
        *[(verb,) for verb in VERBS],
        ("predict", "text"),
        ("predict", "image"),
        ("models", "list"),
        ("models", "pull"),
        ("models", "add"),
        ("models", "remove"),
        ("models", "path"),
        ("store", "verify"),
        ("store", "compact"),
    ],
)
def test_every_help_has_an_example_that_parses(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "example:" in text
    import shlex

    for typed in " ".join(text.partition("example:")[2].split()).split("&&"):
        command = typed.rpartition("|")[2] if '"SELECT' not in typed else typed
        parser().parse_args(shlex.split(command)[1:])


def test_every_verb_has_its_module() -> None:
    for verb in VERBS:
        assert callable(importlib.import_module(f"vsa_core.cli.{verb}").run)


def test_the_contract_of_run() -> None:
    typed = "run a b --store s --config c --profile p --limit 3 --offline --json"
    args = parser().parse_args(typed.split())
    assert vars(args) == {
        "verb": "run",
        "sources": ["a", "b"],
        "store": "s",
        "config": Path("c"),
        "profile": "p",
        "limit": 3,
        "offline": True,
        "json": True,
    }


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nope"],
        ["run"],
        ["run", "x", "--limit", "0"],
        ["run", "x", "--limit", "many"],
        ["query"],
        ["query", "SELECT 1", "--format", "xml"],
        ["query", "SELECT 1", "--format", "parquet"],
        ["query", "SELECT 1", "--param", "x"],
        ["predict"],
        ["predict", "text"],
        ["predict", "image"],
        ["predict", "text", "-", "--profile", "nope"],
        ["predict", "text", "-", "--config", "no-such-file.yaml"],
        ["models"],
        ["models", "path"],
        ["models", "path", "nope"],
        ["models", "pull", "nope"],
        ["store"],
        ["status", "extra"],
    ],
)
def test_bad_usage_is_one_line_and_2(
    words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vsa: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["query", "SELECT 1"],
        ["query", "@coverage"],
        ["status"],
        ["status", "--json"],
        ["store", "verify"],
        ["store", "compact"],
    ],
)
def test_a_missing_store_says_how_to_make_one(
    words: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "none"
    assert main([*words, "--store", str(root)]) == 2
    assert capsys.readouterr().err == (
        f"vsa: no store at {root}: run `vsa run SOURCE --store {root}` first\n"
    )
    assert not root.exists()


# For every verb something that is not there: a file, a folder, a store, settings, a name.
_NOT_THERE = (
    "run {}", "run {0} {0}/x.txt", "run . --config {}", "run . --profile nope", "run . --nope",
    "relabel --store {}", "relabel --config {}", "label {} -o out.parquet",
    "label . -o {}/x/out.parquet", "query SELECT --store {}", "query @nope", "status --store {}",
    "predict text {}", "predict image {}", "predict text - --config {}", "meld prepare {}",
    "train meld {} --out out", "train segments --labels {} --out out", "evaluate {0} {0}",
    "export {} --out out", "classify {0} {0}", "models add yunet {}", "models pull nope",
    "models list --config {}", "models fusion list --store {}", "store verify --store {}",
    "store compact --store {}", "store migrate --store {}", "forget x --store {}",
    "forget x --config {}", "experiment nope", "experiment mosi --data {}",
)  # fmt: skip


@pytest.mark.parametrize("typed", _NOT_THERE)
def test_what_is_not_there_is_2_for_every_verb(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(typed.format("no/such").split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vsa: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_every_verb_is_asked_for_what_is_not_there() -> None:
    assert {typed.split()[0] for typed in _NOT_THERE} == set(VERBS)


@pytest.mark.parametrize("nothing", ["", " ", "\t"])
@pytest.mark.parametrize(
    "words",
    [
        ["run", "{}"],
        ["run", "x.mp4", "{}"],
        ["run", ".", "--store={}"],
        ["run", ".", "--config", "{}"],
        ["run", ".", "--profile", "{}"],
        ["query", "{}"],
        ["query", "SELECT 1", "-o", "{}"],
        ["status", "--store", "{}"],
        ["label", "{}", "-o", "x"],
        ["label", "x", "-o", "{}"],
        ["predict", "image", "{}"],
        ["classify", "{}", "x"],
        ["models", "add", "yunet", "{}"],
        ["forget", "{}"],
        ["experiment", "digits", "--out", "{}"],
    ],
)
def test_a_variable_that_is_not_set_is_no_argument(
    words: list[str],
    nothing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([word.format(nothing) for word in words]) == 2
    assert "is empty: is a variable not set?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_empty_text_is_a_text() -> None:
    assert parser().parse_args(["classify", "m", "v", "--text", ""]).text == ""


def test_help_and_readme_have_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    for code in Exit:
        assert f"{code.value} {code.meaning}" in said
        assert f"| {code.value} | {code.meaning} |" in readme


_STREAMS = [
    ("query --list", 1),  # longer than a buffer, and written at once
    ("--version", 1),
    ("--help", 1),
    ("query SELECT\\ 1 --store {}", 1),
    ("query SELECT\\ 1 -o {0}/out.csv --store {0}", 0),  # nothing is to be printed
    ("status --store {}", 1),
    ("status --store no/such", 2),
    ("run no/such", 2),
]


@pytest.mark.parametrize("way", [">&-", ">/dev/full"])
@pytest.mark.parametrize(("typed", "code"), _STREAMS)
def test_output_that_goes_nowhere_is_one_line(
    typed: str, code: int, way: str, tmp_path: Path
) -> None:
    (tmp_path / "store" / "runs").mkdir(parents=True)
    command = f"{sys.executable} -c '{_ENTRY}' {typed.format(tmp_path / 'store')} {way}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == (code != 0)
    assert ("the output cannot be written" in done.stderr) == (code == 1)
    assert "unexpected" not in done.stderr


@pytest.mark.parametrize("way", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_a_message_nobody_hears_changes_no_code(way: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -c '{_ENTRY}' status --store {tmp_path / 'none'} {way}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "free some, or set TMPDIR and VSA_CACHE_DIR"),
        (PermissionError(13, "Permission denied", "/x/y"), "/x/y: Permission denied: choose"),
        (OSError(30, "Read-only file system", "/cache/x"), "/cache/x: Read-only file system: set "),
    ],
)
def test_what_the_system_refuses_names_the_place_and_what_to_set(
    error: OSError,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    choosing(monkeypatch, raising(error))
    monkeypatch.setenv("VSA_CACHE_DIR", "/cache")
    assert main(["status"]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert "unexpected" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BackendError("no weights:\n pull them"), 1, "vsa: no weights: pull them\n"),
        (ConfigError("bad value"), 2, "vsa: bad value\n"),
        (KeyboardInterrupt(), 130, "vsa: interrupted\n"),
        (
            KeyError("a\nb"),
            1,
            "vsa: unexpected KeyError: 'a\\nb' (set VSA_DEBUG=1 for the traceback)\n",
        ),
    ],
)
def test_whatever_happens_is_one_line(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    choosing(monkeypatch, raising(error))
    monkeypatch.delenv("VSA_DEBUG", raising=False)
    assert main(["status"]) == code
    assert capsys.readouterr().err == said


def test_the_traceback_is_there_for_whoever_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choosing(monkeypatch, raising(KeyError("a")))
    monkeypatch.setenv("VSA_DEBUG", "1")
    assert main(["status"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "store" / "runs").mkdir(parents=True)
    command = [sys.executable, "-c", _ENTRY, "query", "FROM range(1_000_000)"]
    with subprocess.Popen(
        [*command, "--format", "csv", "--store", str(tmp_path / "store")],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"range\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


@pytest.mark.usefixtures("fakes_in_children")
def test_output_that_the_terminal_cannot_show_does_not_break_it(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff\xe9.png"
    Path(os.fsdecode(odd)).write_text("no picture")
    config = tmp_path / "fake.yaml"
    config.write_text("backends: {face: {name: fake-face}}", encoding="utf-8")
    done = vsa(
        "predict",
        "image",
        os.fsdecode(odd),
        "--config",
        str(config),
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 3
    assert "is no picture" in done.stdout
    assert done.stderr == ""


def test_the_nearest_of_what_could_be_typed_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "clips").mkdir()
    table = tmp_path / "t.csv"
    table.write_text("segment_id\na\n")
    for typed, meant in (
        (["stauts"], "did you mean status?"),
        (["store", "verfy"], "did you mean verify?"),
        (["models", "lst"], "did you mean list?"),
        (["run", str(tmp_path / "clip")], f"did you mean {tmp_path / 'clips'}?"),
        (
            ["label", str(table), "-o", str(tmp_path / "o.csv"), "--strategy", "crosview"],
            "did you mean crossview?",
        ),
    ):
        assert main(typed) == Exit.BAD_USAGE
        err = capsys.readouterr().err
        assert meant in err
        assert err.count("\n") == 1
    assert main(["run", str(tmp_path / "none" / "of" / "it")]) == Exit.BAD_USAGE
    assert "did you mean" not in capsys.readouterr().err
