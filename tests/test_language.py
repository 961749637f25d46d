"""Languages: tags read and matched, and texts whose language is told, or is not."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vsa_core.errors import ConfigError
from vsa_core.language import (
    detect,
    detector,
    mistagged,
    near,
    primary,
    speaks,
    spoken_by,
    tag_of,
)
from vsa_core.transcripts.captions import read_captions

REPO = Path(__file__).resolve().parents[1]

# What somebody might say in a video, in the language of the key.
SPOKEN = {
    "es": "Hoy les voy a contar por qué devolví este teléfono después de una semana. ¿Alguna vez "
    "les pasó algo parecido? La verdad es que la batería no dura nada y la pantalla se raya.",
    "fr": "Aujourd'hui je vais vous montrer comment j'ai réparé mon vélo avec trois fois rien. "
    "Franchement, je suis un peu déçu par la qualité du son, et ça m'a fait de la peine.",
    "de": "Heute zeige ich euch, warum ich dieses Handy nach einer Woche zurückgegeben habe. "
    "Ehrlich gesagt bin ich ziemlich enttäuscht von der Kamera. Habt ihr das auch schon erlebt?",
    "pt": "Hoje eu vou contar por que devolvi esse celular depois de uma semana. Sinceramente, a "
    "bateria não aguenta nada e a tela risca fácil. Vocês já passaram por alguma coisa assim?",
    "it": "Oggi vi racconto perché ho restituito questo telefono dopo una settimana. Sinceramente "
    "sono rimasto deluso dalla batteria, che non dura niente. Vi è mai successa una cosa simile?",
    "nl": "Vandaag vertel ik jullie waarom ik deze telefoon na een week heb teruggebracht. Eerlijk "
    "gezegd ben ik nogal teleurgesteld in de batterij. Hebben jullie ook zoiets meegemaakt?",
    "pl": "Dzisiaj opowiem wam, dlaczego oddałem ten telefon po tygodniu. Szczerze mówiąc, jestem "
    "trochę rozczarowany baterią. Czy wam też się kiedyś coś takiego przydarzyło?",
    "ru": "Сегодня я расскажу, почему вернул этот телефон через неделю. Честно говоря, батарея "
    "меня очень разочаровала. А с вами когда-нибудь случалось такое?",
    "tr": "Bugün size bu telefonu neden bir hafta sonra geri verdiğimi anlatacağım. Açıkçası "
    "bataryası beni çok hayal kırıklığına uğrattı. Sizin başınıza hiç böyle bir şey geldi mi?",
    "ar": "اليوم سأحكي لكم لماذا أعدت هذا الهاتف بعد أسبوع واحد. بصراحة البطارية خيبت أملي كثيرا. "
    "هل حدث معكم شيء مثل هذا من قبل؟ أعجبني الفيلم جدا، وخاصة النهاية التي جعلتني أبكي.",
    "hi": "आज मैं आपको बताऊँगा कि मैंने यह फ़ोन एक हफ़्ते बाद वापस क्यों किया। सच कहूँ तो "
    "इसकी बैटरी ने मुझे बहुत निराश किया। क्या आपके साथ कभी ऐसा कुछ हुआ है?",
    "zh": "今天我来讲讲为什么我用了一个星期就把这部手机退了。说实话，电池让我非常失望。你们遇"
    "到过这样的事情吗？这部电影我特别喜欢，尤其是结尾，我都哭了。我不知道该说什么，我真的很生他们的气。",
    "ja": "今日はこのスマホを一週間で返品した理由についてお話しします。正直に言うと、電池にはとて"
    "もがっかりしました。皆さんもこんな経験はありますか？",
    "ko": "오늘은 왜 이 휴대폰을 일주일 만에 반품했는지 말씀드리겠습니다. 솔직히 배터리가 너무 "
    "실망스러웠어요. 여러분도 이런 경험이 있으신가요?",
    "id": "Hari ini saya akan bercerita kenapa saya mengembalikan ponsel ini setelah seminggu. "
    "Jujur saja, baterainya sangat mengecewakan. Apakah kalian pernah mengalami hal seperti ini?",
    "vi": "Hôm nay tôi sẽ kể vì sao tôi trả lại chiếc điện thoại này sau một tuần. Thật lòng mà "
    "nói, pin của nó làm tôi rất thất vọng. Các bạn đã bao giờ gặp chuyện như vậy chưa?",
    "th": "วันนี้ฉันจะเล่าว่าทำไมถึงคืนโทรศัพท์เครื่องนี้หลังใช้ไปหนึ่งสัปดาห์ พูดตรงๆ แบตเตอรี่ทำให้ฉันผิดหวังมาก",
}
ENGLISH = (
    "Hello everybody, and welcome back to my channel. Today I will tell you why I sent this phone "
    "back after a week. Honestly, the battery is a let-down, and the screen scratches at once. Has "
    "anything like that ever happened to you? I loved the film, though, and "
    "above all its end, which made me cry."
)
ROMANISED = (
    "Namaste doston, mere channel par aapka phir se swagat hai. Aaj main aapko bataunga ki maine "
    "yeh phone ek hafte baad wapas kyon kiya. Sach kahun to iski battery ne mujhe bahut niraash "
    "kiya. Kya aapke saath kabhi aisa kuch hua hai? Mujhe film bahut pasand aayi, khaas kar uska "
    "ant, jismein main ro padi."
)

# --- tags ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tag", "language"),
    [
        ("en", "en", "en"),
        ("EN_us", "en-US", "en"),
        ("eng", "en", "en"),
        ("ger", "de", "de"),
        ("deu-AT", "de-AT", "de"),
        ("iw", "he", "he"),
        ("zh-hans", "zh-Hans", "zh"),
        ("cmn-Hant", "zh-Hant", "zh"),
        ("es-419", "es-419", "es"),
        ("nb", "nb", "no"),
        ("nn-NO", "nn-NO", "no"),
        ("en-orig", "en", "en"),
        ("a.en", "en", "en"),
        ("en-eEY6OEpapPo", "en", "en"),
        ("en-GB-oxendict", "en-GB-oxendict", "en"),
        (" pt-BR\n", "pt-BR", "pt"),
    ],
)
def test_a_tag_is_read_as_it_should_be_spelt(text: str, tag: str, language: str) -> None:
    assert tag_of(text) == tag
    assert primary(text) == language


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " ",
        "und",
        "zxx",
        "mul",
        "English",
        "a",
        "12",
        "en--",
        "en-",
        "e\x00",
        "x-own",
        "英",
    ],
)
def test_what_is_no_tag_is_no_language(text: str | None) -> None:
    assert tag_of(text) is None
    assert primary(text) is None


def test_a_model_speaks_a_language_in_every_region_and_script() -> None:
    assert speaks(("en",), "en-GB")
    assert speaks(("de", "zh"), "zh-Hant-TW")
    assert speaks(("no",), "nb")
    assert speaks(("id",), "ms")
    assert speaks(("ar",), "arz")
    assert speaks(("hr",), "sr-Cyrl")
    assert not speaks(("en",), "es")
    assert not speaks(("fr",), "ht")
    assert not speaks(("no",), "da")
    assert not speaks((), "en")


@pytest.mark.parametrize("tag", [None, "", "und", "no tag"])
def test_an_unknown_language_is_tried_by_all_and_near_to_none(tag: str | None) -> None:
    assert speaks(("en",), tag)
    assert not near(tag, "en")
    assert not near(tag, tag)


# --- from the text ------------------------------------------------------------------------


@pytest.mark.parametrize("language", SPOKEN)
def test_a_few_sentences_tell_their_language(language: str) -> None:
    assert detect(SPOKEN[language]) == language
    bare = "".join(char for char in SPOKEN[language].lower() if char not in ".,?。，、？।؟")
    assert detect(bare) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ud800",
        "No.",
        "Qué bueno",
        "1984 2024 3.5 11 0 0 7 " * 20,
        "!?… " * 100,
        "ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha",
        "John Smith, Maria Garcia, Giovanni Rossi, Hans Müller, Pierre Dupont, Chandler Bing",
        ROMANISED,
    ],
)
def test_too_little_or_too_odd_a_text_tells_none(text: str) -> None:
    assert detect(text) is None


def test_letters_alone_make_a_text_long_enough() -> None:
    assert detect("x" * 39) is None
    assert detect("我真的很") == "zh"  # 12 bytes, and no English
    assert detect("我真的") is None  # 9
    assert detect("123 456 789, 10 — " * 50 + "My dog.") is None


def test_english_talk_is_never_taken_for_another_language(shared: Path) -> None:
    for length, known in ((1, 0.2), (50, 0.85), (100, 0.99), (200, 1.0)):
        texts = list(joined(utterances(shared), length))
        found = [detect(text) for text in texts]
        assert set(found) <= {"en", None}
        assert found.count("en") >= known * len(found)


def utterances(shared: Path) -> list[str]:
    with (shared / "meld" / "dev.csv").open(encoding="utf-8", newline="") as file:
        return [row["Utterance"].replace("\x92", "'") for row in csv.DictReader(file)]


def joined(texts: list[str], length: int) -> Iterator[str]:
    held = ""
    for text in texts:
        held = f"{held} {text}".strip()
        if len(held) >= length:
            yield held
            held = ""


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Das ist schrecklich.", "de"),
        ("Ich hasse das.", "de"),
        ("Quelle horreur!", "fr"),
        ("Me encanta esto.", "es"),
        ("Não gosto disso.", "pt"),
        ("Mi piace molto.", "it"),
        ("Ik vind het geweldig.", "nl"),
        ("Jag älskar det.", "sv"),
        ("Tämä on kamalaa.", "fi"),
        ("Мне очень нравится", "ru"),
    ],
)
def test_a_short_line_that_can_hardly_be_english_tells_its_language(
    text: str, language: str
) -> None:
    assert detect(text) == language


@pytest.mark.parametrize(
    "text",
    [
        "No way!", "I love it.", "That was awful.", "Oh my God.", "Not again.", "Terrible.",
        "Fantastic!", "It is a disaster.", "Hallo", "Ciao!",
    ],
)  # fmt: skip
def test_short_english_and_a_word_or_two_are_nobodys(text: str) -> None:
    assert detect(text) is None


# --- a tag that is wrong ------------------------------------------------------------------


@pytest.mark.parametrize("language", SPOKEN)
def test_a_text_plainly_in_another_language_is_found_out(language: str) -> None:
    texts = [SPOKEN[language]] * 4
    assert mistagged("en", texts) == language
    assert mistagged("en-US", texts) == language
    assert mistagged(language, texts) is None
    assert mistagged(language, [ENGLISH]) == "en"
    assert near(mistagged("en", [SPOKEN[language][:90]]), language)


def test_a_tag_is_left_alone_unless_all_of_the_text_is_in_another_language() -> None:
    assert mistagged("es", [ENGLISH[:45]]) is None  # too short
    assert mistagged("ru", [ENGLISH[:220]]) is None  # too short for what may be romanised
    assert mistagged("en", [*[SPOKEN["es"]] * 4, ENGLISH]) is None  # some of it is English
    assert mistagged("hi", [ROMANISED] * 4) is None
    assert mistagged("ja", [ROMANISED] * 4) is None
    assert mistagged("ms", [SPOKEN["id"]] * 4) is None  # read alike
    assert mistagged("nso", [ENGLISH]) is None  # a language the model does not know
    assert mistagged("no tag", [ENGLISH]) is None


def test_english_talk_and_the_samples_captions_are_never_found_mistagged(shared: Path) -> None:
    for text in joined(utterances(shared), 200):
        assert mistagged("en", [text]) is None
    files = [*shared.glob("captions/*.vtt"), *(REPO / "data" / "sample" / "clips").glob("*.vtt")]
    assert len(files) > 5
    for path in files:
        cues = read_captions(path).cues
        assert mistagged("en", [cue.text for cue in cues]) is None, path


def test_a_huge_text_takes_no_time() -> None:
    assert detect(ENGLISH * 100_000) == "en"
    assert mistagged("de", [ENGLISH * 10_000]) == "en"


def test_nothing_is_imported_before_it_is_needed() -> None:
    script = (
        "import sys\nimport vsa_core.language\n"
        "print([name for name in ('py3langid', 'langcodes', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert detector().startswith("py3langid@")


# --- as an option of a model --------------------------------------------------------------


def test_what_a_model_speaks_as_its_option_says() -> None:
    assert spoken_by("any", "m") is spoken_by(None, "m") is None
    assert spoken_by(["pt-BR", "en", "eng"], "m") == ("en", "pt")
    for option, said in (
        ("de", r"m: languages is 'de': write \[de\], or any"),
        ([], r"m: languages is \[\]: give tags"),
        (["english please"], "give tags"),
        (["en", "any please"], "give tags"),
    ):
        with pytest.raises(ConfigError, match=said):
            spoken_by(option, "m")
