"""The other packages' own calls, run in their own environment by benchmarks/faces.py.

    PEER/bin/python face_peer.py fer|deepface IN.npz OUT.npz

IN.npz: `frames` (n, h, w, 3) BGR, `rounds`, and crops to read without detection: `grey` (m, 64, 64)
for fer, `bgr` (m, s, s, 3) for DeepFace. One thread each; the first frame is a warm-up.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

WORDS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
Read = Callable[[Any], "list[tuple[Any, dict[str, float]]]"]


def timed(read: Read, frames: Any, rounds: int) -> dict[str, Any]:
    """Seconds a round (the best), and of each frame's largest face its box and probabilities."""
    read(frames[0])
    seconds = []
    for _ in range(rounds):
        begun = time.process_time()
        found = [read(frame) for frame in frames]
        seconds.append(time.process_time() - begun)
    boxes = np.zeros((len(frames), 4))
    probs = np.full((len(frames), len(WORDS)), np.nan)
    for row, faces in enumerate(found):
        if faces:
            box, emotions = max(faces, key=lambda face: face[0][2] * face[0][3])
            boxes[row], probs[row] = box, [emotions[word] for word in WORDS]
    faces = sum(len(one) for one in found)
    return {"seconds": min(seconds), "faces": faces, "boxes": boxes, "probs": probs}


def fer(given: Any) -> dict[str, Any]:
    """`FER().detect_emotions(frame)`: its default, TFLite in 8 bits, and its Keras network."""
    import tensorflow as tf
    from fer.fer import FER

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    out: dict[str, Any] = {}
    scaled = (given["grey"].astype(np.float32) / 255 - 0.5) * 2
    for name, tflite in (("tflite", True), ("keras", False)):
        detector = FER(mtcnn=False, use_tflite=tflite)

        def read(frame: Any, detector: Any = detector) -> Any:
            return [(f["box"], f["emotions"]) for f in detector.detect_emotions(frame)]

        for key, value in timed(read, given["frames"], int(given["rounds"])).items():
            out[f"{name}_{key}"] = value
        shown = scaled if tflite else scaled[..., None]
        out[f"{name}_crops"] = np.asarray(detector._classify_emotions(shown))
    return out


def deepface(given: Any) -> dict[str, Any]:
    """`DeepFace.analyze(frame, actions=["emotion"], detector_backend="opencv")`.

    Beside it the same without alignment, and the faces of both that it would show its network.
    """
    import torch
    from deepface import DeepFace

    torch.set_num_threads(1)
    out: dict[str, Any] = {}
    for name, align in (("aligned", True), ("upright", False)):

        def read(frame: Any, align: bool = align) -> Any:
            found = DeepFace.analyze(
                frame,
                actions=["emotion"],
                detector_backend="opencv",
                enforce_detection=False,  # else it raises where it sees nobody
                align=align,
                silent=True,
            )
            return [
                ([one["region"][key] for key in "xywh"], percent(one["emotion"]))
                for one in found
                if one["face_confidence"] > 0
            ]

        for key, value in timed(read, given["frames"], int(given["rounds"])).items():
            out[f"{name}_{key}"] = value
        out[f"{name}_grey"] = np.stack([largest(frame, align) for frame in given["frames"]])
    out["crops"] = np.array(
        [
            list(percent(said[0]["emotion"]).values())
            for said in (
                DeepFace.analyze(crop, actions=["emotion"], detector_backend="skip", silent=True)
                for crop in given["bgr"]
            )
        ]
    )
    return out


def percent(emotion: dict[str, float]) -> dict[str, float]:
    """Its percentages as probabilities, in the order of `WORDS`."""
    return {word: float(emotion[word]) / 100 for word in WORDS}


def largest(frame: Any, align: bool) -> Any:
    """(64, 64) grey of the largest face DeepFace cuts out; black where it finds none."""
    from deepface import DeepFace

    found = DeepFace.extract_faces(
        frame, detector_backend="opencv", enforce_detection=False, align=align
    )
    faces = [one for one in found if one["confidence"] > 0]
    if not faces:
        return np.zeros((64, 64), np.uint8)
    best = max(faces, key=lambda one: one["facial_area"]["w"])
    rgb = np.rint(best["face"] * 255).astype(np.uint8)
    return cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA)


def main() -> None:
    which, source, target = sys.argv[1:]
    cv2.setNumThreads(1)
    given = np.load(Path(source))
    np.savez(Path(target), **{"fer": fer, "deepface": deepface}[which](given))


if __name__ == "__main__":
    main()
