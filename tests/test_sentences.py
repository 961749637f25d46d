"""Where a text may be cut and where its sentences end, in many scripts."""

from __future__ import annotations

from itertools import pairwise

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from vsa_core.sentences import (
    Piece,
    closes_phrase,
    ends_clause,
    ends_sentence,
    joins,
    pieces,
    without_stops,
)


def parts(text: str) -> list[str]:
    return [piece.text for piece in pieces(text)]


def sentences(text: str) -> list[str]:
    """The text cut at every sentence end."""
    found = list(pieces(text))
    cut = [found[0].text] if found else []
    for piece, following in pairwise(found):
        if ends_sentence(piece.text, following.text, spaced=following.spaced):
            cut.append(following.text)
        else:
            cut[-1] += " " * following.spaced + following.text
    return cut


# --- sentence ends ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(
            ["大家好，欢迎回到我的频道。", "电池让我非常失望！", "你们遇到过吗？", "好。"], id="zh"
        ),
        pytest.param(["他说：“我喜欢。”", "然后就走了。"], id="zh-quotes"),
        pytest.param(["價格是3.5元，不貴。", "我買了iPhone 15。"], id="zh-numbers"),
        pytest.param(["我……我不知道该说什么。", "好吧。"], id="zh-ellipsis"),
        pytest.param(["映画は良かったです！", "最後に泣いてしまいました。", "本当に？"], id="ja"),
        pytest.param(["「はい。」と彼は言った。", "そして帰った。"], id="ja-said"),
        pytest.param(["Ａは１．５です。", "Ｂは２，０００円です｡", "はい。"], id="ja-fullwidth"),
        pytest.param(["영화가 정말 좋았어요!", "특히 마지막이요.", "그렇죠?"], id="ko"),
        pytest.param(["यह बहुत अच्छा है।", "मुझे पसंद है।", "क्या आप आएंगे?", "हाँ॥"], id="hi"),
        pytest.param(["هل هذا جيد جدا؟", "نعم، هذا جيد؛ شكرا لك.", "وداعا!"], id="ar"),
        pytest.param(["یہ بہت اچھا ہے۔", "مجھے پسند ہے۔"], id="ur"),
        pytest.param(["¿Qué?", "¡No puede ser!", "Te lo dije, ¿verdad?", "Pero, ¡qué!"], id="es"),
        pytest.param(
            ["El Sr. García vino.", "Ganó EE. UU. ayer.", "Esto, p. ej. aquí."], id="es-titles"
        ),
        pytest.param(["Das ist z. B. am 3. Mai gut.", "„Hallo.“", "»Nein.«", "Ja."], id="de"),
        pytest.param(["Přijdu 3. května.", "Dobře."], id="cs"),
        pytest.param(["Τι είναι αυτό;", "Δεν ξέρω."], id="el"),
        pytest.param(["Սա շատ լավ է։", "Ինձ դուր է գալիս։"], id="hy"),
        pytest.param(["ይህ በጣም ጥሩ ነው።", "ትመጣለህ፧", "አዎ።"], id="am"),
        pytest.param(["ဒါက ကောင်းတယ်။", "ကြိုက်တယ်၊ တကယ်ပါ။"], id="my"),
        pytest.param(["នេះល្អណាស់។", "ខ្ញុំចូលចិត្តវា៕", "អរគុណ!"], id="km"),
        pytest.param(["สวัสดีทุกคน", "ฉันชอบหนังเรื่องนี้มาก แต่ตอนจบเศร้า", "มันดีจริงๆ นะ"], id="th"),
        pytest.param(["ສະບາຍດີທຸກຄົນ", "ຂ້ອຍມັກມັນ ແຕ່ມັນແພງ"], id="lo"),
        pytest.param(["Visit example.com, v2.0.", "It is 3.5 or .5.", "Really?!"], id="en"),
    ],
)
def test_sentences_of(found: list[str]) -> None:
    space = "" if joins(found[0], found[1]) else " "
    assert sentences(space.join(found)) == found


def test_stops_without_a_space_behind_them_end_sentences_too() -> None:
    assert sentences("है।मुझे") == ["है।", "मुझे"]
    assert sentences("جيد؟نعم") == ["جيد؟", "نعم"]
    assert sentences("好.我来") == ["好.", "我来"]
    assert sentences("Prices:1.5.2") == ["Prices:1.5.2"]


def test_two_pieces_of_one_word_are_one() -> None:
    assert not ends_sentence("example.", "com", spaced=False)
    assert not ends_sentence("3.", "5", spaced=False)
    assert ends_sentence("example.", "Come", spaced=True)


def test_a_space_is_punctuation_where_words_have_none() -> None:
    assert ends_clause("好", "我", spaced=True)
    assert not ends_clause("好", "我", spaced=False)
    assert ends_clause("มาก", "แต่", spaced=True)
    assert not ends_clause("very", "good", spaced=True)
    for word in ("so,", "也，", "و،", "well;", "ሰላም፣", "တယ်၊", "so —", "(so,)"):
        assert ends_clause(word, "x", spaced=True), word


