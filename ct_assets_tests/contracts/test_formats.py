"""Declared forms become strict regexes: JDK date patterns, LIKE, ECMA regular expressions."""

from __future__ import annotations

import re

import pytest

from ct_assets.contracts.formats import date_format, like_regex, linear_regex


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("yyyy-MM-dd", "2011-01-04", "2011-1-4"),
        ("dd/MM/yyyy HH:mm", "04/01/2011 08:44", "04/01/2011 8:44"),
        ("d.M.yyyy", "4.1.2011", "04.01.2011"),
        ("yyyy-MM-dd'T'HH:mm:ss", "2011-01-04T08:44:00", "2011-01-04 08:44:00"),
        ("yyyy-MM-dd HH:mm:ss.SSS", "2011-01-04 08:44:00.123", "2011-01-04 08:44:00"),
        ("yyyy-MM-dd'T'HH:mm:ssXXX", "2011-01-04T08:44:00Z", "2011-01-04T08:44:00"),
    ],
)
def test_supported_patterns(pattern: str, good: str, bad: str) -> None:
    form = date_format(pattern)
    assert form is not None
    assert re.fullmatch(form.regex.strip("^$"), good)
    assert not re.fullmatch(form.regex.strip("^$"), bad)


@pytest.mark.parametrize("pattern", ["yy-MM-dd", "yyy-MM-dd", "hh:mm a", "EEE dd", "yyyy'", "yyyy-MM-dd #"])
def test_forms_that_would_need_a_guess_are_not_supported(pattern: str) -> None:
    assert date_format(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        (r"\d+", "[0-9]+"),
        (r"[\d\w]", "[0-9A-Za-z0-9_]"),
        (r"\D", "[^0-9]"),
        ("(?=x)", None),
        (r"(a)\1", None),
        ("(", None),
        (r"[a&&b]", r"[a\&\&b]"),
        (r"a\/b", "a/b"),
    ],
)
def test_ecma_patterns(pattern: str, wanted: str | None) -> None:
    assert linear_regex(pattern) == wanted


@pytest.mark.parametrize(
    ("like", "text", "matches"),
    [
        ("C%", "C1", True),
        ("C%", "xC", False),
        (r"GIFT\_%", "GIFT_1", True),
        (r"GIFT\_%", "GIFTX1", False),
        ("a_c", "abc", True),
        ("a.c", "abc", False),
    ],
)
def test_like(like: str, text: str, matches: bool) -> None:
    assert bool(re.fullmatch(like_regex(like), text)) == matches
