"""The face backend on DeepFace's networks, in PyTorch: its emotions and its `represent` vectors.

The networks are DeepFace's own (serengil/deepface 0.0.103, MIT), built by its code and filled from
its `.pth` files. Its detectors, its downloads and its engines are not used: faces come from our
detectors and tracks, many at once instead of one by one, and nothing of DeepFace asks for
TensorFlow or touches `~/.deepface`.

A face gets to the networks as in `DeepFace.analyze` and `DeepFace.represent`, but for one step: it
is not turned until the eyes are level. DeepFace turns it where OpenCV's eye cascade finds two eyes.
On the clips at hand that was in 49 of 87 faces, by 4° at the median and up to 74° where it took a
nostril for an eye; the search takes 20 to 50 ms a face, where all the rest takes 10; and FER-2013,
of which the network learned, has nobody turned. benchmarks/RESULTS.md says how many labels differ.

The embedding is the recognition network's vector, which knows who somebody is and was never taught
an emotion. Without a recognition network it is what the emotion network's last layer reads: that
layer was trained for the label, so the embedding holds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from deepface.models.demography.DemographyUtils import EMOTION_LABELS
from deepface.models.demography.pytorch.Emotion import EmotionModel
from deepface.models.facial_recognition.pytorch.Facenet import ConvBn, InceptionResNetV1
from deepface.models.facial_recognition.pytorch.VGGFace import VggFaceBaseModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vsa_core.backends.checkpoints import precision_of
from vsa_core.backends.face_detect import Boxes, Image
from vsa_core.backends.faces import FaceBackend, Looking, backend_id
from vsa_core.backends.int8 import quantise
from vsa_core.errors import BackendError, ConfigError
from vsa_core.labels import EMOTIONS, Emotion
from vsa_core.weights import find, resolve
from vsa_core.weights.hashes import digest

# Part of the id: raise it with any change to what is cut out or read.
_CODE_VERSION = 1

# What DeepFace calls our emotions.
_WORDS = {
    "angry": Emotion.ANGER,
    "disgust": Emotion.DISGUST,
    "fear": Emotion.FEAR,
    "happy": Emotion.JOY,
    "sad": Emotion.SADNESS,
    "surprise": Emotion.SURPRISE,
    "neutral": Emotion.NEUTRAL,
}
_ORDER = [[_WORDS[word] for word in EMOTION_LABELS].index(emotion) for emotion in EMOTIONS]

_EMOTION_FILE = "facial_expression_model_weights.pth"
_EMOTION_PX = 48
# DeepFace brings a face to this before it makes it grey and small, for all its attributes alike.
_ATTRIBUTE_PX = 224
_HIDDEN = 1024
# Faces per pass: the maps of as many stay in a core's cache.
_CHUNK = 16


@dataclass(frozen=True, slots=True)
class _Recognition:
    """One of DeepFace's recognition networks.

    Attributes:
        weights: its name in the catalogue.
        file: as DeepFace calls it.
        side_px: of the square it looks at.
        dim: width of its vector.
        build: an empty network.
        vector: from (B, 3, side, side) in BGR to (B, dim).
    """

    weights: str
    file: str
    side_px: int
    dim: int
    build: Callable[[], nn.Module]
    vector: Callable[[Any, Tensor], Tensor]


RECOGNITION: Mapping[str, _Recognition] = {
    "Facenet512": _Recognition(
        "deepface-facenet512",
        "facenet512_weights.pth",
        160,
        512,
        lambda: InceptionResNetV1(dimension=512),
        lambda network, bgr: network(bgr),
    ),
    "VGG-Face": _Recognition(
        "deepface-vggface",
        "vgg_face_weights.pth",
        224,
        4096,
        VggFaceBaseModel,
        lambda network, bgr: nn.functional.normalize(network.embed(bgr)),
    ),
}


def load(
    detector: str = "haar",
    frames_per_s: float = 2.0,
    min_face: float = 0.12,
    min_track_frames: int = 3,
    recognition: str | None = "Facenet512",
    weights: str | Path | None = None,
    recognition_weights: str | Path | None = None,
    detector_weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> FaceDeepFace:
    """The face backend; nothing is downloaded, and the networks are loaded at their first use.

    Args:
        detector, frames_per_s, min_face, min_track_frames, detector_weights: see `Looking`.
        recognition: the network of the embedding, one of `RECOGNITION`; null for none.
        weights, recognition_weights: the `.pth` file, the folder it is in, or a name of
            `vsa models list`; null for the published ones.
        device, precision: see `precision_of`; int8 is for linear layers, the rest is float32.

    Raises:
        ConfigError: an option that makes no sense.
        BackendError: a file is missing, altered or holds another network.
    """
    looking = Looking.checked(detector, frames_per_s, min_face, min_track_frames, detector_weights)
    if recognition is not None and recognition not in RECOGNITION:
        raise ConfigError(
            f"recognition is {recognition!r}: give one of {', '.join(RECOGNITION)}, or null"
        )
    if recognition is None and recognition_weights is not None:
        raise ConfigError("recognition_weights without recognition: leave it out, or name one")
    resolved = precision_of(precision, device)
    emotion = _file(weights, "deepface-emotion", _EMOTION_FILE)
    _filled(EmotionModel, emotion)  # so that a wrong file is told now; its pages are not read
    files = [emotion]
    if recognition is not None:
        kind = RECOGNITION[recognition]
        files.append(_file(recognition_weights, kind.weights, kind.file))
        _filled(kind.build, files[-1])
    id = backend_id(
        "face-deepface",
        _CODE_VERSION,
        recognition,
        [digest(path) for path in files],
        resolved[1],
        *looking.made_from(),
    )
    return FaceDeepFace(id, DeepFaceNetworks(files, recognition, *resolved), looking)


class FaceDeepFace(FaceBackend):
    """Faces read by DeepFace's networks."""

    def __init__(self, id: str, network: DeepFaceNetworks, looking: Looking) -> None:
        super().__init__(id, network, looking)
        self._networks = network

    def unload(self) -> None:
        """Free the networks; the next video loads them again."""
        self._networks.unload()


