"""docs/PROTOCOL.md and the code say the same: fields of messages, verbs, captured payloads.

The tables between ``<!-- NAME -->`` and ``<!-- end -->`` are made from the messages' definitions:
``python tests/clients/test_protocol_page.py`` writes them anew.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from zray.protocol import codec  # noqa: E402
from zray.protocol import messages as m  # noqa: E402
from zray.protocol.errors import ErrorRecord  # noqa: E402

PAGE = ROOT / "docs" / "PROTOCOL.md"
SESSION = ROOT / "examples" / "clients" / "node" / "session.mjs"
BLOCK = re.compile(r"<!-- (\w+) -->\n(.*?)<!-- end -->\n", re.DOTALL)
TRACE = re.compile(r"```trace\n(.*?)```\n", re.DOTALL)
# What a node that speaks for itself says and hears, beside what is in session.mjs.
NODE_VERBS = (
    *(m.Credit, m.Tasks, m.Done, m.Ack, m.Reclaim, m.Returned, m.CancelTask, m.Job, m.JobEnded),
    *(m.Announce, m.Discard),
)
KINDS = {kind.__name__: kind for kind in m.ALL}
RECORDS: dict[str, Any] = {
    **{
        kind.__name__: kind
        for kind in vars(m).values()
        if inspect.isclass(kind) and issubclass(kind, msgspec.Struct) and kind not in m.ALL
    },
    "ErrorRecord": ErrorRecord,
}


# ---- tables from definitions ---------------------------------------------------------------


def verb(kind: type) -> str:
    """ACTOR_CREATED for ActorCreated."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).upper()


def table(name: str) -> str:
    """Heading, words and fields of one message or record, as the page has them."""
    kind = KINDS.get(name) or RECORDS[name]
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    if name in KINDS:
        heading = f"#### {verb(kind)} ({info.tag})"
        fields = info.fields[1:]  # seq is in the text
    else:
        heading = f"#### {name}"
        fields = info.fields
    lines = [heading, ""]
    words = inspect.cleandoc(kind.__doc__ or "").replace("``", "`")
    if words and name != "ErrorRecord":
        lines += [words, ""]
    if fields:
        lines += ["| field | type | default |", "|---|---|---|"]
        lines += [f"| `{f.name}` | {words_of(f.type)} | {default_of(f)} |" for f in fields]
    else:
        lines += ["No fields."]
    return "\n".join(lines) + "\n"


def words_of(kind: Any) -> str:
    """A type in the words of msgpack."""
    info = msgspec.inspect
    if isinstance(kind, info.UnionType):
        return " or ".join(words_of(one) for one in kind.types)
    if isinstance(kind, info.NoneType):
        return "nil"
    if isinstance(kind, info.BytesType):
        low, high = kind.min_length, kind.max_length
        return f"bin, {low} bytes" if low else f"bin, at most {high} bytes" if high else "bin"
    if isinstance(kind, info.StrType):
        return f"str, at most {kind.max_length} characters" if kind.max_length else "str"
    if isinstance(kind, info.IntType):
        return _range(kind)
    if isinstance(kind, info.ListType):
        return f"array of {words_of(kind.item_type)}"
    if isinstance(kind, info.TupleType):
        return f"[{', '.join(words_of(one) for one in kind.item_types)}]"
    if isinstance(kind, info.StructType):
        return f"[{kind.cls.__name__}](#{kind.cls.__name__.lower()})"
    return {"FloatType": "float", "BoolType": "bool"}[type(kind).__name__]


def _range(kind: Any) -> str:
    if kind.ge is None:
        return "int"
    last = kind.le if kind.le is not None else kind.lt - 1
    return f"int, {kind.ge} to {'2^53-1' if last == 2**53 - 1 else last}"


def default_of(field: Any) -> str:
    if field.required:
        return ""
    value = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory()
    shown = {b"": "empty", "": "empty", None: "nil", True: "true", False: "false"}
    if isinstance(value, list):
        return "empty"
    return str(shown.get(value, value)) if not isinstance(value, int | float) else _number(value)


def _number(value: float) -> str:
    return str(value).lower()


def written(page: str) -> str:
    """The page with its tables as the code has them."""
    return BLOCK.sub(lambda found: f"<!-- {found[1]} -->\n{table(found[1])}<!-- end -->\n", page)


# ---- tests ---------------------------------------------------------------------------------


def test_the_tables_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    for name, shown in BLOCK.findall(page):
        assert shown == table(name), f"{name} differs; run python {Path(__file__).name}"


def test_every_verb_of_the_client_and_of_a_node_has_its_table() -> None:
    documented = {name for name, _ in BLOCK.findall(PAGE.read_text())}
    body = SESSION.read_text().partition("VERB = {")[2].partition("}")[0]
    verbs = {name: int(tag) for name, tag in re.findall(r"([A-Z_]+): (\d+)", body)}
    known = {verb(kind): kind for kind in m.ALL}
    for name, tag in verbs.items():
        assert known[name].__struct_config__.tag == tag, name
    used = {known[name] for name in verbs} | {*NODE_VERBS}
    assert not {kind.__name__ for kind in used} - documented


def test_every_record_that_a_table_names_has_a_table() -> None:
    page = PAGE.read_text()
    documented = {name.lower() for name, _ in BLOCK.findall(page)}
    named = {
        anchor for _, block in BLOCK.findall(page) for anchor in re.findall(r"\(#(\w+)\)", block)
    }
    assert named <= documented


def test_the_captured_payloads_are_what_is_said_of_them() -> None:
    count = 0
    for _, data, text in traces():
        payload = codec.decode(data)
        assert not payload.refused, payload.refused
        assert shown(data) == text
        count += len(payload.messages)
    assert count > 10


def test_links_inside_the_page_have_a_heading() -> None:
    page = PAGE.read_text()
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).strip().lower().replace(" ", "-")
        for line in page.splitlines()
        if line.startswith("#")
    }
    assert {*re.findall(r"\]\(#([\w-]+)\)", page)} <= headings


def traces() -> Iterator[tuple[str, bytes, str]]:
    """Direction, payload, and the same as JSON, of each payload that the page shows."""
    for block in TRACE.findall(PAGE.read_text()):
        for part in re.split(r"\n(?=[CS] )", block):
            head, _, text = part.partition("\n\n")
            direction, data = head[0], bytes.fromhex("".join(head[1:].split()))
            yield direction, data, text.strip()


def shown(data: bytes) -> str:
    """A payload as JSON, a message a line, with bin as 0x and its digits."""
    epoch, messages = msgspec.msgpack.decode(data)
    lines = ",\n  ".join(json.dumps(_plain(message), ensure_ascii=False) for message in messages)
    return f"[{epoch}, [\n  {lines}\n]]"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
