"""Messages to payloads and back. Validates everything that comes in; never unpickles.

A payload is a msgpack array ``[epoch, [message, ...]]``: one per destination and turn of the
sender's loop. On a link between a raylet and its workers the epoch is 0.
"""

from collections.abc import Sequence
from typing import NamedTuple, Union, cast

import msgspec

from zray import limits
from zray.errors import ProtocolError
from zray.protocol import splitting
from zray.protocol.messages import ALL, PROTOCOL_MINOR, PROTOCOL_VERSION, Message

_AnyMessage = Union[ALL]  # type: ignore[valid-type]  # noqa: UP007 - built from the table
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[int, list[_AnyMessage]])
_one_decoder = msgspec.msgpack.Decoder(_AnyMessage)
_VERBS = frozenset(kind.__struct_config__.tag for kind in ALL)
# ValueError: a text that is not UTF-8, which msgspec does not turn into an error of its own.
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
# A text with half a character, or an integer that no field has.
_UNWRITABLE = (msgspec.MsgspecError, ValueError, OverflowError, TypeError)

_PAYLOAD_ITEMS_MAX = limits.PAYLOAD_ITEMS_MAX  # as the messages' lists have it
_INTEGER_BYTES = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}  # of the epoch


class Bad(NamedTuple):
    """A message that was refused; ``seq`` is 0 where even that could not be read."""

    seq: int
    text: str


class Payload(NamedTuple):
    """What one payload says: its messages in order, and what of it was refused.

    ``epoch``: the sender's, as its session has it; 0 between a raylet and its workers.
    """

    epoch: int
    messages: list[Message]
    refused: list[Bad]


class Unsent(NamedTuple):
    """A message that cannot travel, and why: at most one thing of those that can be cut off."""

    message: Message
    text: str


def encode(
    epoch: int, messages: Sequence[Message], unsent: list[Unsent] | None = None
) -> list[bytes]:
    """Payloads of the messages, in order: one, or more where one would be too large.

    Args:
        unsent: gets what does not fit even alone, which is left out.

    Raises:
        ProtocolError: something does not fit, and ``unsent`` is None.
    """
    payload = _encoded(epoch, messages)
    if payload is not None and _fits(payload, messages):
        return [payload]
    payloads: list[bytes] = []
    refused: list[Unsent] = []
    _encode_parts(epoch, messages, payload, (payloads, refused), limits.FRAME_BYTES_MAX)
    if unsent is not None:
        unsent += refused
    elif refused:
        raise ProtocolError(f"{refused[0].text}; it was not sent")
    return payloads


def encode_local(messages: Sequence[Message], bytes_soft: int = 0) -> list[bytes]:
    """The same for a link within a machine, where one thing may have any size.

    ``bytes_soft``: of one payload; by default that of other links.

    Raises:
        ProtocolError: something is not a message's at all.
    """
    bound = bytes_soft or limits.PAYLOAD_BYTES_SOFT
    payload = _encoded(0, messages)
    if payload is not None and _fits(payload, messages, bound):
        return [payload]
    payloads: list[bytes] = []
    refused: list[Unsent] = []
    _encode_parts(0, messages, payload, (payloads, refused), None, bound)
    if refused:
        raise ProtocolError(f"{refused[0].text}; it was not sent")
    return payloads


def _encoded(epoch: int, messages: Sequence[Message]) -> bytes | None:
    """The payload; None: something in the messages cannot be encoded."""
    try:
        return _encoder.encode((epoch, messages))
    except _UNWRITABLE:
        return None


def _fits(payload: bytes, messages: Sequence[Message], bound: int = 0) -> bool:
    size = len(payload)
    if size > (bound or limits.PAYLOAD_BYTES_SOFT):
        return False
    # An item is a byte or more.
    return size <= limits.PAYLOAD_ITEMS_MAX or (
        sum(map(splitting.items, messages)) <= limits.PAYLOAD_ITEMS_MAX
    )


