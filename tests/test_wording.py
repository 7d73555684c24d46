"""Words of an answer: no certainty is claimed, and each kind of answer is told apart."""

import math
from dataclasses import replace

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from test_answers import answer

from zoomloc.world.answers import Alternative
from zoomloc.world.wording import (
    AGAINST,
    NOT_HERE,
    NOT_THERE,
    called,
    given,
    metres,
    others,
    percent,
    sure,
    verdict,
    warnings,
)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (1.0, "over 99.9 %"),
        (1.0 + 1e-9, "over 99.9 %"),  # sums of many masses
        (0.99951, "over 99.9 %"),
        (0.999, "99.9 %"),
        (0.9961, "99.6 %"),
        (0.9949, "99 %"),
        (0.62, "62 %"),
        (0.0994, "9.9 %"),
        (0.001, "0.1 %"),
        (0.00099, "under 0.1 %"),
        (0.0, "under 0.1 %"),
        (math.nan, "unknown"),
        (None, "unknown"),
    ],
)
def test_shares(share, words):
    assert percent(share) == words


@drawn(st.floats(0, 1))
def test_no_share_is_told_as_all_or_nothing(share):
    told = percent(share)
    value = float(told.removesuffix(" %").split()[-1])
    assert 0.1 <= value <= 99.9 and value == pytest.approx(100 * share, abs=0.51)


@pytest.mark.parametrize(
    ("length_m", "words"),
    [
        (0.04, "0 m"),
        (4.96, "5 m"),
        (5.3, "5.3 m"),
        (9.97, "10 m"),
        (994.4, "994 m"),
        (995.0, "1.0 km"),
        (9940.0, "9.9 km"),
        (1_204_952.0, "1,205 km"),
        (math.inf, "unknown"),
        (None, "unknown"),
    ],
)
def test_lengths(length_m, words):
    assert metres(length_m) == words


def test_not_from_here_is_another_statement_than_unknown():
    plain, unknown = answer(), answer(unknown=True)
    foreign, both = answer(not_here=True), answer(unknown=True, not_here=True)
    assert [verdict(a, -1.0) for a in (plain, unknown, foreign, both)] == [
        "", "unknown", NOT_HERE, NOT_HERE,
    ]  # fmt: skip
    assert [called(a) for a in (plain, unknown, foreign)] == ["answer"] + 2 * ["best guess"]
    assert sure(plain) == sure(unknown) == "probability 75 % within 50 m"
    assert (
        sure(replace(foreign, within_m=25.0)) == "if it is from here, probability 75 % within 25 m"
    )


def test_warnings_tell_a_guess_and_a_place_that_was_given_wrongly():
    assert warnings(answer(), -1.0) == warnings(answer(agreement=-1.0), -1.0) == []
    (told,) = warnings(answer(agreement=-1.01), -1.0)
    assert told.lower() == f"{AGAINST}."
    first, second = warnings(answer(unknown=True, agreement=-2.0), -1.0)
    assert first.lower().startswith("unknown") and second == told


def test_a_low_evidence_under_a_contradicted_place_is_not_laid_on_the_region_alone():
    (told,) = warnings(answer(not_here=True, agreement=-2.0), -1.0)
    assert told.lower().startswith(NOT_THERE) and "place that was given" in told
    (told,) = warnings(answer(not_here=True, agreement=-0.5), -1.0)
    assert told.lower().startswith(NOT_HERE)


def test_other_places_keep_their_numbers_where_one_is_no_place():
    places = ((48.11, -1.7), (math.nan, -1.7), (95.0, 0.0), (48.1, 190.0), (48.1, -1.69))
    found = others(answer(alternatives=tuple(Alternative(*place, 0.2) for place in places)))
    assert [other.number for other in found] == [1, 5]
    assert [other.words for other in found] == ["20 %, 1.1 km away", "20 %, 745 m away"]


def test_what_was_given_is_told_but_not_what_is_for_later_checks():
    told = {"search": "x", "heading": "90° ± 20°", "place": "within 500 m of 48.2, 16.4"}
    assert given(answer(given=told)) == "within 500 m of 48.2, 16.4, heading 90° ± 20°"
    assert given(answer(given={"search": "x"})) == given(answer()) == ""