@dataclass(frozen=True, slots=True)
class FaceCut:
    """What the networks see of one face, values in [0, 1].

    Attributes:
        grey: (48, 48) float32.
        bgr: (side, side, 3) float32; None without a recognition network.
    """

    grey: NDArray[np.float32]
    bgr: NDArray[np.float32] | None


class DeepFaceNetworks:
    """The emotion and the recognition network behind `FaceNetwork`.

    64 faces wait, 20 MB. Several threads may use it at once.
    """

    at_once = 64

    def __init__(
        self, files: Sequence[Path], recognition: str | None, device: str, precision: str
    ) -> None:
        self._recognition = None if recognition is None else RECOGNITION[recognition]
        self.dim = _HIDDEN if self._recognition is None else self._recognition.dim
        self._files = list(files)
        self._device, self._precision = device, precision
        self._networks: list[nn.Module] | None = None
        self._lock = threading.Lock()

    def cut(self, image: Image, boxes: Boxes, crop_scale: float) -> list[FaceCut]:  # noqa: ARG002
        """As `FaceNetwork.cut`; the box is the detector's own, as DeepFace takes it."""
        side_px = None if self._recognition is None else self._recognition.side_px
        return [
            face_cut(image[y : y + height, x : x + width], side_px)
            for x, y, width, height in boxes.tolist()
        ]

    def read(self, cut: Sequence[FaceCut]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `FaceNetwork.read`."""
        networks = self._loaded()
        parts = [self._read(networks, cut[i : i + _CHUNK]) for i in range(0, len(cut), _CHUNK)]
        probs, embedding = (np.concatenate(part) for part in zip(*parts, strict=True))
        return probs, embedding

    def unload(self) -> None:
        """Give the memory back."""
        with self._lock:
            self._networks = None
            if self._device == "cuda":
                torch.cuda.empty_cache()

    @torch.inference_mode()
    def _read(
        self, networks: Sequence[nn.Module], cut: Sequence[FaceCut]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        grey = self._tensor(np.stack([face.grey for face in cut])[:, None])
        logits, embedding = emotion_logits(networks[0], grey)
        probs = logits[:, _ORDER].float().softmax(dim=1)
        if self._recognition is not None:
            colour = np.stack([face.bgr for face in cut if face.bgr is not None])
            bgr = self._tensor(colour.transpose(0, 3, 1, 2))
            embedding = self._recognition.vector(networks[1], bgr)
        return probs.cpu().numpy(), embedding.float().cpu().numpy()

    def _tensor(self, values: NDArray[np.float32]) -> Tensor:
        tensor = torch.from_numpy(values).to(self._device, self._dtype())
        return tensor.contiguous(memory_format=torch.channels_last)

    def _dtype(self) -> torch.dtype:
        found = torch.float32 if self._precision == "int8" else getattr(torch, self._precision)
        assert isinstance(found, torch.dtype)
        return found

    def _loaded(self) -> list[nn.Module]:
        with self._lock:
            if self._networks is None:
                builds = [EmotionModel]
                if self._recognition is not None:
                    builds.append(self._recognition.build)
                self._networks = [
                    self._ready(build, path)
                    for build, path in zip(builds, self._files, strict=True)
                ]
            return self._networks

    def _ready(self, build: Callable[[], nn.Module], path: Path) -> nn.Module:
        """A network for inference: batch norms folded, channels last, in its precision."""
        network = build()
        network.load_state_dict(_filled(build, path))
        network.eval().requires_grad_(False)
        for module in list(network.modules()):
            if isinstance(module, ConvBn):
                module.conv = fuse_conv_bn_eval(module.conv, module.bn)
                module.bn = nn.Identity()
        if self._precision == "int8":
            quantise(network)
        network.to(self._device, self._dtype())
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def emotion_logits(network: Any, grey: Tensor) -> tuple[Tensor, Tensor]:
    """What DeepFace's `EmotionModel` turns into probabilities, and what that is read off.

    Args:
        network: the `EmotionModel`, for inference.
        grey: (B, 1, 48, 48) in [0, 1].

    Returns:
        (B, 7) logits in the order of `EMOTION_LABELS`, and the (B, 1024) its last layer reads.
    """
    maps = network.pool_1(network.conv_1(grey).relu_())
    maps = network.pool_2(network.conv_3(network.conv_2(maps).relu_()).relu_())
    maps = network.pool_3(network.conv_5(network.conv_4(maps).relu_()).relu_())
    hidden = network.fc_2(network.fc_1(maps.flatten(1)).relu_()).relu_()
    return network.fc_3(hidden), hidden


def face_cut(face: Image, side_px: int | None) -> FaceCut:
    """A face as DeepFace shows it to its networks.

    Args:
        face: (height, width, 3) RGB uint8, what is inside a detector's box.
        side_px: of the recognition network's square; None for none.
    """
    bgr = cv2.cvtColor(face, cv2.COLOR_RGB2BGR).astype(np.float32) / 255
    # DeepFace enlarges in colour and makes that grey; both are linear, so the order is free.
    grey = fitted(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), _ATTRIBUTE_PX)
    grey = cv2.resize(grey, (_EMOTION_PX, _EMOTION_PX))
    return FaceCut(grey, None if side_px is None else fitted(bgr, side_px))


def fitted(image: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """A picture in the middle of a square of black, as large as it fits."""
    height, width = image.shape[:2]
    scale = min(side_px / height, side_px / width)
    size = max(1, int(width * scale)), max(1, int(height * scale))
    small = cv2.resize(image, size)
    below, right = side_px - size[1], side_px - size[0]
    margins = below // 2, below - below // 2, right // 2, right - right // 2
    return cv2.copyMakeBorder(small, *margins, cv2.BORDER_CONSTANT, value=0)


def _file(option: str | Path | None, name: str, file: str) -> Path:
    """The weight file an option names; None is the catalogue's."""
    path = find(name) if option is None else resolve(str(option))
    path = path / file if path.is_dir() else path
    if not path.is_file():
        raise BackendError(f"there is no file {path}: give the {file} that DeepFace publishes")
    return path


def _filled(build: Callable[[], nn.Module], path: Path) -> dict[str, Tensor]:
    """The state of a `.pth` file, mapped and not read, if it is that of such a network.

    Only tensors are unpickled, whatever else the file holds.

    Raises:
        BackendError: it is no file of torch's, or one of another network.
    """
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in build().state_dict().items()}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        found = {name: value.shape for name, value in state.items()}
    except Exception as error:  # whatever torch's reader makes of a foreign file
        raise BackendError(
            f"{path} is no weight file of torch's zip format with tensors alone: "
            f"give the {path.name} that DeepFace publishes"
        ) from error
    other = sorted(name for name in shapes | found if shapes.get(name) != found.get(name))
    if other:
        raise BackendError(
            f"{path} holds another network ({len(other)} of its {len(shapes)} parts differ, such "
            f"as {other[0]}): give the file that DeepFace publishes for it"
        )
    return dict(state)
