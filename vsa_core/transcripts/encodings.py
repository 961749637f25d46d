"""Bytes of a caption file to text: told from marks, from the bytes, or from the language."""

from __future__ import annotations

import re

import regex

from vsa_core.errors import CaptionError
from vsa_core.language import detect, primary, script

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_SAMPLE_BYTES = 20_000
# Told from fewer bytes, which legacy encoding it is is a guess; a language leaves two or three.
_ENOUGH_BYTES = 32
_ENOUGH_LETTERS = 12
# Of the letters of a language written in Latin ones; Vietnamese has the most beyond ASCII.
_MOST_BEYOND_ASCII = 0.5

_BY_LANGUAGE = {
    "ar": ("cp1256", "iso8859_6"), "fa": ("cp1256",), "ur": ("cp1256",),
    "el": ("cp1253", "iso8859_7"), "he": ("cp1255",), "th": ("cp874",),
    "ja": ("cp932", "euc_jp"), "ko": ("cp949",), "zh": ("gb18030", "big5"), "zh-Hant": ("big5",),
    **dict.fromkeys(
        ("ru", "uk", "be", "bg", "mk", "sr"), ("cp1251", "koi8_r", "koi8_u", "cp866", "iso8859_5")
    ),
}  # fmt: skip
_CODECS = tuple(dict.fromkeys(codec for codecs in _BY_LANGUAGE.values() for codec in codecs))

# Of languages written in Latin letters: the encodings in use, and the letters they are to give.
_WESTERN = (("cp1252", "mac_roman", "cp850"), "àâäãåáæçéèêëíìîïñóòôöõøœúùûüÿßªº¿¡")
_LATIN = {
    **dict.fromkeys(
        ("pl", "cs", "sk", "hu", "sl", "hr", "bs", "ro", "sq"),
        (("cp1250", "iso8859_2", "cp852"), "ąćęłńóśźżáčďéěíňřšťúůýžőűöüäĺľŕôâîăşţđçë"),
    ),
    "tr": (("cp1254", "cp857"), "çğıöşüâîûi̇"),
    **dict.fromkeys(("lt", "lv", "et"), (("cp1257",), "ąčęėįšųūžāēģīķļņöäõü")),
    "vi": (("cp1258",), "àáâãèéêìíòóôõùúýăđơưạảấầ\u0300\u0301\u0303\u0309\u0323"),
    "is": (("cp1252",), "áðéíóúýþæö"),
}
_FINAL_WITHIN = re.compile(r"[ךםןףץ][א-ת]")
# A capital behind a small letter, or a sign between two letters that does not stand there.
_BROKEN_WORD = regex.compile(r"\p{Ll}\p{Lu}|\p{L}[^\p{L}\p{M}\x00-\x7f’–—…·\u00a0]\p{L}")
# "don’t", "it’s" and a sign that stands alone, where other encodings have letters.
_TYPOGRAPHIC = re.compile(
    r"\b(?:\w+n’t|(?:i|you|he|she|it|we|they|that|there|what|who|let)’(?:s|m|re|ve|ll|d))\b|"
    r"(?<!\S)[•–—](?!\S)",
    re.IGNORECASE,
)
_LONE_SIGN = re.compile(rb"(?<!\S)[\xb6\xbc-\xbe](?!\S)")  # ¶, which is music, and ¼ ½ ¾
# UTF-8 as a terminal of Windows pipes it into a file.
_OF_TERMINALS = {"cp850": re.compile("ÔÇ|[├┬]\\S"), "cp437": re.compile("ΓÇ|[├┬]\\S")}
_TYPOGRAPHY = "‘’“”„‚‹›«»–—…•·°€£¥§©®™♪´` \u00a0\u00ad"


def decoded(raw: bytes, tag: str | None, where: str) -> tuple[str, str | None]:
    """The text of a caption file, and what to note about how it was read.

    Unicode is told by its byte order mark, its zero bytes or by being valid UTF-8, though torn.
    Of what is left the letters tell: where most lie beyond ASCII the encoding is detected; Latin
    ones are read in the encoding of their language, which is Windows-1252 unless the tag or the
    text says otherwise. What was decoded wrongly before it was saved (`donâ€™t`) is undone.

    Args:
        raw: the bytes.
        tag: the language that the file's name says; None when it says none.
        where: the file, for messages.

    Raises:
        CaptionError: not text, or in an encoding that cannot be told from so little.
    """
    codec, note = _utf(raw), None
    text = raw.decode(codec or "latin-1", "replace")
    if len(_CONTROLS.findall(text)) > len(text) / 100:
        raise CaptionError(f"caption file {where} is not text: fetch or export it again")
    if codec is None:
        taiwan = tag is not None and script(tag) == "Hant"
        codec = _legacy(raw, "zh-Hant" if taiwan else primary(tag))
        if codec is None:
            raise CaptionError(
                f"the encoding of caption file {where} cannot be told from so little text: "
                "save it as UTF-8"
            )
        note = None if codec == "cp1252" else f"captions in {codec}, as their bytes tell"
        text = raw.decode(codec, "replace")
    text = text.lstrip("\ufeff")
    lines = [line if line.isascii() else _once_decoded(line) for line in text.split("\n")]
    whole = "\n".join(lines)
    if not note:
        whole = _of_other_letters(whole, primary(tag)) or whole
    if whole != text:
        note = "captions that were decoded wrongly before they were saved are mended"
    return whole, note


