"""Tokens, codes and cookies: who has the key makes them, and nobody else."""

from __future__ import annotations

import pytest

from zray import limits
from zray.runtime.web_keys import WebKeys

NOW_S = 1_800_000_000.0
KEYS = WebKeys(b"one secret")
OTHERS = WebKeys(b"another")


def test_a_token_is_that_of_its_cluster_alone() -> None:
    assert KEYS.is_token(KEYS.token) and WebKeys(b"one secret").token == KEYS.token
    for text in (OTHERS.token, KEYS.token[:-1], KEYS.token + "x", "", "\xe9\ud800"[:1]):
        assert not KEYS.is_token(text)


@pytest.mark.parametrize(
    ("make", "read", "seconds"),
    [
        (KEYS.code, KEYS.read_code, limits.LOGIN_CODE_S),
        (KEYS.cookie, KEYS.read_cookie, limits.LOGIN_S),
    ],
    ids=["code", "cookie"],
)
def test_what_is_made_is_read_for_its_time(make, read, seconds: float) -> None:
    text = make(NOW_S)
    assert read(text, NOW_S).time_s == NOW_S and len(read(text, NOW_S).number) == 16
    assert read(text, NOW_S + seconds - 1) and not read(text, NOW_S + seconds + 1)
    assert read(text, NOW_S - 1) and not read(text, NOW_S - 60)
    assert make(NOW_S) != text


def test_one_is_not_taken_for_the_other_nor_one_of_another_cluster() -> None:
    assert not KEYS.read_cookie(KEYS.code(NOW_S), NOW_S)
    assert not KEYS.read_code(KEYS.cookie(NOW_S), NOW_S)
    assert not KEYS.read_code(OTHERS.code(NOW_S), NOW_S)


def test_nonsense_is_none() -> None:
    text = KEYS.code(NOW_S)
    for wrong in ("", "A", "=" * 99, "\xff", text[:-1], text + "AA", text.swapcase(), "A" * 10**6):
        assert KEYS.read_code(wrong, NOW_S) is None


def test_each_session_has_a_word_of_its_own_against_forged_requests() -> None:
    one, two = (KEYS.read_cookie(KEYS.cookie(NOW_S), NOW_S) for _ in range(2))
    assert one and two and KEYS.csrf(one) == KEYS.csrf(one) != KEYS.csrf(two)


def test_nothing_shows_the_secret() -> None:
    assert "secret" not in repr(KEYS) and KEYS.token not in repr(KEYS)