def _encode_parts(
    epoch: int,
    messages: Sequence[Message],
    payload: bytes | None,
    found: tuple[list[bytes], list[Unsent]],
    bytes_max: int | None,
    bound: int = 0,
) -> None:
    """Add to ``found`` payloads of what has to be cut."""
    size = len(payload) if payload is not None else 0
    count = sum(map(splitting.items, messages))
    pieces = max(size // (bound or limits.PAYLOAD_BYTES_SOFT), count // limits.PAYLOAD_ITEMS_MAX)
    parts: Sequence[Sequence[Message]]
    if len(messages) > 1:
        step = -(-len(messages) // max(2, pieces + 1))
        parts = [messages[low : low + step] for low in range(0, len(messages), step)]
    else:
        parts = [[part] for part in splitting.cut(messages[0], pieces + 1)]
        light = None if parts or bytes_max is None else splitting.lightened(messages[0])
        if light is not None:
            parts = [[light]]
    if not parts and payload is not None and (bytes_max is None or size <= bytes_max):
        found[0].append(payload)
    elif not parts:
        found[1].append(_unsent(messages[0], size, bytes_max))
    for part in parts:
        one = _encoded(epoch, part)
        if one is not None and _fits(one, part, bound):
            found[0].append(one)
        else:
            _encode_parts(epoch, part, one, found, bytes_max, bound)


def _unsent(message: Message, size: int, bytes_max: int | None) -> Unsent:
    kind = type(message).__name__
    if size:
        return Unsent(
            message,
            f"a {kind} message of {size} bytes does not fit into a frame of {bytes_max}",
        )
    try:
        _encoder.encode(message)
        why = "is not one"
    except _UNWRITABLE as error:
        why = str(error)
    return Unsent(message, f"a {kind} message cannot be written: {why}")


def decode(payload: bytes | memoryview) -> Payload:
    """The messages of a payload; those that do not validate are in ``refused``.

    After ``limits.REFUSED_MESSAGES_MAX`` of these the rest is not read, which the last one says.

    Raises:
        ProtocolError: the payload is not ``[epoch, [message, ...]]`` at all, or has more messages
            than ``limits.PAYLOAD_ITEMS_MAX``; no object is made of these.
    """
    if len(payload) > _PAYLOAD_ITEMS_MAX:
        _check_count(payload)
    try:
        epoch, messages = _decoder.decode(payload)
        return Payload(epoch, messages, [])
    except _UNREADABLE:
        return _decode_each(payload)


def _check_count(payload: bytes | memoryview) -> None:
    """How many messages there are is written at the start: one byte or more each."""
    place = 1 + _INTEGER_BYTES.get(payload[1], 1)
    kind = payload[place]
    width = {0xDC: 2, 0xDD: 4}.get(kind, 0)
    count = int.from_bytes(payload[place + 1 : place + 1 + width], "big")
    if count > _PAYLOAD_ITEMS_MAX:
        raise ProtocolError(
            f"a payload has {count} messages; at most {_PAYLOAD_ITEMS_MAX} are taken, so send "
            "the others in another one"
        )


def _decode_each(payload: bytes | memoryview) -> Payload:
    try:
        epoch, items = msgspec.msgpack.decode(payload, type=tuple[int, list[msgspec.Raw]])
    except _UNREADABLE as error:
        start = bytes(payload[:32]).hex()
        raise ProtocolError(f"malformed payload: {error}; it starts with {start}") from None
    messages: list[Message] = []
    refused: list[Bad] = []
    for place, item in enumerate(items):
        if len(refused) == limits.REFUSED_MESSAGES_MAX:
            refused.append(Bad(0, f"{len(items) - place} messages after these were not read"))
            break
        try:
            messages.append(cast("Message", _one_decoder.decode(item)))
        except _UNREADABLE as error:
            refused.append(_bad(item, str(error)))
    return Payload(epoch, messages, refused)


def _bad(item: msgspec.Raw, text: str) -> Bad:
    try:
        head = msgspec.msgpack.decode(item)
    except _UNREADABLE:
        return Bad(0, text)
    if not isinstance(head, list) or len(head) < 2:
        return Bad(0, text)
    verb, seq = head[:2]
    if type(verb) is int and verb not in _VERBS:
        text = f"protocol {PROTOCOL_VERSION}.{PROTOCOL_MINOR} has no verb {verb}"
    return Bad(seq if isinstance(seq, int) and 0 <= seq < 2**53 else 0, text)
