"""Caption files as they come: formats, encodings, rolling, bad times, odd names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vsa_core.cues import Cue, Transcript, Word
from vsa_core.errors import CaptionError
from vsa_core.transcripts.captions import find_captions, read_captions

ONE = "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n{}\n"


def read(folder: Path, content: str | bytes, name: str = "talk.vtt") -> Transcript:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_captions(path)


def texts(transcript: Transcript) -> list[str]:
    return [cue.text for cue in transcript.cues]


def spoken(transcript: Transcript) -> list[str]:
    return " ".join(texts(transcript)).split()


# --- formats ------------------------------------------------------------------------------


def test_webvtt_with_names_settings_and_asides(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "WEBVTT - a title\nKind: captions\nLanguage: en-GB\n\n"
        "STYLE\n::cue { color: red }\n\nREGION\nid:fred\n\n"
        "NOTE 00:00:00.000 --> 00:00:09.000 is\na comment over two lines\n\n"
        "intro\n00:01.000 --> 00:02.500 align:start line:0\nHello\nthere.\n\n"
        "NOTE\nanother\n\n"
        "the second\n01:00:00.000 --> 01:00:01.000\nGoodbye.\n",
    )
    assert found == Transcript(
        (Cue(1000, 2500, "Hello there."), Cue(3_600_000, 3_601_000, "Goodbye.")),
        "captions",
        "en-GB",
    )


def test_subrip_with_commas_and_without_hours(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "1\r\n00:00:01,5 --> 00:00:02,000\r\nOne\r\n\r\n2\r\n0:03,000 -> 0:04,000\r\nTwo\r\n"
        "3\r\n00:00:05 --> 00:00:06\r\nThree\r\n\r\nafter a blank line\r\n\r\n"
        "4\r\n00:00:07,000 --> 00:00:08,000\r\n42\r\n",
        "talk.en.srt",
    )
    assert found.cues == (
        Cue(1500, 2000, "One"),
        Cue(3000, 4000, "Two"),
        Cue(5000, 6000, "Three after a blank line"),
        Cue(7000, 8000, "42"),
    )
    assert (found.source, found.language, found.note) == ("captions", "en", None)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\r\r\n"])
def test_every_line_ending(tmp_path: Path, ending: str) -> None:
    lines = ["1", "00:00:01,000 --> 00:00:02,000", "One", "", "2"]
    lines += ["00:00:03,000 --> 00:00:04,000", "Two", ""]
    assert texts(read(tmp_path, ending.join(lines))) == ["One", "Two"]


def test_json3_has_word_times(tmp_path: Path) -> None:
    events = [
        {"tStartMs": 0, "dDurationMs": 9000, "id": 1},
        {
            "tStartMs": 1000,
            "dDurationMs": 4000,
            "segs": [{"utf8": "so"}, {"utf8": " good", "tOffsetMs": 400, "acAsrConf": 9}],
        },
        {"tStartMs": 1500, "dDurationMs": 10, "aAppend": 1, "segs": [{"utf8": "\n"}]},
        {"tStartMs": 6000, "dDurationMs": 1000, "segs": [{"utf8": "[Music]"}]},
        {"tStartMs": 8000, "dDurationMs": 1000, "segs": [{"utf8": "half \ud83d"}]},
    ]
    found = read(tmp_path, json.dumps({"wireMagic": "pb3", "events": events}), "talk.de.json3")
    assert found.cues[0] == Cue(
        1000, 5000, "so good", (Word(1000, 1400, "so"), Word(1400, 2180, "good"))
    )
    assert texts(found) == ["so good", "half ?"]
    assert (found.source, found.language) == ("auto_captions", "de")


def test_json3_with_broken_events_keeps_the_rest(tmp_path: Path) -> None:
    good = {"tStartMs": 1, "dDurationMs": 5, "segs": [{"utf8": "good"}]}
    broken = [
        7,
        {"segs": [{"utf8": "no time"}]},
        {"tStartMs": "soon", "segs": [{"utf8": "x"}]},
        {"tStartMs": 10**30, "segs": [{"utf8": "x"}]},
        {"tStartMs": float("inf"), "segs": [{"utf8": "x"}]},
        {"tStartMs": 1, "segs": [{"utf8": 5}]},
        {"tStartMs": 1, "segs": 3},
    ]
    found = read(tmp_path, json.dumps({"events": [*broken, good]}), "talk.json3")
    assert texts(found) == ["good"]
    assert found.note == "7 of 8 time lines do not read: what they time is left out"


# --- encodings ----------------------------------------------------------------------------

FOREIGN = "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nDéjà vu – “naïve” façade\n"


@pytest.mark.parametrize(
    "raw",
    [
        FOREIGN.encode(),
        FOREIGN.encode("utf-8-sig"),
        FOREIGN.encode("utf-16"),
        b"\xfe\xff" + FOREIGN.encode("utf-16-be"),
        FOREIGN.encode("utf-16-le"),
        FOREIGN.encode("utf-16-be"),
        FOREIGN.encode("utf-16") + b"\x00",  # torn in the middle of a character
        FOREIGN.encode("cp1252"),
    ],
    ids=["utf-8", "bom", "utf-16", "utf-16-be-bom", "utf-16-le", "utf-16-be", "torn", "cp1252"],
)
def test_encodings(tmp_path: Path, raw: bytes) -> None:
    assert spoken(read(tmp_path, raw))[:5] == ["Déjà", "vu", "–", "“naïve”", "façade"]


def test_latin_1_and_chinese_utf_16_without_a_mark(tmp_path: Path) -> None:
    assert texts(read(tmp_path, ONE.format("Größe").encode("latin-1"))) == ["Größe"]
    assert texts(read(tmp_path, ONE.format("你好，世界。").encode("utf-16-le"))) == ["你好，世界。"]


def test_a_torn_utf_8_file_is_still_utf_8(tmp_path: Path) -> None:
    raw = ONE.format("für Mädchen größer äußerst schön öde übel Öl Ärger").encode()
    assert spoken(read(tmp_path, raw[:-1] + b"\xc3"))[:2] == ["für", "Mädchen"]


RUSSIAN = "Мне очень нравится это место. Но еда была ужасная, никому не советую."
SPELT = {
    RUSSIAN: ["cp1251", "koi8_r", "cp866"],
    "我真的很喜欢这个地方。但是食物非常糟糕，我们再也不会回来了。": ["gb18030"],
    "我真的很喜歡這個地方。但是食物非常糟糕，我們再也不會回來了。": ["big5"],
    "この場所が本当に大好きです。でも食べ物はひどかった。": ["cp932", "euc_jp", "iso2022_jp"],
    "나는 이곳이 정말 좋아요. 하지만 음식은 끔찍했고 다시는 오지 않겠습니다.": ["cp949"],
    "أنا أحب هذا المكان كثيرا. لكن الطعام كان سيئا جدا ولن نعود.": ["cp1256"],
    "Μου αρέσει πολύ αυτό το μέρος. Αλλά το φαγητό ήταν απαίσιο.": ["cp1253"],
    "אני מאוד אוהב את המקום הזה. אבל האוכל היה נורא ולא נחזור לעולם.": ["cp1255"],
    "ฉันชอบที่นี่มากจริงๆ แต่อาหารแย่มาก เราจะไม่กลับมาอีก": ["cp874"],
    "Są tu świetne miejsca. Ale jedzenie było okropne, więcej już tu nie wrócę.": [
        "cp1250", "iso8859_2",
    ],
    "Burayı gerçekten çok seviyorum. Ama yemek çok kötüydü, bir daha gelmeyeceğiz.": ["cp1254"],
    "J'adore cet endroit, il est très agréable. Mais la nourriture était dégoûtante.": [
        "cp1252", "mac_roman", "cp850",
    ],
    "Das Café ist wirklich schön. Aber das Essen war “scheußlich” – nie wieder für mich.": [
        "cp1252", "mac_roman",
    ],
    "I don’t love it, it’s awful – really. The “naïve” façade of the café isn’t good.": [
        "cp1252", "mac_roman",
    ],
    "Me encanta este lugar, señor. ¿Volverá usted mañana? ¡Qué comida más horrible!": [
        "cp1252", "latin-1", "mac_roman",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "codec"), [(text, codec) for text, codecs in SPELT.items() for codec in codecs]
)
def test_legacy_encodings_are_told_from_the_bytes(tmp_path: Path, text: str, codec: str) -> None:
    found = read(tmp_path, ONE.format(text).encode(codec))
    assert texts(found) == [text]
    noted = {"cp1252": None, "latin-1": None, "iso2022_jp": None}
    assert found.note == noted.get(codec, f"captions in {codec}, as their bytes tell")


@pytest.mark.parametrize(
    ("text", "codec", "tag"),
    [("Привет.", "koi8_r", "ru"), ("你好。", "big5", "zh-TW"), ("Ağır ığdır", "cp1254", "tr"),
     ("Þetta er ágætt, ðað", "cp1252", "is"), ("Zażółć", "iso8859_2", "pl")],
)  # fmt: skip
def test_of_little_text_the_language_of_the_name_tells(
    tmp_path: Path, text: str, codec: str, tag: str
) -> None:
    assert texts(read(tmp_path, ONE.format(text).encode(codec), f"talk.{tag}.vtt")) == [text]


def test_an_encoding_that_cannot_be_told_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptionError, match="cannot be told from so little text: save it as UTF-8"):
        read(tmp_path, ONE.format("Привет.").encode("koi8_r"))


@pytest.mark.parametrize(
    "lines",
    [
        ["¶ la la ¶"],
        ["½ cup"],
        ["• one", "• two"],
        ["– Yes.", "– No."],
        ["That’s it’s don’t won’t"],
    ],
)
def test_signs_of_windows_1252_are_no_letters_of_another_encoding(
    tmp_path: Path, lines: list[str]
) -> None:
    found = read(tmp_path, ONE.format("\n".join(lines)).encode("cp1252"))
    assert " ".join(texts(found)).replace("– ", "") == " ".join(lines).replace("– ", "")
    assert found.note is None


@pytest.mark.parametrize("codec", ["cp1252", "latin-1"])
def test_other_letters_that_were_taken_for_western_are_undone(tmp_path: Path, codec: str) -> None:
    twice = RUSSIAN.encode("cp1251").decode(codec)
    found = read(tmp_path, ONE.format(twice).encode())
    assert texts(found) == [RUSSIAN]
    assert found.note == "captions that were decoded wrongly before they were saved are mended"


@pytest.mark.parametrize("text", ["ÇA VA À LA MER, L’ÎLE D’ÉTÉ.", "«À…» “Où?”", "Đã đến, ở đây"])
def test_western_letters_are_left_alone(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, ONE.format(text).encode())
    assert (texts(found), found.note) == ([text], None)


@pytest.mark.parametrize("codec", ["cp850", "cp437"])
def test_utf_8_through_a_terminal_of_windows_is_undone(tmp_path: Path, codec: str) -> None:
    text = "I don’t love it – it’s “naïve”"
    found = read(tmp_path, ONE.format(text.encode().decode(codec)).encode())
    assert texts(found) == [text]
    assert found.note == "captions that were decoded wrongly before they were saved are mended"


TYPED = "I don’t love it – it’s naïve. Déjà vu"


@pytest.mark.parametrize("codec", ["cp1252", "latin-1", "cp1250", "mac_roman"])
def test_what_was_decoded_wrongly_before_it_was_saved_is_undone(tmp_path: Path, codec: str) -> None:
    text = TYPED + (" “awful” 你好 Привет" if codec == "latin-1" else "")
    twice = text.encode().decode(codec)
    found = read(tmp_path, ONE.format(f"{twice}\n♪ untouched – naïve ♪").encode())
    assert texts(found) == [text]
    assert found.note == "captions that were decoded wrongly before they were saved are mended"


@pytest.mark.parametrize(
    "text",
    [
        "Das ist «CAFÉ» und schön.", "São Paulo NÃO É À toa.", "¿Qué? ¡Sí! ñandú", "ÅÄÖ åäö",
        "A‘B’ “C” – 5 €", "Straße ß ÄÖÜ", "ĀČĒ – €", "100 % – £5 · 20 °C", "Привет – «мир»",
        "I ♥ NY ™ ©",
    ],
)  # fmt: skip
def test_what_looks_like_it_and_is_none_is_left_alone(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, ONE.format(text).encode())
    assert (texts(found), found.note) == ([text], None)


# --- what is not speech -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ("<v Fred Smith>Hi <i>you</i> <c.yellow.bg_blue>all</c></v>", "Hi you all"),
        ("{\\an8}{\\i1}Up\\Nhere{\\i0}", "Up here"),
        ("a &amp; b&nbsp;&lt;c&gt; it&#39;s &amp;quot;x&amp;quot;", 'a & b <c> it\'s "x"'),
        ("I <3 you, 2 < 3", "I <3 you, 2 < 3"),
        ("<ruby>漢<rt>kan</rt></ruby>字", "漢字"),
        ("\u200bzero\ufeff width\u200e", "zero width"),
        (">> Hello. >>> JOHN: Hi. >> Mary Ann: Hey.", "Hello. Hi. Hey."),
        ("- Hello.\n- Hi.", "Hello. Hi."),
        ("-Hello.\n–Hi.", "Hello. Hi."),
        ("-5 degrees", "-5 degrees"),
        ("JOHN: Hello.", "Hello."),
        ("- DR. O'NEIL #2: Hello.", "Hello."),
        ("[Speaker 1]: Hello.", "Hello."),
        ("Speaker 1: Hello.", "Hello."),
        ("(John): Hello.", "Hello."),
        ("Remember: be kind.", "Remember: be kind."),
        ("HE SAID: GO HOME.", "HE SAID: GO HOME."),
        (">> JOHN: GO HOME.", "GO HOME."),
        ("[Music] Hello [Applause]", "Hello"),
        ("[laughs\nloudly] Hello", "Hello"),
        ("Hello (laughs softly) there", "Hello there"),
        ("Hello (DOOR SLAMS) there", "Hello there"),
        ("We went (and I mean it) home.", "We went (and I mean it) home."),
        ("♪ la la la ♪\nHello", "Hello"),
        ("♪ la la\nHello", "Hello"),
        ("（拍手）こんにちは【音楽】", "こんにちは"),
        ("very very good, no. no. no.", "very very good, no. no. no."),
    ],
)
def test_only_what_is_spoken_is_left(tmp_path: Path, payload: str, text: str) -> None:
    assert " ".join(texts(read(tmp_path, ONE.format(payload)))) == text


@pytest.mark.parametrize(
    "payload", ["[Music]", "(applause)", "♪ la la ♪", "♪", "- ", "...", "JOHN:"]
)
def test_a_cue_without_speech_is_dropped(tmp_path: Path, payload: str) -> None:
    found = read(tmp_path, ONE.format(payload) + "\n00:00:03.000 --> 00:00:04.000\nHello\n")
    assert texts(found) == ["Hello"]


# --- times --------------------------------------------------------------------------------


def test_broken_and_reversed_times_are_counted_not_raised(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "1\n00:00:xx,000 --> 00:00:01,000\nlost\n\n2\n-00:00:01,000 --> 00:00:02,000\nlost\n\n"
        "3\n00:00:05,000 --> 00:00:03,000\nreversed\n\n"
        "4\n9000:00:00,000 --> 9000:00:01,000\nlost\n\n"
        "5\n00:00:07,000 --> 00:00:07,000\nno length\n\n6\n-->\nlost\n",
        "talk.srt",
    )
    assert found.cues == (Cue(3000, 5000, "reversed"), Cue(7000, 7540, "no length"))
    assert found.note == (
        "1 cues with reversed times turned round, "
        "4 of 6 time lines do not read: what they time is left out"
    )


def test_cues_come_in_order_and_a_double_one_once(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "1\n00:00:05,000 --> 00:00:07,000\nlater\n\n2\n00:00:01,000 --> 00:00:06,000\nsooner\n\n"
        "3\n00:00:05,000 --> 00:00:07,000\nlater\n",
        "talk.srt",
    )
    assert found.cues == (Cue(1000, 6000, "sooner"), Cue(5000, 7000, "later"))


# --- rolling ------------------------------------------------------------------------------


def rolled(lines: list[str], *, tags: bool, hold: bool) -> str:
    """A file as YouTube writes it: each line stays on top while the next one is spoken."""
    cues, above = ["WEBVTT\nKind: captions\nLanguage: en\n"], " "
    for number, line in enumerate(lines):
        start, end = 2 * number, 2 * number + 2
        words = line.split()
        inner = line
        if tags:
            marks = [f"<00:00:{start:02d}.{100 * n:03d}>" for n in range(len(words))]
            inner = words[0] + "".join(
                f"{mark}<c> {word}</c>" for mark, word in zip(marks[1:], words[1:], strict=True)
            )
        cues.append(f"00:00:{start:02d}.000 --> 00:00:{end - 1:02d}.990\n{above}\n{inner}\n")
        if hold:
            cues.append(f"00:00:{end - 1:02d}.990 --> 00:00:{end:02d}.000\n{line}\n \n")
        above = line
    return "\n".join(cues)


SPOKEN = ["so this is", "very very good", "no", "no", "no", "no no no", "very very good", "bye"]


@pytest.mark.parametrize(("tags", "hold"), [(True, True), (False, True), (False, False)])
def test_rolling_captions_are_read_once(tmp_path: Path, *, tags: bool, hold: bool) -> None:
    found = read(tmp_path, rolled(SPOKEN, tags=tags, hold=hold))
    assert texts(found) == SPOKEN
    assert found.source == "auto_captions"
    assert [cue.start_ms for cue in found.cues] == list(range(0, 16_000, 2000))
    if tags:
        good = found.cues[1].words
        assert [(word.start_ms, word.text) for word in good] == [
            (2000, "very"),
            (2100, "very"),
            (2200, "good"),
        ]
        assert good[-1].end_ms == 2980  # not until the next line comes at 3990
    else:
        assert not any(cue.words for cue in found.cues)


def test_a_line_spoken_again_below_a_cleared_screen_is_kept(tmp_path: Path) -> None:
    again = (
        "00:00:20.000 --> 00:00:21.990\n \nbye<00:00:20.500><c> now</c>\n\n"
        "00:00:21.990 --> 00:00:22.000\nbye now\n \n\n"
        "00:00:22.000 --> 00:00:24.000\n \nbye<00:00:22.500><c> now</c>\n\n"
        "00:00:24.000 --> 00:00:24.010\nbye now\n\n"
        "00:00:30.000 --> 00:00:31.000\n \nbye now\n"
    )
    found = read(tmp_path, rolled(SPOKEN, tags=True, hold=True) + "\n" + again)
    assert texts(found) == [*SPOKEN, "bye now", "bye now", "bye now"]


def test_three_rolling_lines_are_read_once(tmp_path: Path) -> None:
    lines = ["one", "two", "two", "three", "four", "five"]
    cues = ["WEBVTT\n"]
    for n in range(len(lines)):
        window = "\n".join(lines[max(0, n - 2) : n + 1])
        cues.append(f"00:00:{n:02d}.000 --> 00:00:{n + 1:02d}.000\n{window}\n")
    assert texts(read(tmp_path, "\n".join(cues))) == lines


def test_a_chorus_in_captions_that_do_not_roll_is_kept(tmp_path: Path) -> None:
    lines = ["no no no", "no no no", "no no no", "and again", "no no no", "no no no"]
    cues = [f"{n}\n00:00:{n:02d},000 --> 00:00:{n + 1:02d},000\n{x}\n" for n, x in enumerate(lines)]
    found = read(tmp_path, "\n".join(cues), "talk.srt")
    assert texts(found) == lines
    assert found.source == "captions"


def test_real_rolling_captions_equal_their_target(shared: Path) -> None:
    folder = shared / "captions"
    raw = read_captions(folder / "DoesFastChargingHurttheBatteryRaw.vtt")
    target = read_captions(folder / "DoesFastChargingHurttheBatteryTarget.vtt")
    assert spoken(raw) == spoken(target)
    assert (raw.source, target.source, raw.language) == ("auto_captions", "captions", "en")
    assert [(cue.start_ms, cue.end_ms, cue.text) for cue in raw.cues[:17]] == [
        (cue.start_ms, cue.end_ms, cue.text) for cue in target.cues[:17]
    ]
    for cue in raw.cues[:-1]:
        assert " ".join(word.text for word in cue.words) == cue.text
        times = [ms for word in cue.words for ms in (word.start_ms, word.end_ms)]
        assert times == sorted(times)
        assert cue.start_ms <= times[0]
        assert times[-1] <= cue.end_ms


# --- files that are none ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no cues"),
        (b"WEBVTT\n", "holds no cues"),
        (b"just some text\n" * 50, "holds no cues"),
        (ONE.format("[Music]").encode(), "holds no cues"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40, "not text"),
        (b"\x00" * 5000, "not text"),
        (b"{}", "not json3"),
        (b'{"events": 3}', "not json3"),
        (b'{"events": [', "not json3"),
        (b"[" * 200_000, "not json3"),
    ],
)
def test_a_file_that_is_no_captions_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(CaptionError, match=reason) as caught:
        read(tmp_path, content, "a\nb.vtt")
    assert "\n" not in str(caught.value)
    assert "b.vtt" in str(caught.value)


def test_a_huge_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "talk.vtt"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    with pytest.raises(CaptionError, match=r"100\.0 MB, over the limit of 20\.0 MB"):
        read_captions(path)
    with pytest.raises(CaptionError, match=r"over the limit of 0\.0 MB"):
        read_captions(path, max_bytes=10)


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CaptionError, match="No such file"):
        read_captions(tmp_path / "absent.vtt")
    with pytest.raises(CaptionError, match="not a regular file"):
        read_captions(tmp_path)
    os.mkfifo(tmp_path / "pipe.vtt")
    with pytest.raises(CaptionError, match="not a regular file"):
        read_captions(tmp_path / "pipe.vtt")


@pytest.mark.parametrize(
    "text", ["A:\n", "[", "(", "♪a", "<", "{\\", "a:", ">> ", "<c", "&", " ", "<00:00:01.000>a"]
)
def test_hostile_text_takes_no_time(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, ONE.format(text * (200_000 // len(text)) + "\nHello"))
    assert found.cues[0].text.endswith("Hello")


# --- which file ---------------------------------------------------------------------------


def put(folder: Path, *names: str, content: str = ONE.format("Hello")) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "languages", "best"),
    [
        (["v.vtt"], ["en"], "v.vtt"),
        (["v.en.srt", "v.vtt", "v.de.vtt"], ["en"], "v.en.srt"),
        (["v.vtt", "v.en-US.vtt", "v.en.vtt"], ["en"], "v.en.vtt"),
        (["v.vtt", "v.en_US.vtt"], ["en"], "v.en_US.vtt"),
        (["v.vtt", "v.de.vtt"], ["en", "de"], "v.vtt"),
        (["v.fr.vtt", "v.de.vtt"], ["en", "de"], "v.de.vtt"),
        (["v.en-orig.vtt", "v.en-US.vtt"], ["en"], "v.en-US.vtt"),
        (["v.en-orig.vtt", "v.vtt"], ["en"], "v.vtt"),
        (["v.en-orig.vtt"], ["en"], "v.en-orig.vtt"),
        (["v.en.vtt"], ["en-US"], "v.en.vtt"),
        (["v.en-GB.vtt", "v.de.vtt"], ["en-US"], "v.en-GB.vtt"),
        (["v.de.vtt"], ["en"], "v.de.vtt"),
        (["v.de.vtt", "v.fr.vtt", "v.no.vtt"], ["en", "nb"], "v.no.vtt"),
        (["v.mp4.vtt"], ["en"], "v.mp4.vtt"),
        (["v.wav.en.vtt"], ["en"], "v.wav.en.vtt"),
        (["v.en.sdh.vtt", "v.de.srt"], ["en"], "v.en.sdh.vtt"),
        (["v.en-en-US.vtt", "v.de-en.vtt"], ["en"], "v.en-en-US.vtt"),
        (["v.de.vtt", "v.English.vtt"], ["en"], "v.English.vtt"),
        (["v.Español.srt", "v.German.vtt"], ["es"], "v.Español.srt"),
        (["v.default.en.vtt", "v.de.vtt"], ["en"], "v.default.en.vtt"),
        (["v.de.vtt", "v.en-US.cc.vtt"], ["en"], "v.en-US.cc.vtt"),
        (["v.de.hi.srt", "v.en.hi.srt"], ["en"], "v.en.hi.srt"),
        (["v.de.srt", "v.hi.srt"], ["hi"], "v.hi.srt"),
        (["v.de.srt", "v.eng.srt"], ["en"], "v.eng.srt"),
        (["v_en.srt", "v_2.srt"], ["en"], "v_en.srt"),
        (["v (English).ass", "v.de.ass"], ["en"], "v (English).ass"),
        (["V.EN.SRT", "v.de.srt"], ["en"], "V.EN.SRT"),
        (["Subs/v.de.srt", "Subs/v.srt", "Subs/w.srt"], ["en"], "Subs/v.srt"),
        (["Subs/v/2_English.srt", "Subs/v/3_German.srt"], ["en"], "Subs/v/2_English.srt"),
        (["v.en.forced.vtt", "v.de.vtt"], ["en"], "v.de.vtt"),
        (["v.en.vtt", "v.en.mp4"], ["en"], None),
        (["v.part2.srt", "V.MP4", "V.srt"], ["en"], None),
        (["v.de.vtt", "v.fr.vtt"], [], "v.de.vtt"),
        (["v.json3", "v.srt", "v.VTT"], ["en"], "v.VTT"),
        (
            ["v.part2.vtt", "v2.en.vtt", "v.live_chat.json3", "v.en.txt", "v.info.json"],
            ["en"],
            None,
        ),
    ],
)
def test_the_best_file_is_found(
    tmp_path: Path, names: list[str], languages: list[str], best: str | None
) -> None:
    put(tmp_path, *names)
    found = find_captions(tmp_path / "v.mp4", languages)
    assert (str(found.relative_to(tmp_path)) if found else None) == best


def test_captions_made_by_people_go_before_automatic_ones(tmp_path: Path) -> None:
    put(tmp_path, "v.en.vtt", content=rolled(SPOKEN, tags=True, hold=True))
    put(tmp_path, "v.en.srt")
    assert find_captions(tmp_path / "v.mp4", ["en"]) == tmp_path / "v.en.srt"
    put(tmp_path, "v.en.srt", content="broken")
    assert find_captions(tmp_path / "v.mp4", ["en"]) == tmp_path / "v.en.vtt"
    put(tmp_path, "v.en-US.vtt")
    assert find_captions(tmp_path / "v.mp4", ["en"]) == tmp_path / "v.en-US.vtt"


@pytest.mark.parametrize(
    ("names", "spoken", "best"),
    [
        (["v.en.vtt", "v.es.vtt"], "es", "v.es.vtt"),
        (["v.en.vtt", "v.es.vtt"], "es-MX", "v.es.vtt"),
        (["v.en.vtt", "v.es-419.vtt"], "es", "v.es-419.vtt"),
        (["v.pt-BR.vtt", "v.pt-PT.vtt"], "pt-PT", "v.pt-PT.vtt"),
        (["v.de.vtt", "v.nb.vtt"], "no", "v.nb.vtt"),
        (["v.ar.vtt", "v.es-orig.vtt"], None, "v.es-orig.vtt"),
        (["v.ar.vtt", "v.es-orig.vtt", "v.es.vtt"], None, "v.es.vtt"),
        (["v.ar.vtt", "v.vtt"], "es", "v.vtt"),
        (["v.ar.vtt", "v.und.vtt"], "es", "v.und.vtt"),
        (["v.es-eEY6OEpapPo.vtt", "v.ar.vtt"], "es", "v.es-eEY6OEpapPo.vtt"),
        (["v.fr.vtt", "v.de.srt"], "es", "v.fr.vtt"),
        (["v.fr.vtt", "v.de.srt"], "no tag", "v.fr.vtt"),
    ],
)
def test_when_any_language_will_do_the_one_spoken_goes_first(
    tmp_path: Path, names: list[str], spoken: str | None, best: str
) -> None:
    put(tmp_path, *names)
    assert find_captions(tmp_path / "v.mp4", [], spoken) == tmp_path / best


def test_translations_by_people_go_before_automatic_ones(tmp_path: Path) -> None:
    put(tmp_path, "v.de.vtt", content=rolled(SPOKEN, tags=True, hold=True))
    put(tmp_path, "v.fr.vtt")
    assert find_captions(tmp_path / "v.mp4", [], "es") == tmp_path / "v.fr.vtt"
    put(tmp_path, "v.es-orig.vtt", content=rolled(SPOKEN, tags=True, hold=True))
    assert find_captions(tmp_path / "v.mp4", [], "es") == tmp_path / "v.es-orig.vtt"
    put(tmp_path, "v.es-419.vtt")
    assert find_captions(tmp_path / "v.mp4", [], "es") == tmp_path / "v.es-419.vtt"


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("talk.EN_us.vtt", "en-US"),
        ("talk.iw.vtt", "he"),
        ("talk.de-orig.vtt", "de"),
        ("talk.en-eEY6OEpapPo.vtt", "en"),
        ("talk.und.vtt", None),
        ("talk.vtt", None),
    ],
)
def test_the_language_of_a_file_is_in_its_name(
    tmp_path: Path, name: str, language: str | None
) -> None:
    assert read(tmp_path, ONE.format("Hello"), name).language == language


def test_no_part_of_the_videos_own_name_is_a_language(tmp_path: Path) -> None:
    put(tmp_path, "my.new.vtt", "my.new.fr.vtt")
    video = tmp_path / "my.new.mp4"
    assert read_captions(tmp_path / "my.new.vtt", video=video).language is None
    assert read_captions(tmp_path / "my.new.fr.vtt", video=video).language == "fr"
    assert read_captions(tmp_path / "my.new.vtt").language == "new"


@pytest.mark.parametrize(
    "stem", ["with space", 'it\'s "quoted"', "two\nlines", "🎬 smile", "[a-z]*?{x}", "a.b.c", "Zoë"]
)
def test_names_of_any_kind(tmp_path: Path, stem: str) -> None:
    put(tmp_path, f"{stem}.en.vtt", "b.en.vtt", "ab.vtt")
    assert find_captions(tmp_path / f"{stem}.mp4", ["en"]) == tmp_path / f"{stem}.en.vtt"


def test_composed_and_decomposed_names_are_one(tmp_path: Path) -> None:
    put(tmp_path, "Zoe\u0308.en.vtt")
    assert find_captions(tmp_path / "Zo\u00eb.mp4", ["en"]) == tmp_path / "Zoe\u0308.en.vtt"


def test_a_folder_named_like_captions_is_none(tmp_path: Path) -> None:
    (tmp_path / "v.en.vtt").mkdir()
    assert find_captions(tmp_path / "v.mp4", ["en"]) is None


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CaptionError, match="cannot be searched"):
        find_captions(tmp_path / "absent" / "v.mp4", ["en"])
