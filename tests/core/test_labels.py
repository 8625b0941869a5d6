"""Selectors of labels: which nodes they mean, and what tasks then need."""

from __future__ import annotations

import pytest

from zray.core import labels, resources

LABELS = {"region": "us", "tier": "a"}


@pytest.mark.parametrize(
    ("wanted", "agrees"),
    [
        ("us", True),
        ("eu", False),
        ("!eu", True),
        ("!us", False),
        ("in(us,eu)", True),
        ("in(eu, us)", True),
        ("in(eu)", False),
        ("!in(eu,us)", False),
        ("!in(eu)", True),
        ("", False),
    ],
)
def test_what_a_value_agrees_with(wanted: str, agrees: bool) -> None:
    assert labels.selects([("region", wanted)], LABELS) is agrees


@pytest.mark.parametrize(("wanted", "agrees"), [("x", False), ("!x", True), ("!in(x)", True)])
def test_a_label_that_is_not_there(wanted: str, agrees: bool) -> None:
    assert labels.selects([("zone", wanted)], LABELS) is agrees


def test_all_of_a_selector_has_to_agree() -> None:
    assert labels.selects([("region", "us"), ("tier", "a")], LABELS)
    assert not labels.selects([("region", "us"), ("tier", "b")], LABELS)
    assert labels.selects([], LABELS)


def test_a_term_is_read_as_it_was_made() -> None:
    selectors = [[("region", "us")], [("region", "!eu"), ("tier", "in(a,b)")]]
    amounts = [("CPU", 10_000), (f"{resources.ENVIRONMENT}ab", 0)]

    assert labels.read(labels.term(selectors, amounts)) == (selectors, (("CPU", 10_000),))
    assert labels.read(labels.term(selectors[:1], amounts)) == (selectors[:1], ())
    assert labels.term([], amounts) == ""


def test_needs_are_said_in_words() -> None:
    term = labels.term([[("region", "us")], []], [("CPU", 10_000)])
    needs = resources.needs([("CPU", 10_000)], term)

    assert resources.in_words(needs) == "CPU 1, the labels region=us or any"
    assert resources.in_words([(term, 0)]) == "not the labels region=us or any"
    assert resources.countable(needs) == resources.at_node(needs) == (("CPU", 10_000),)
    assert resources.is_cpu_only(needs)


def test_an_environment_takes_nothing_and_tells_classes_apart() -> None:
    plain = resources.needs([("CPU", 10_000)])
    apart = resources.needs([("CPU", 10_000), (f"{resources.ENVIRONMENT}ab", 0), ("GPU", 0)])

    assert apart != plain
    assert resources.countable(apart) == plain
    assert resources.at_node(apart) == apart
    assert resources.is_cpu_only(apart)
    assert resources.fits({"CPU": 20_000}, apart)
    assert resources.slots({"CPU": 20_000}, apart) == 2
    assert resources.missing({"CPU": 1}, apart) == plain
    assert resources.in_words(apart) == "CPU 1"
