"""Values and settings are read as QEMU reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashsim.vmm.keyval import parse_id, parse_size, parse_truth, read
from crashsim.vmm.spans import Objection, Span

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def settings(text: str, first: str = "qom-type", flags: bool = True) -> dict[str, object]:
    mistakes: list[Objection] = []
    found = read(Span("word 1", text, 1, len(text)), first, mistakes.append, flags)
    assert not mistakes and found is not None
    return {name: setting.value for name, setting in found.items()}


def wrong(text: str, flags: bool = True) -> list[Objection]:
    mistakes: list[Objection] = []
    read(Span("word 1", text, 1, len(text)), "qom-type", mistakes.append, flags)
    assert mistakes
    return mistakes


@pytest.mark.parametrize("text", ["on", "yes", "true", "y"])
def test_four_words_mean_on(text: str) -> None:
    assert parse_truth(text)


@pytest.mark.parametrize("text", ["off", "no", "false", "n"])
def test_four_words_mean_off(text: str) -> None:
    assert not parse_truth(text)


@pytest.mark.parametrize("text", ["On", "TRUE", "1", "0", "", " on"])
def test_no_other_word_is_a_truth(text: str) -> None:
    with pytest.raises(ValueError, match="'on' or 'off'"):
        parse_truth(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096b", 4096),
        ("4096B", 4096),
        ("4k", 4 * KIB),
        ("4K", 4 * KIB),
        ("16m", 16 * MIB),
        ("16M", 16 * MIB),
        ("4G", 4 * GIB),
        ("4g", 4 * GIB),
        ("1T", 1 << 40),
        ("1P", 1 << 50),
        ("1E", 1 << 60),
        ("1.5G", 1536 * MIB),
        (".5G", 512 * MIB),
        ("1.G", GIB),
        ("1.0", 1),
        ("0.1k", 102),
        ("12.345M", 12944671),
        ("0x1000", 4096),
        ("0X1000", 4096),
        ("+4G", 4 * GIB),
        (" 4G", 4 * GIB),
        ("0x1b", 27),
    ],
)
def test_a_size_is_read_as_qemu_reads_it(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        *("", "G", ".", ".G", "4GB", "4GiB", "4 G", "-1", "1.5", "1.5b", "1.5e3", "0x", "0x1G"),
        *("0x1.8", "4Q", "inf", "nan", "8E", "99999999999999999999999999", "9" * 5000, "١"),
    ],
)
def test_what_qemu_does_not_read_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|number of bytes"):
        parse_size(text)


def test_a_bare_number_can_have_another_unit() -> None:
    assert parse_size("128", "m") == 128 * MIB
    assert parse_size("128k", "m") == 128 * KIB


@pytest.mark.parametrize("text", ["mem1", "a", "A-b.c_d9"])
def test_an_id_begins_with_a_letter(text: str) -> None:
    assert parse_id(text) == text


@pytest.mark.parametrize("text", ["", "1mem", "_a", "a b", "a/b", "é"])
def test_other_texts_are_no_ids(text: str) -> None:
    with pytest.raises(ValueError, match="identifier"):
        parse_id(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x,id=m", {"qom-type": "x", "id": "m"}),
        ("qom-type=x,id=m", {"qom-type": "x", "id": "m"}),
        ("id=m,qom-type=x", {"qom-type": "x", "id": "m"}),
        ("x,share", {"qom-type": "x", "share": "on"}),
        ("x,noshare", {"qom-type": "x", "share": "off"}),
        ("x,a=1,a=2", {"qom-type": "x", "a": "2"}),
        ("x,path=a,,b", {"qom-type": "x", "path": "a,b"}),
        ("x,path=a,,,b=c", {"qom-type": "x", "path": "a,", "b": "c"}),
        ("x,path=a=b", {"qom-type": "x", "path": "a=b"}),
        ("x,path=", {"qom-type": "x", "path": ""}),
        ("x,", {"qom-type": "x"}),
        ("", {}),
        ('{"qom-type": "x", "share": true}', {"qom-type": "x", "share": True}),
        ("{'qom-type': 'it\\'s', 'b': \"'\"}", {"qom-type": "it's", "b": "'"}),
        ("{'a': 'say \"x\"'}", {"a": 'say "x"'}),
    ],
)
def test_settings_are_told_apart(text: str, expected: dict[str, object]) -> None:
    assert settings(text) == expected


@given(st.dictionaries(st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True), st.text()))
def test_what_is_escaped_reads_back_as_it_was(values: dict[str, str]) -> None:
    assert (
        settings(",".join(f"{key}={value.replace(',', ',,')}" for key, value in values.items()))
        == values
    )


def test_the_monitors_object_add_takes_no_key_alone() -> None:
    (mistake,) = wrong("x,id=m,share,size=1", flags=False)
    assert mistake.place is not None and (mistake.place.column, mistake.place.width) == (8, 5)
    assert "expected '=' after 'share'" in mistake.message and "share=on" in mistake.message


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ('{"a": }', 7, "this is not JSON"),
        ("{", 2, "this is not JSON"),
        ("{" * 100_000, 2, "this is not JSON"),
        ('{"a":' * 100_000, 1, "this is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", 1, "this is not JSON"),
        ('{"a": 1, "a": 2}', 2, "given twice"),
    ],
)
def test_what_is_no_json_is_refused_where_it_goes_wrong(
    text: str, column: int, message: str
) -> None:
    (mistake,) = wrong(text)
    assert message in mistake.message
    assert mistake.place is not None and mistake.place.column == column


def test_a_caret_stands_below_the_stretch_however_long_the_line() -> None:
    text = "x" * 500 + "HERE" + "y" * 500
    line, caret = Span("word 1", text, 501, 4).caret()
    start = caret.index("^")
    assert line[start : start + 4] == "HERE" and caret.count("^") == 4
    assert len(line) <= 88


def test_what_a_terminal_would_act_on_is_not_shown() -> None:
    mistake = Objection(Span("word 1", "a\x1b[2J\nb", 1, 1), "got \x1b[31m")
    assert "\x1b" not in str(mistake) and len(str(mistake).splitlines()) == 3
