"""Advice: once each, only where it helps, and nothing for who wants none."""

from __future__ import annotations

from collections.abc import Callable

from zray import limits
from zray.core.client import advice as a

MIB = 1 << 20


class Bench:
    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.advice = a.Advice(lambda code, text: self.said.append((code, text)))
        self.digests = 0

    def codes(self) -> list[str]:
        return [code for code, _ in self.said]

    def look(self, waits: int, finished: int, in_flight: int = 0, references: int = 0) -> None:
        self.advice.look(a.Seen(waits, finished, in_flight, references), list)

    def pass_by_value(self, sample: object, whole: bytes, size: int = MIB) -> None:
        def digest() -> bytes:
            self.digests += 1
            return whole

        self.advice.argument(size, sample, digest)


def test_tasks_that_are_waited_for_one_by_one_for_a_while() -> None:
    bench = Bench()
    bench.look(1000, 1000)
    assert not bench.said  # it may be over already
    bench.look(2000, 2000, in_flight=1)
    ((code, text),) = bench.said
    assert code == a.GET_IN_LOOP and "the last 2,000 tasks" in text
    assert "\n" not in text and "ZRAY_ADVICE=0" in text
    bench.look(3000, 3000)
    assert len(bench.said) == 1


def test_tasks_that_run_beside_each_other_are_not() -> None:
    for looks in (
        [(1000, 1000, 5), (2000, 2000, 5)],  # several threads, each with one
        [(10, 1000, 0), (20, 2000, 0)],  # many for each get
        [(1000, 1000, 0), (1010, 2000, 0), (2010, 3000, 0)],
        [(50, 50, 0), (100, 100, 0), (150, 150, 0)],  # seldom: nobody is held up
    ):
        bench = Bench()
        for look in looks:
            bench.look(*look)
        assert not bench.said, looks


def test_a_function_that_captures_much() -> None:
    bench = Bench()
    bench.advice.function("small", limits.ADVICE_FUNCTION_BYTES - 1)
    assert not bench.said
    for _ in range(2):
        bench.advice.function("large", 3 * MIB)
    assert bench.codes() == [a.LARGE_CLOSURE] and "large captures 3.0 MiB" in bench.said[0][1]


def test_the_same_argument_again_and_again() -> None:
    bench = Bench()
    times = limits.ADVICE_SAME_ARGUMENTS + limits.ADVICE_DIGESTS
    for _ in range(times):
        bench.pass_by_value("s", b"same")
    assert bench.codes() == [a.SAME_ARGUMENT] and "10 times" in bench.said[0][1]
    assert bench.digests == limits.ADVICE_DIGESTS


def test_arguments_that_only_look_alike_cost_little() -> None:
    bench = Bench()
    for number in range(800):
        bench.pass_by_value("zeros", b"%d" % number)
    assert not bench.said and bench.digests <= 800 // 4
    for number in range(100):
        bench.pass_by_value(number, b"same")
        bench.pass_by_value("other", b"same", size=2 * MIB)
    assert not bench.said


def test_tiny_tasks_and_many_references() -> None:
    bench = Bench()
    names: list[str] = []
    tiny: Callable[[], list[str]] = lambda: names  # noqa: E731
    bench.advice.look(a.Seen(0, 0, 0, limits.ADVICE_REFERENCES - 1), tiny)
    assert not bench.said
    names.append("inc")
    for _ in range(3):
        bench.advice.look(a.Seen(0, 0, 0, limits.ADVICE_REFERENCES), tiny)
    assert bench.codes() == [a.MANY_REFERENCES, a.TINY_TASKS]
    assert "500,000 references" in bench.said[0][1] and "tasks of inc took" in bench.said[1][1]


def test_who_wants_none_gets_none() -> None:
    bench = Bench()
    bench.advice.silent = True
    bench.advice.function("large", 3 * MIB)
    for number in range(100):
        bench.pass_by_value("s", b"same")
        bench.advice.look(a.Seen(1000 * number, 1000 * number, 0, 10**7), lambda: ["inc"])
    assert not bench.said and not bench.digests
