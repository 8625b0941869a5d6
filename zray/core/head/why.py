"""Why something is as it is, followed to the end: what the head knows, and those whom it asks.

Tasks that the head does not see are with their submitters or with nodes; what it has given to a
node, that knows best. Whoever is asked and does not answer in time is named in the answer.
"""

from __future__ import annotations

from collections import deque

from zray import limits
from zray.core import causes
from zray.core.causes import BLOCKED, NO_ANSWER, UNKNOWN, age, bounded, cause
from zray.core.deadlines import Deadlines
from zray.core.head.causes import HeadCauses
from zray.core.head.events import Events
from zray.core.head.members import Member, Members, NodeMember
from zray.core.head.past_causes import PastSearch
from zray.core.machine import Outbox
from zray.protocol import messages as m

HERE = b""  # who is asked what is over: the head itself


class Trail:
    """The answer about one subject, as far as it is known. ``asked``: who has not answered yet.

    ``then``: where the chain goes on unless one of those says so. ``unknown``: what is told if
    none of them knows anything.
    """

    __slots__ = ("asked", "causes", "seen", "subject", "then", "unknown")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.causes: list[m.Cause] = []
        self.seen: dict[bytes, None] = {}
        self.asked: dict[bytes, None] = {}
        self.then = b""
        self.unknown: m.Cause | None = None


class Question:
    """Of one process, under its ``number``. ``asked``: numbers of what others were asked for it."""

    __slots__ = ("asked", "asker", "key", "number", "patience_s", "trails")

    def __init__(self, key: int, asker: Member, message: m.Why) -> None:
        self.key = key.to_bytes(8, "big")
        self.asker = asker
        self.number = message.seq
        self.patience_s = message.patience_s
        self.asked: list[int] = []
        self.trails = [Trail(subject) for subject in message.subjects]

    def waits(self) -> bool:
        """Whether somebody may yet say more."""
        return any(trail.asked for trail in self.trails)


