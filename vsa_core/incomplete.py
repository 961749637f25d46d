"""Whether the end of a media file is missing or damaged, as after a broken download or copy."""

from __future__ import annotations

from typing import BinaryIO

from vsa_core.media import Media

INCOMPLETE = "incomplete"  # begins the note
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# What mp4 and its kin are made of; anything else behind them is not theirs.
_BOXES = frozenset(
    b"ftyp styp moov moof mdat mfra free skip wide pnot meta udta uuid sidx ssix emsg prft".split()
)
_RIFF_SLACK = 1024  # writers of RIFF count its own header, or a byte of padding, or not
_STREAMED_RIFF = 0xFFFF_0000  # sizes from here on stand for "not known yet"
_END_SHARE, _END_MIN_MS, _END_MAX_MS = 0.1, 5_000, 60_000


def incomplete(media: Media) -> str | None:
    """What to note on a file whose end is not there; None where nothing is known to be missing.

    The sizes that mp4 and its kin, Matroska and RIFF (avi, wav) write before their data are held
    against the file's own; other containers, and those written as a stream, do not say. Of a file
    of the right size (one that was reserved and not filled) something must decode near the end.

    Raises:
        MediaError: the file cannot be opened any more.
    """
    try:
        with media.path.open("rb") as file:
            size = file.seek(0, 2)
            missing = _promised(file, size) - size
    except OSError:
        missing = 0
    if missing > 0:
        return (
            f"{INCOMPLETE}: the file ends before its data does, by {missing:,} bytes or more; "
            "what is there is labelled: fetch or export it again"
        )
    end_ms = int(min(max(_END_SHARE * media.duration_ms, _END_MIN_MS), _END_MAX_MS))
    start_ms = media.duration_ms - end_ms
    if start_ms <= 0 or len(media.audio_between(start_ms, media.duration_ms)):
        return None
    if next(media.frames(1.0, 64, start_ms), None) is not None:
        return None
    return (
        f"{INCOMPLETE}: neither picture nor sound decodes in its last {end_ms // 1000} s; "
        "what is there is labelled: fetch or export it again"
    )


def _promised(file: BinaryIO, size: int) -> int:
    """Where the last thing that the file begins would end; 0 where it does not say."""
    head = _at(file, 0, 8)
    if head[:4] == _EBML:
        return _matroska(file)
    if head[:4] == b"RIFF":
        return _riff(file, size)
    return _boxes(file, size) if head[4:] in _BOXES else 0


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _boxes(file: BinaryIO, size: int) -> int:
    place = 0
    while place + 8 <= size:
        head = _at(file, place, 16)
        length, kind = int.from_bytes(head[:4]), head[4:8]
        if length == 1:  # it follows in 64 bits
            length = int.from_bytes(head[8:])
        if length < 8 or kind not in _BOXES:  # 0: as far as the file goes; else no box at all
            return 0
        place += length
    return place


def _matroska(file: BinaryIO) -> int:
    place = 0
    for name in (_EBML, _SEGMENT):
        head = _at(file, place, 12)
        if head[:4] != name or not any(head[4:5]):
            return 0
        width = 9 - head[4].bit_length()
        value = int.from_bytes(head[4 : 4 + width]) - (1 << 7 * width)
        if value == (1 << 7 * width) - 1:  # written as a stream
            return 0
        place += 4 + width + value
    return place


def _riff(file: BinaryIO, size: int) -> int:
    place = 0
    while _at(file, place, 4) == b"RIFF":  # a long avi has several
        length = int.from_bytes(_at(file, place + 4, 4), "little")
        if length == 0 or length >= _STREAMED_RIFF:
            return 0
        place += 8 + length + length % 2
    return place if place - size > _RIFF_SLACK else 0
