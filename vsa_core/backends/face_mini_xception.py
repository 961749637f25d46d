"""The face backend that runs anywhere: what mini-XCEPTION or big_XCEPTION reads in each face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vsa_core.backends.face_detect import Boxes, Image, grey_of
from vsa_core.backends.faces import FaceBackend, Looking, backend_id
from vsa_core.backends.mini_xception import INPUT_PX, Xception, load_network
from vsa_core.weights import resolve

# Part of the id: raise it with any change to what is cut out or read.
_CODE_VERSION = 1


def load(
    detector: str = "haar",
    frames_per_s: float = 2.0,
    min_face: float = 0.12,
    min_track_frames: int = 3,
    weights: str | Path | None = None,
    detector_weights: str | Path | None = None,
) -> FaceBackend:
    """The face backend; nothing is downloaded.

    Args:
        detector, frames_per_s, min_face, min_track_frames, detector_weights: see `Looking`.
        weights: another HDF5 file of mini-XCEPTION, or one of big_XCEPTION, by path or as
            `vsa models list` names it; null for the published mini-XCEPTION.

    Raises:
        ConfigError: an option that makes no sense.
        BackendError: a file is missing, altered or cannot be used.
    """
    looking = Looking.checked(detector, frames_per_s, min_face, min_track_frames, detector_weights)
    network, sha256 = load_network(None if weights is None else resolve(str(weights)))
    id = backend_id("face-mini-xception", _CODE_VERSION, sha256, *looking.made_from())
    return FaceBackend(id, GreyFaces(network), looking)


class GreyFaces:
    """A network of grey squares behind `FaceNetwork`; 512 of them wait, 2 MB."""

    at_once = 512

    def __init__(self, network: Xception) -> None:
        self.dim = network.embedding_dim
        self._network = network

    def cut(self, image: Image, boxes: Boxes, crop_scale: float) -> Sequence[NDArray[np.uint8]]:
        """(side, side) uint8 for each box; see `face_crops`."""
        return list(face_crops(image, boxes, crop_scale, self._network.input_px))

    def read(
        self, cut: Sequence[NDArray[np.uint8]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `FaceNetwork.read`."""
        return self._network.classify(np.stack(cut))


def face_crops(
    image: Image, boxes: Boxes, scale: float, side_px: int = INPUT_PX
) -> NDArray[np.uint8]:
    """Grey squares around faces, as the network was trained to see them: forehead to chin.

    The square has `scale` times the box's longer side (for `haar` a tenth more on each side, as
    `fer` pads a face of 100 px by 10); beyond the picture its edge is repeated. On the clips at
    hand the network is surest about that margin, and wavers from a fifth on.

    Args:
        image: (height, width, 3) RGB or (height, width) grey.
        boxes: (n, 4) in px of that picture.
        scale: see `Detector.crop_scale`.
        side_px: of the squares that come out.

    Returns:
        (n, side_px, side_px) uint8.
    """
    grey = grey_of(image)
    crops = np.empty((len(boxes), side_px, side_px), np.uint8)
    for row, (x, y, width, height) in enumerate(boxes.tolist()):
        side = max(2, round(scale * max(width, height)))
        left, top = round(x + (width - side) / 2), round(y + (height - side) / 2)
        columns = np.arange(left, left + side).clip(0, grey.shape[1] - 1)
        lines = np.arange(top, top + side).clip(0, grey.shape[0] - 1)
        shrink = cv2.INTER_AREA if side > side_px else cv2.INTER_LINEAR
        square = grey[lines[:, None], columns]
        crops[row] = cv2.resize(square, (side_px, side_px), interpolation=shrink)
    return crops