class WhyQueries:
    """``causes``: what the head itself knows."""

    def __init__(
        self, outbox: Outbox[bytes], members: Members, causes: HeadCauses, events: Events
    ) -> None:
        self._outbox = outbox
        self._members = members
        self._causes = causes
        self._events = events
        self._searches: deque[tuple[Question, Trail, PastSearch]] = deque()
        self._numbers = 0
        self._hops = limits.WHY_HOPS_MAX  # that are left in this turn
        self._open: dict[bytes, Question] = {}  # by a number of the head's
        self._due = Deadlines()  # the same
        self._asked: dict[int, tuple[Question, bytes, Trail]] = {}  # by its number; who was asked

    def on_why(self, member: Member, message: m.Why, now: float) -> None:
        """Somebody asks."""
        question = Question(self._number(), member, message)
        may_ask = message.patience_s > 0 and len(self._open) < limits.WHY_QUESTIONS_MAX
        for trail in question.trails:
            found = self._causes.find(trail.subject)
            asked = question if may_ask else None
            if found.digits and found.cause is not None and asked is not None:
                self._search(asked, trail, found.cause, found.digits)
                continue
            if found.cause is not None:
                trail.causes.append(found.cause)
            self._follow(asked, trail, found.id, now)
        if question.waits():
            self._open[question.key] = question
            self._due.put(question.key, now + message.patience_s)
        else:
            self._answer(question)

    def on_told(self, member: Member, message: m.ToldWhy, now: float) -> None:
        """Somebody who was asked says what it knows."""
        known = self._asked.get(message.about)
        if known is None or known[1] != member.process_id:
            return
        del self._asked[message.about]
        question, _, trail = known
        if member.process_id not in trail.asked:
            return
        if message.causes:
            trail.asked.clear()
            trail.unknown = None
            room = limits.WHY_CHAIN_MAX - len(trail.causes)
            trail.causes += map(bounded, message.causes[:room])
            last = message.causes[-1]
            then = message.next
            if not then and last.code == BLOCKED:
                then = self._causes.child(last.id)
            elif not then and message.lease_id:
                then = self._ask_of_lease(question, trail, last, message.lease_id, now)
            if message.needs and not then and len(trail.causes) < limits.WHY_CHAIN_MAX:
                trail.causes += self._causes.of_demand(member.process_id, message.needs, now)
            self._follow(question, trail, then, now)
        else:
            del trail.asked[member.process_id]
            if not trail.asked:
                self._unanswered(question, trail, now)
        if not question.waits():
            self._close(question)

    # ---- the chain ---------------------------------------------------------------------------

    def _follow(self, question: Question | None, trail: Trail, thing_id: bytes, now: float) -> None:
        """Go on until the end, or until others are to be asked; without a question they are not."""
        while thing_id:
            if thing_id in trail.seen or len(trail.causes) >= limits.WHY_CHAIN_MAX:
                return
            trail.seen[thing_id] = None
            link = self._causes.of(thing_id, now)
            if link.cause.id != thing_id:  # an object's task, say
                if link.cause.id in trail.seen:
                    return
                trail.seen[link.cause.id] = None
            asks = [one for one in link.asks if self._is_there(one)]
            if asks and question is not None:
                trail.then = link.next
                if link.cause.code == UNKNOWN:
                    trail.unknown = link.cause
                else:
                    trail.causes.append(link.cause)
                for one in asks:
                    self._ask(question, trail, one, m.AskWhy(0, thing_id))
                return
            if link.cause.code == UNKNOWN and question is not None:
                self._search(question, trail, link.cause)
                return
            trail.causes.append(link.cause)
            thing_id = self._far(trail, link.next)

    def _far(self, trail: Trail, thing_id: bytes) -> bytes:
        """Where the chain goes on: of many tasks that wait for each other most are left out."""
        further = self._causes.of_tasks.further
        thing_id, passed = causes.pass_over(trail.causes, thing_id, further, self._hops)
        self._hops -= passed
        return thing_id

    def _is_there(self, process_id: bytes) -> bool:
        member = self._members.member(process_id)
        return member is not None and member.connected

    def _ask(self, question: Question, trail: Trail, process_id: bytes, message: m.AskWhy) -> None:
        message.seq = number = self._number()
        self._asked[number] = question, process_id, trail
        question.asked.append(number)
        trail.asked[process_id] = None
        self._outbox.send(process_id, message)

    def _ask_of_lease(
        self, question: Question, trail: Trail, task: m.Cause, lease_id: bytes, now: float
    ) -> bytes:
        """The node of a leased worker knows what that does; if it is silent, it is what follows."""
        place = self._causes.place_of_lease(lease_id)
        node = self._members.nodes.get(place)
        if node is None or len(trail.causes) >= limits.WHY_CHAIN_MAX:
            return b""
        if not node.connected or now - node.heard >= limits.SILENT_S:
            return place
        trail.then = b""
        self._ask(question, trail, place, m.AskWhy(0, task.id, lease_id, task.name))
        return b""

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _unanswered(self, question: Question | None, trail: Trail, now: float) -> None:
        """Nobody who was asked knows more: what the head knows itself is the rest."""
        unknown, trail.unknown = trail.unknown, None
        if unknown is not None and question is not None:
            self._search(question, trail, unknown)
            return
        if unknown is not None:
            trail.causes.append(unknown)
        self._follow(question, trail, trail.then, now)

    def _search(self, question: Question, trail: Trail, unknown: m.Cause, digits: str = "") -> None:
        """It may be over. ``digits``: of its id, if that is not whole."""
        search = PastSearch(self._events, self._members, unknown, digits)
        found = None if self._searches else search.go_on()
        if found is not None:
            trail.causes.append(found)
        else:
            trail.asked[HERE] = None
            trail.unknown = unknown  # which is told if it takes too long
            self._searches.append((question, trail, search))

    def _look_back(self) -> None:
        question, trail, search = self._searches[0]
        if HERE not in trail.asked:  # it was answered without
            self._searches.popleft()
            return
        found = search.go_on()
        if found is not None:
            self._searches.popleft()
            del trail.asked[HERE]
            trail.unknown = None
            trail.causes.append(found)
            if not question.waits():
                self._close(question)

    # ---- the answer --------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Answer those that have waited for others for long enough."""
        self._hops = limits.WHY_HOPS_MAX
        if self._searches:
            self._look_back()
        for key in self._due.due(now) if self._due else ():
            question = self._open[key]
            for trail in question.trails:
                silent = [*trail.asked]
                trail.asked.clear()
                if silent:
                    self._unanswered(None, trail, now)
                    for process_id in [one for one in silent if one != HERE][:2]:
                        if len(trail.causes) < limits.WHY_CHAIN_MAX:
                            trail.causes.append(self._silence(process_id, question, now))
            self._close(question)

    def deadline(self) -> float:
        """When that is."""
        return 0.0 if self._searches else self._due.soonest()

    def _close(self, question: Question) -> None:
        del self._open[question.key]
        self._due.drop(question.key)
        for number in question.asked:
            self._asked.pop(number, None)
        self._answer(question)

    def _answer(self, question: Question) -> None:
        answers = [m.Explanation(trail.subject, trail.causes) for trail in question.trails]
        member = question.asker
        if self._members.member(member.process_id) in (member, None):  # an observer is no member
            self._outbox.send(member.process_id, m.Explained(0, question.number, answers))

    def _silence(self, process_id: bytes, question: Question, now: float) -> m.Cause:
        member = self._members.member(process_id)
        kind = "node" if isinstance(member, NodeMember) else "driver"
        who = member.in_words() if member is not None else f"process {process_id.hex()}"
        heard = f"; last heard of {age(max(0.0, now - member.heard))} ago" if member else ""
        text = (
            f"{who}, which may know more, has not answered within {question.patience_s:g} s{heard}"
        )
        advice = "see whether its process runs: it may be stopped, or very busy"
        return cause(kind, process_id, who, NO_ANSWER, text, advice=advice)