def _utf(raw: bytes) -> str | None:
    """The encoding where it is Unicode or ASCII; None for a legacy one."""
    if raw.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    # The times alone are Latin digits, so UTF-16 has a zero in every other byte of them.
    head = raw[:4096]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) / 8 and min(even, odd) <= len(head) / 100:
        return "utf-16-le" if odd > even else "utf-16-be"
    text = raw.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    beyond = sum(map(len, re.findall(r"[^\x00-\x7f]+", text)))
    if broken and broken > beyond // 10:
        return None
    return "iso2022_jp_2" if text.isascii() and b"\x1b$" in raw else "utf-8"


def _legacy(raw: bytes, language: str | None) -> str | None:
    """The single- or multi-byte encoding of lines beyond ASCII; None where it cannot be told."""
    sample = b"\n".join(line for line in raw.splitlines() if not line.isascii())[:_SAMPLE_BYTES]
    beyond = sum(byte > 0x7F for byte in sample)
    letters = beyond + len(re.findall(rb"[A-Za-z]", sample))
    written = beyond >= 4 and beyond > _MOST_BEYOND_ASCII * letters
    if language in _LATIN or not (written or language in _BY_LANGUAGE):
        return _latin(sample, language)
    if language in _BY_LANGUAGE:
        own = _BY_LANGUAGE[language]
        return next(iter(_detected(sample, own)), own[0])
    fitting = _detected(sample, _CODECS)
    return fitting[0] if len(fitting) == 1 or (fitting and beyond >= _ENOUGH_BYTES) else None


def _detected(sample: bytes, codecs: tuple[str, ...]) -> list[str]:
    """Those of some encodings that a text may be in, the likeliest first."""
    from charset_normalizer import from_bytes

    if len(sample) == _SAMPLE_BYTES:  # without a character that was cut in two
        sample = sample[: sample.rfind(b"\n")]
    plain = {"cp1255": _is_hebrew, "euc_jp": _is_japanese}
    told = [codec for codec, tell in plain.items() if codec in codecs and tell(sample)]
    return told or [match.encoding for match in from_bytes(sample, cp_isolation=list(codecs))]


def _is_hebrew(sample: bytes) -> bool:
    """Whether it is Windows-1255: Hebrew letters alone, the final ones at the ends of words.

    The detector takes them for Cyrillic ones, in which those stand anywhere.
    """
    text = sample.decode("cp1255", "replace")
    beyond = [char for char in text if not (char.isascii() or char in _TYPOGRAPHY)]
    return all("\u05d0" <= char <= "\u05ea" for char in beyond) and not _FINAL_WITHIN.search(text)


def _is_japanese(sample: bytes) -> bool:
    """Whether it is EUC-JP: much of it is kana, which the detector takes for Korean letters."""
    try:
        beyond = [char for char in sample.decode("euc_jp") if not char.isascii()]
    except UnicodeDecodeError:
        return False
    return 5 * sum("\u3040" <= char <= "\u30ff" for char in beyond) > len(beyond)


def _latin(sample: bytes, language: str | None) -> str:
    """The encoding that gives a language's own letters and leaves its words whole."""
    sample = _LONE_SIGN.sub(b"", sample)
    own = language or primary(detect(sample.decode("cp1252", "replace")))
    families = [_LATIN.get(own, _WESTERN)] if own else [_WESTERN, *_LATIN.values()]
    odd: dict[str, int] = {}
    for codecs, letters in families:
        for codec in codecs:
            text = sample.decode(codec, "replace")
            strange = sum(
                not char.isascii() and char.lower() not in letters and char not in _TYPOGRAPHY
                for char in text
            )
            odd.setdefault(codec, strange + len(_BROKEN_WORD.findall(text)))
    least = min(odd.values())
    fitting = [codec for codec in odd if odd[codec] == least]
    if "cp1252" in fitting and _TYPOGRAPHIC.search(sample.decode("cp1252", "replace")):
        return "cp1252"
    for codec in fitting if own is None else ():
        said = primary(detect(sample.decode(codec, "replace")))
        if said and codec in _LATIN.get(said, _WESTERN)[0]:
            return codec
    return fitting[0]


def _once_decoded(line: str) -> str:
    from ftfy import fix_encoding

    for codec, tells in _OF_TERMINALS.items():
        if tells.search(line):
            try:
                return line.encode(codec).decode()
            except UnicodeError:
                continue
    return fix_encoding(line)


def _of_other_letters(text: str, language: str | None) -> str | None:
    """What was taken for Windows-1252 before it was saved (`Ïðèâåò`); None where nothing was."""
    lines = [line for line in text.split("\n") if not line.isascii()]
    letters = [char for line in lines for char in line if char.isalpha()]
    beyond = sum(not char.isascii() for char in letters)
    if beyond < _ENOUGH_LETTERS or beyond <= _MOST_BEYOND_ASCII * len(letters):
        return None
    import ftfy.bad_codecs  # noqa: F401 - that of bytes which Windows-1252 leaves out

    try:
        raw = text.encode("sloppy-windows-1252")
    except UnicodeEncodeError:
        return None
    codec = _legacy(raw, language)
    return raw.decode(codec, "replace") if codec in _CODECS else None
