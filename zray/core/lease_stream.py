"""One end of what a submitter and a leased worker's raylet say to each other, cut links or not.

Words are numbered, and kept until the other end has them; over a new way they are said again.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from zray import limits
from zray.errors import ProtocolError
from zray.protocol.messages import LeaseWord, Relay

Word = tuple[int, bytes]  # kind, and all that was said


class LeaseStream:
    """``heard``: number of the last word of the other end; ``unheard_bytes``: that it may lack.

    ``bytes_max``: of one word of the other end, with all its parts.
    """

    __slots__ = (
        *("_again", "_bytes_max", "_bytes_since", "_first", "_part_bytes", "_parts", "_said"),
        *("_sent", "_told", "heard", "unheard_bytes"),
    )

    def __init__(self, bytes_max: int) -> None:
        self.heard = 0
        self.unheard_bytes = 0
        self._bytes_max = bytes_max
        self._said: deque[LeaseWord] = deque()  # that the other end may lack
        self._first = 1  # number of the first of these
        self._sent = 0  # how many of these have left, by the present way
        self._told = 0  # what was acknowledged last
        self._bytes_since = 0  # that came since
        self._again = False  # something is to be said, though there is nothing new
        self._parts: list[bytes] = []
        self._part_bytes = 0

    @property
    def last(self) -> int:
        """Number of the last word that was said here."""
        return self._first + len(self._said) - 1

    # ---- out -------------------------------------------------------------------------------

    def say(self, kind: int, data: bytes = b"") -> None:
        """Keep a word until the other end has it."""
        most = limits.LEASE_WORD_BYTES_MAX
        while len(data) > most:
            self._said.append(LeaseWord(kind, data[:most], True))
            self.unheard_bytes += most
            data = data[most:]
        self._said.append(LeaseWord(kind, data))
        self.unheard_bytes += len(data)

    def again(self) -> None:
        """There is another way: what may have been lost on the one before is said once more."""
        self._sent = 0
        self._again = True

    def answer(self) -> None:
        """Acknowledge what has come, though there is nothing to say."""
        self._again = True

    @property
    def unheard(self) -> int:
        """How many words the other end may lack."""
        return len(self._said)

    def owes(self) -> bool:
        """Whether the other end does not know of all that came."""
        return self.heard != self._told

    def due(self) -> bool:
        """Whether something is to be sent now: acknowledgements mostly go along with words."""
        since = self.heard - self._told
        much = since >= limits.LEASE_ACK_WORDS or self._bytes_since >= limits.LEASE_ACK_BYTES
        return self._sent < len(self._said) or self._again or much

    def take(self, source: bytes, target: bytes, lease_id: bytes, path: int) -> Relay:
        """What is to be sent by the present way; it counts as sent."""
        words = [*islice(self._said, self._sent, None)] if self._sent else [*self._said]
        first = self._first + self._sent
        self._sent = len(self._said)
        self._again = False
        self._told = self.heard
        self._bytes_since = 0
        return Relay(0, source, target, lease_id, path, first, self.heard, words)

    # ---- in --------------------------------------------------------------------------------

    def hear(self, message: Relay) -> list[Word]:
        """What is new in a message, in order.

        Raises:
            ProtocolError: it does not go on where the other end was, or says too much.
        """
        self._acknowledged(message.upto)
        known = self.heard + 1 - message.first
        if known < 0:
            raise ProtocolError(f"word {message.first} came after word {self.heard}")
        found: list[Word] = []
        for word in message.words[known:]:
            self.heard += 1
            self._bytes_since += len(word.data)
            if word.more or self._parts:
                self._part_bytes += len(word.data)
                if self._part_bytes > self._bytes_max:
                    raise ProtocolError(f"a word has more than {self._bytes_max} bytes")
                self._parts.append(word.data)
            if word.more:
                continue
            if self._parts:
                found.append((word.kind, b"".join(self._parts)))
                self._parts = []
                self._part_bytes = 0
            else:
                found.append((word.kind, word.data))
        return found

    def _acknowledged(self, upto: int) -> None:
        if upto > self.last:
            raise ProtocolError(f"word {upto} is acknowledged; the last one was {self.last}")
        while self._first <= upto:
            self.unheard_bytes -= len(self._said.popleft().data)
            self._first += 1
            self._sent = max(0, self._sent - 1)
