"""What FFmpeg does to a process costs one file: crashes, bombs, endless work, and who is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests import bad_media
from tests.conftest import REPO
from vsa_core import decoders, media
from vsa_core.errors import MediaError


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No process waits from a test before, nor for the one after."""
    decoders.close()
    yield
    decoders.close()
    assert processes() == []


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of picture and sound: more than fits into a pipe."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    pictures = bad_media.film(300, 320, 240)
    return bad_media.write(path, pictures, bad_media.sweep(60), size=(320, 240), fps=5)


def processes(of: int | None = None) -> list[psutil.Process]:
    """Those that decode for a process, dead ones left out."""
    found = []
    for process in psutil.Process(of).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("vsa_core.decoding" in word for word in process.cmdline()):
                found.append(process)
    return found


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL", "SIGBUS"])
def test_a_crash_costs_the_file_that_is_decoded(film: Path, name: str) -> None:
    frames = media.frames(film, 5)
    next(frames)
    (process,) = processes()
    process.send_signal(signal.Signals[name])
    with pytest.raises(MediaError) as caught:
        list(frames)
    assert str(caught.value) == (f"{film}: decoding was ended by {name}: fetch or export it again")
    assert media.probe(film).duration_ms == 60_000
    assert len(media.audio_between(film, 1000, 2000)) == media.SAMPLE_RATE_HZ


def test_a_bomb_runs_out_of_its_memory_and_the_next_file_does_not(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = bad_media.make("8k", tmp_path)
    for megabytes in (50, 70):
        monkeypatch.setattr(decoders, "MEMORY_BYTES", 1_000_000 * megabytes)
        with pytest.raises(
            MediaError, match=r"8k\.mp4: decoding ran out of its memory limit \(0\.0"
        ):
            media.probe(huge)
        assert media.probe(film).has_video


def test_endless_work_ends(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "CPU_S", 0.5)
    sound = media.audio(film, 0.00007, duration_ms=1)  # a message for each of a million samples
    with pytest.raises(MediaError, match=r"film\.mp4: decoding took more than 1 s"):
        list(sound)
    assert media.probe(film).has_audio


def test_a_process_serves_many_files_and_what_is_asked_of_it_ends(film: Path) -> None:
    whole = [(frame.time_ms, frame.rgb.sum()) for frame in media.frames(film, 1)]
    (process,) = processes()
    for _ in range(5):
        frames = media.frames(film, 5)
        next(frames)
        frames.close()  # a pipe full of frames nobody wants
        sound = media.audio(film, 0.1)
        next(sound)
        sound.close()
        with pytest.raises(MediaError):
            media.probe(Path("nothing.mp4"))
        with pytest.raises(MediaError, match="not a video this can decode"):
            media.probe(Path(__file__))
    assert [(frame.time_ms, frame.rgb.sum()) for frame in media.frames(film, 1)] == whole
    assert processes() == [process]


def test_several_threads_have_a_process_each(film: Path) -> None:
    due = media.audio_between(film, 10_000, 12_000)

    def work(number: int) -> None:
        frames = media.frames(film, 1, 64, start_ms=1000 * number, end_ms=1000 * number + 2000)
        for frame, span in zip(frames, range(3), strict=True):
            assert frame.time_ms == 1000 * (number + span)
            np.testing.assert_array_equal(media.audio_between(film, 10_000, 12_000), due)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(12)))
    # Each thread had one for its frames and one for its sound; few are kept.
    assert 1 <= len(processes()) <= max(1, os.cpu_count() or 1)


def test_one_that_idles_is_not_asked_when_it_may_be_about_to_end(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media.probe(film)
    (first,) = processes()
    monkeypatch.setattr(decoders, "_IDLE_S", 0.0)
    media.probe(film)
    assert first not in processes()


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="the limits are not told here")
def test_a_process_may_write_nothing(film: Path) -> None:
    media.probe(film)
    (process,) = processes()
    said = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
    limits = {line[:26].strip(): line[26:].split()[0] for line in said.splitlines()[1:]}
    assert limits["Max file size"] == "0"
    assert limits["Max core file size"] == "0"
    assert int(limits["Max open files"]) <= 64
    assert decoders.MEMORY_BYTES < int(limits["Max address space"]) < 3 * decoders.MEMORY_BYTES
    assert decoders.CPU_S <= int(limits["Max cpu time"]) < 2 * decoders.CPU_S
    assert process.num_threads() <= 3
    assert os.getpgid(process.pid) != os.getpgid(0)  # Ctrl-C is for the run


def test_nobody_is_left_when_the_run_is_killed(film: Path) -> None:
    """Nor where a process that it forked holds its pipes open."""
    script = """
        import os, sys, time
        from pathlib import Path
        from vsa_core import media

        frames = media.frames(Path(sys.argv[1]), 5)
        next(frames)
        if not os.fork():
            time.sleep(60)
        print("ready", flush=True)
        time.sleep(60)
    """
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), film], cwd=REPO, stdout=subprocess.PIPE
    )
    assert run.stdout
    assert run.stdout.readline() == b"ready\n"
    (process,) = processes(run.pid)
    sleeper = next(p for p in psutil.Process(run.pid).children() if p != process)
    run.kill()
    run.wait()
    try:
        process.wait(10)
        assert not process.is_running()
    finally:
        sleeper.kill()
        run.stdout.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_a_forked_process_has_decoders_of_its_own(film: Path) -> None:
    script = """
        import os, sys
        from pathlib import Path
        from vsa_core import media

        film = Path(sys.argv[1])
        due = media.probe(film)
        children = [os.fork() for _ in range(1)]
        for _ in range(20):
            assert media.probe(film) == due
            assert len(media.audio_between(film, 0, 1000)) == 16000
        if children[0]:
            _, status = os.waitpid(children[0], 0)
            assert status == 0
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), film], cwd=REPO, check=True, timeout=60
    )


def test_what_does_not_start_says_why(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_START", "raise SystemExit('no numpy here')")
    with pytest.raises(MediaError, match="decoding ended with exit status 1: no numpy here"):
        media.probe(film)


def test_many_small_files_start_one_process(tmp_path: Path) -> None:
    made = bad_media.write(tmp_path / "0.mp4", bad_media.film(5), bad_media.sweep(0.2))
    for number in range(1, 60):
        (tmp_path / f"{number}.mp4").write_bytes(made.read_bytes())
    media.probe(made)
    (process,) = processes()
    began = time.perf_counter()
    for number in range(60):
        assert media.probe(tmp_path / f"{number}.mp4").has_audio
    assert processes() == [process]
    assert time.perf_counter() - began < 10  # a start for each would be twice that
