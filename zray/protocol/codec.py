"""Messages to payloads and back. Validates everything that comes in; never unpickles.

A payload is a msgpack array ``[epoch, [message, ...]]``: one per destination and turn of the
sender's loop. On a link between a raylet and its workers the epoch is 0.
"""

from collections.abc import Sequence
from typing import NamedTuple, Union, cast

import msgspec

from zray import limits
from zray.errors import ProtocolError
from zray.protocol.messages import ALL, Message

_AnyMessage = Union[ALL]  # type: ignore[valid-type]  # noqa: UP007 - built from the table
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[int, list[_AnyMessage]])
_one_decoder = msgspec.msgpack.Decoder(_AnyMessage)
# ValueError: a text that is not UTF-8, which msgspec does not turn into an error of its own.
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class Bad(NamedTuple):
    """A message that was refused; ``seq`` is 0 where even that could not be read."""

    seq: int
    text: str


class Payload(NamedTuple):
    epoch: int
    messages: list[Message]
    refused: list[Bad]


def encode(epoch: int, messages: Sequence[Message]) -> list[bytes]:
    """Payloads of the messages, in order: one, or more where one would be too large.

    Raises:
        ProtocolError: a single message does not fit into a frame.
    """
    payload = _encoder.encode((epoch, messages))
    if len(payload) <= limits.PAYLOAD_BYTES_SOFT or len(messages) == 1:
        if len(payload) > limits.FRAME_BYTES_MAX:
            kind = type(messages[0]).__name__
            raise ProtocolError(
                f"a {kind} message of {len(payload)} bytes does not fit into a frame of "
                f"{limits.FRAME_BYTES_MAX}; it was not sent"
            )
        return [payload]
    half = len(messages) // 2
    return encode(epoch, messages[:half]) + encode(epoch, messages[half:])


def encode_local(messages: Sequence[Message]) -> bytes:
    """One payload of any size, for a link between a raylet and its worker."""
    return _encoder.encode((0, messages))


def decode(payload: bytes | memoryview) -> Payload:
    """The messages of a payload; those that do not validate are in ``refused``.

    After ``limits.REFUSED_MESSAGES_MAX`` of these the rest is not read, which the last one says.

    Raises:
        ProtocolError: the payload is not ``[epoch, [message, ...]]`` at all.
    """
    try:
        epoch, messages = _decoder.decode(payload)
        return Payload(epoch, messages, [])
    except _UNREADABLE:
        return _decode_each(payload)


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
            refused.append(Bad(_seq_of(item), str(error)))
    return Payload(epoch, messages, refused)


def _seq_of(item: msgspec.Raw) -> int:
    try:
        head = msgspec.msgpack.decode(item)
    except _UNREADABLE:
        return 0
    seq = head[1] if isinstance(head, list) and len(head) > 1 else 0
    return seq if isinstance(seq, int) and 0 <= seq < 2**53 else 0