# --- lines --------------------------------------------------------------------------------


def test_chinese_and_japanese_lines_join_without_a_space() -> None:
    for left, right in (
        ("好", "我"),
        ("好。", "我"),
        ("です", "「は"),
        ("カー", "ド"),
        ("！", "我"),
    ):
        assert joins(left, right)
    for left, right in (("so", "it"), ("好", "iPhone"), ("좋아", "요"), ("มาก", "ดี"), ("", "我")):
        assert not joins(left, right)


def test_captions_without_full_stops_are_phrases() -> None:
    assert without_stops(["今天我们去公园", "真的吗？", "好开心啊"])
    assert not without_stops(["今天我们去公园。", "真的吗？", "好开心啊"])
    assert not without_stops(["So we went", "to the park"])
    assert not without_stops([])
    assert closes_phrase("园")
    assert closes_phrase("です")
    for goes_on in ("は", "を", "，", "park", "มาก"):
        assert not closes_phrase(goes_on), goes_on


# --- pieces -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("two words", ["two", "words"]),
        ("well-known, 3.5% don’t", ["well-known,", "3.5%", "don’t"]),
        ("他说“好。”然后", ["他", "说", "“好。”", "然", "后"]),
        ('说"好。"然', ['说"好。"', "然"]),
        ("買った。ｶﾞﾗｽっぽい", ["買った。", "ｶﾞ", "ﾗ", "ｽっぽ", "い"]),
        ("時々コーヒー", ["時々", "コー", "ヒー"]),
        ("第15日、2,000円", ["第", "15日、", "2,000円"]),
        ("我用iPhone拍", ["我", "用", "iPhone", "拍"]),
        ("👩‍👩‍👧好が́", ["👩‍👩‍👧", "好", "が́"]),
        ("เรื่องน้ำ", ["เรื่", "อ", "ง", "น้ำ"]),
        ("မြန်မာနိုင်ငံ", ["မြန်", "မာ", "နိုင်", "ငံ"]),
        ("ខ្ញុំចិត្ត", ["ខ្ញុំ", "ចិ", "ត្ត"]),
        ("क्षि।मुझे", ["क्षि।", "मुझे"]),
        ("안녕。나는", ["안녕。", "나는"]),
        ("नमस्ते", ["नमस्ते"]),
        ("👍🏽👍🏽 🇩🇪🇫🇷", ["👍🏽👍🏽", "🇩🇪🇫🇷"]),
        (" ", []),
    ],
)
def test_pieces_of(text: str, found: list[str]) -> None:
    assert parts(text) == found


def test_words_begin_where_that_can_be_told() -> None:
    assert [piece.text for piece in pieces("我的手机了吗很好") if piece.word] == [
        "我",
        "手",
        "吗",
        "很",
    ]
    assert [piece.text for piece in pieces("私の映画とても") if piece.word] == ["私", "映"]
    assert next(pieces("มากเพื่อน")) == Piece("มา", spaced=True, word=True)
    assert [piece.text for piece in pieces("มากเพื่อน") if piece.word] == ["มา", "เพื่"]


def test_hours_of_text_without_spaces_take_seconds() -> None:
    assert sum(1 for _ in pieces("我喜欢这部电影。" * 20_000)) == 140_000


# --- what always holds --------------------------------------------------------------------

# Letters, marks, digits and signs of the scripts above, with what joins and what is not a letter.
ANY_SCRIPT = st.text(
    st.sampled_from(
        "ab Zé3.,!?;:\"'“”‘’«»¿¡…—-*_()%$€ 好我的了吗。，、！？「」『』（）１．５"
        "はがっゃー々アィｶﾞ｡한국ㄅकि्षया।॥ابجُ؟،۔؛שלוםกเรื่ำๆฯ ะກເາຳໆမြန်ာ္ဒ၊။ខ្ញុំ។៕"
        "Ελ;ա։ሰ።፣👩👧👍🏽🇩🇪\u200d\ufe0f\u0301\u3000\ud83d"
    ),
    max_size=80,
)


@settings(max_examples=400, derandomize=True, deadline=None, database=None)
@given(ANY_SCRIPT)
def test_no_character_is_lost_or_moved_and_no_cluster_cut(text: str) -> None:
    found = list(pieces(text))
    assert "".join(piece.text for piece in found) == "".join(text.split())
    assert "".join(" " * piece.spaced + piece.text for piece in found).split() == text.split()
    assert all(piece.text for piece in found)
    for word in text.split():
        clusters = regex.findall(r"\X", word)
        ends = {0}
        for cluster in clusters:
            ends.add(max(ends) + len(cluster))
        at = 0
        for piece in pieces(word):
            assert at in ends
            at += len(piece.text)
    for piece, following in pairwise(found):
        for rule in (ends_sentence, ends_clause):
            assert rule(piece.text, following.text, spaced=following.spaced) in (True, False)
