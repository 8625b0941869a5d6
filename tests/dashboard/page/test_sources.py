"""The page's files hold to what its safety rests on, whatever a browser would let them do."""

from __future__ import annotations

import re
from pathlib import Path

STATIC = Path(__file__).resolve().parents[3] / "zray" / "dashboard" / "static"
OWN = [path for path in sorted(STATIC.rglob("*")) if path.is_file() and "vendor" not in path.parts]
LINES_MAX = 400
# Ways from a text to markup or code; one of them would be enough.
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment"
    r"|\beval\(|new Function|srcdoc|javascript:|setHTML|cssText|importScripts"
)
ELSEWHERE = re.compile(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}/")


def test_no_text_becomes_markup_or_code() -> None:
    wrong = [
        f"{path.name}:{number}: {line.strip()}"
        for path in OWN
        if path.suffix in (".js", ".html")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    names = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert names
    assert all((STATIC.parent / name).is_file() for name in names)
    for path in OWN:
        found = ELSEWHERE.findall(path.read_text())
        assert not [one for one in found if "www.w3.org" not in one], path


def test_what_is_not_our_own_has_its_licence() -> None:
    folders = list((STATIC / "vendor").iterdir())
    assert folders
    assert all("Permission is hereby granted" in (f / "LICENSE").read_text() for f in folders)


def test_files_are_small_and_say_what_they_own() -> None:
    for path in OWN:
        if path.suffix in (".js", ".css"):
            text = path.read_text()
            assert text.startswith("/* "), path
            assert len(text.splitlines()) <= LINES_MAX, path
