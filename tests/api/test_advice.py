"""Advice of a real driver, from what a program really does."""

from __future__ import annotations

import re

from tests.api.conftest import Run

PROGRAM = """
    zray.init(num_cpus=2)

    @zray.remote
    def work(value=None):
        return 1

    advice = zray.runtime.session.current().advice

    def wanted(code, until):
        return time.monotonic() < until and (advice.silent or advice.wants(code))

    until = time.monotonic() + (6 if advice.silent else 20)
    while wanted("ZR-6001", until):
        zray.get(work.remote())
    large = bytes(2 << 20)

    @zray.remote
    def capture():
        return len(large)

    zray.get(capture.remote())
    zray.get([work.remote(large) for _ in range(20)])
    while wanted("ZR-6004", until + 4):
        zray.get([work.remote() for _ in range(5000)])
"""


def test_each_is_given_once_on_a_line_of_its_own(run: Run) -> None:
    lines = run(PROGRAM).stderr.splitlines()
    codes = [re.match(r"zray: advice (ZR-\d+): \w.*\(ZRAY_ADVICE=0 turns", line) for line in lines]
    found = sorted(code[1] for code in codes if code is not None)
    assert found == ["ZR-6001", "ZR-6002", "ZR-6003", "ZR-6004"] and len(lines) == 4


def test_the_environment_turns_it_off(run: Run) -> None:
    text = PROGRAM.replace(
        "advice.wants", "advice.silent and time.monotonic() < until - 5 and bool"
    )
    assert run(text, ZRAY_ADVICE="0").stderr == ""


def test_a_program_that_does_well_hears_nothing(run: Run) -> None:
    text = """
    zray.init(num_cpus=2)

    @zray.remote
    def work(value):
        time.sleep(0.001)
        return value

    ref = zray.put(bytes(2 << 20))
    until = time.monotonic() + 5
    while time.monotonic() < until:
        zray.get([work.remote(ref) for _ in range(50)])
    """
    assert run(text).stderr == ""
