"""What notebooks show of references, actors and the cluster: whole, escaped, in any theme."""

from __future__ import annotations

from html.parser import HTMLParser

import zray


class Page(HTMLParser):
    """The texts of a page; a tag that is not closed, or of another kind, is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("div", "strong", "table", "tr", "th", "td"), tag
        assert all(name in ("style", "scope") for name, _ in attrs)
        assert "#" not in str(dict(attrs).get("style"))  # colours are the page's
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def texts(thing: object) -> list[str]:
    return Page(thing._repr_html_()).texts  # type: ignore[attr-defined]


def test_what_a_notebook_shows() -> None:
    with zray.init(num_cpus=1, namespace="<b>mine") as context:

        @zray.remote
        def work() -> int:
            return 1

        ref = work.remote()
        assert zray.get(ref) == 1
        assert texts(ref) == ["ObjectRef", "State", "ready", "Object", ref.hex()]
        named = type("<script>alert(1)</script>", (), {"go": lambda self: 1})
        actor = zray.remote(num_cpus=0)(named).options(name='"><img src=x>\x1b[2J').remote()
        shown = texts(actor)
        assert shown[:3] == ["Actor", "Class", "<script>alert(1)</script>"]
        assert '"><img src=x>\ufffd[2J' in shown and "go" in shown[-1]
        about = dict(zip(texts(context)[1::2], texts(context)[2::2], strict=True))
        assert about["Namespace"] == "<b>mine" and about["Nodes"] == "1"
        assert about["State"] == "OK" and about["In all"].startswith("1 CPUs, ")
    assert "not connected" in texts(context) and "disconnected" in texts(ref)
