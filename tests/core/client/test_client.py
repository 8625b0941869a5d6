"""The client as a whole: references, puts, the backlog and waiting."""

from __future__ import annotations

import pytest

from tests.core.benches import identity, object_of
from tests.core.client.benches import ME, TWO, client, hear, ids, resolve, said, submit
from zray import limits
from zray.core.client.waiters import Waiter
from zray.protocol import messages as m

# ---- references ----------------------------------------------------------------------------


def test_submitting_holds_the_returns_without_a_message() -> None:
    made = client()
    submit(made)
    assert [type(message) for message in said(made)] == [m.Submit]


def test_the_last_reference_drops() -> None:
    made = client()
    (oid,) = submit(made)
    made.references.add(oid)
    said(made)
    made.references.remove(oid)
    assert not said(made, m.Drop)
    made.references.remove(oid)
    assert ids(said(made, m.Drop)) == [oid]


def test_a_borrowed_reference_is_held_and_dropped_by_message() -> None:
    made = client()
    oid = object_of(identity("x"))
    made.references.add(oid)
    made.references.add(oid)
    assert ids(said(made, m.Hold)) == [oid]
    made.references.remove(oid)
    made.references.remove(oid)
    assert ids(said(made, m.Drop)) == [oid]


def test_a_reference_that_came_and_went_is_not_mentioned() -> None:
    made = client()
    oid = object_of(identity("x"))
    made.references.add(oid)
    made.references.remove(oid)
    assert said(made) == []


def test_a_reference_that_went_and_came_back_stays_held() -> None:
    made = client()
    (oid,) = submit(made)
    said(made)
    made.references.remove(oid)
    made.references.add(oid)
    assert said(made) == []


def test_holds_come_before_submits_and_drops_after() -> None:
    made = client()
    borrowed = object_of(identity("x"))
    (first,) = submit(made)
    said(made)
    made.references.remove(first)
    made.references.add(borrowed)
    submit(made, nested=[borrowed])
    made.references.remove(borrowed)
    made.references.add(object_of(identity("y")))
    assert [type(message) for message in said(made)] == [m.Hold, m.Submit, m.Drop]


def test_drops_leave_in_portions() -> None:
    made = client()
    oids = [submit(made)[0] for _ in range(limits.DROPS_MAX + 5)]
    said(made)
    for oid in oids:
        made.references.remove(oid)
    first, second = said(made, m.Drop), said(made, m.Drop)
    assert [len(ids(first)), len(ids(second))] == [limits.DROPS_MAX, 5]
    assert not made.unsent()


def test_a_task_borrows_what_it_keeps_of_its_arguments() -> None:
    made = client(remote=False)
    kept, gone = object_of(identity("kept")), object_of(identity("gone"))
    made.references.begin_task([kept, gone])
    for oid in (kept, gone):
        made.references.add(oid)
    made.references.remove(gone)
    assert made.references.end_task() == [kept]
    assert said(made) == []  # DONE says it
    made.references.remove(kept)
    assert ids(said(made, m.Drop)) == [kept]


# ---- puts ----------------------------------------------------------------------------------


def test_a_put_is_nobody_else_s_business_until_its_reference_leaves() -> None:
    made = client()
    oid = made.references.put(b"value", [])
    assert said(made) == []
    assert made.here(oid) is not None
    made.references.remove(oid)
    assert said(made) == [] and made.here(oid) is None


def test_what_leaves_takes_its_contents_along_first() -> None:
    made = client()
    inner = made.references.put(b"inner", [])
    outer = made.references.put(b"outer", [inner])
    made.references.remove(inner)
    submit(made, dependencies=[outer])
    puts = said(made, m.Put)
    assert [put.outcome.object_id for put in puts] == [inner, outer]
    assert puts[1].outcome.contained == [inner]
    made.references.remove(outer)
    assert sorted(ids(said(made, m.Drop))) == sorted([outer])


def test_a_published_value_is_served_until_it_is_freed() -> None:
    made = client()
    data = bytes(limits.INLINE_BYTES_MAX + 1)
    oid = made.references.put(data, [])
    submit(made, dependencies=[oid])
    made.references.remove(oid)
    (put,) = said(made, m.Put)
    assert put.outcome.kind == m.LOCATED and put.outcome.value == b""
    hear(made, m.Pull(0, 7, oid))
    (chunk,) = said(made, m.Chunk)
    assert (chunk.transfer, chunk.data) == (7, data)
    hear(made, m.Free(0, oid))
    hear(made, m.Pull(0, 8, oid))
    (failed,) = said(made, m.PullFailed)
    assert (failed.transfer, failed.code) == (8, "ZR-3005")


def test_the_asking_side_s_end_is_no_loss_of_a_value_of_one_s_own() -> None:
    """Numbers of transfers in and out are of two sides; they may be equal."""
    made = client()
    (oid,) = submit(made)
    said(made)
    hear(made, m.Result(1, ME, [m.Outcome(oid, m.LOCATED, 5)]))
    waiter = Waiter()
    made.want_value(oid, waiter)
    (pull,) = said(made, m.Pull)
    hear(made, m.PullFailed(0, pull.transfer, "", "cancelled"))
    assert waiter.remaining == 1
    hear(made, m.Chunk(0, pull.transfer, m.VALUE, 0, 5, b"value"))
    assert waiter.remaining == 0


# ---- the backlog ---------------------------------------------------------------------------


@pytest.mark.usefixtures("narrow")
def test_the_window_bounds_what_is_submitted_and_opens_with_outcomes() -> None:
    made = client()
    (first,) = submit(made)
    (submitted,) = said(made, m.Submit)
    assert len(submitted.tasks) == 1
    (second,) = submit(made)
    assert not said(made, m.Submit)
    assert made.unsent()
    resolve(made, first)
    (submitted,) = said(made, m.Submit)
    assert [spec.task_id for spec in submitted.tasks] == [second[:16]]


@pytest.mark.usefixtures("narrow")
def test_no_drop_comes_before_the_submit_that_it_is_about() -> None:
    made = client()
    (first,) = submit(made)
    said(made)
    put = made.references.put(b"value", [])
    (second,) = submit(made, dependencies=[put], nested=[first])
    made.references.remove(put)
    made.references.remove(second)
    made.references.remove(first)
    assert not said(made, m.Drop)
    resolve(made, first)
    messages = said(made)
    kinds = [type(message) for message in messages]
    assert kinds.index(m.Submit) < kinds.index(m.Drop)
    assert sorted(ids([message for message in messages if isinstance(message, m.Drop)])) == sorted(
        [put, first, second]
    )


@pytest.mark.usefixtures("narrow")
def test_what_is_cancelled_in_the_backlog_is_never_submitted() -> None:
    made = client()
    (first,) = submit(made)
    said(made)
    kept, dropped = submit(made, TWO)
    made.references.remove(dropped)
    waiter = Waiter()
    made.want_value(kept, waiter)
    made.cancel(kept[:16], force=False, recursive=True)
    assert waiter.remaining == 0
    outcome = made.here(kept)
    assert outcome is not None and outcome.kind == m.ERROR and b"ZR-3002" in outcome.value
    resolve(made, first)
    assert said(made) == [m.ResultAck(0, ME, 1)]
    submit(made, dependencies=[kept])
    (put,) = said(made, m.Put)  # its error is known to others once they need it
    assert put.outcome.object_id == kept


def test_counts_return_to_zero() -> None:
    made = client()
    oids = [submit(made)[0] for _ in range(5)]
    said(made)
    resolve(made, *oids)
    resolve(made, *oids, seq=2)
    assert (made.tasks.in_flight, made.unresolved) == (0, {})


# ---- waiting -------------------------------------------------------------------------------


def test_a_waiter_counts_down_to_zero_and_calls() -> None:
    made = client()
    oids = [submit(made)[0] for _ in range(3)]
    calls: list[str] = []
    waiter = Waiter(lambda: calls.append("done"))
    for oid in oids:
        made.want_value(oid, waiter)
    resolve(made, oids[0], oids[1])
    assert (waiter.remaining, calls) == (1, [])
    resolve(made, oids[2], seq=2)
    assert (waiter.remaining, calls) == (0, ["done"])
    made.want_value(oids[0], waiter)
    assert waiter.remaining == 0


def test_a_value_of_somebody_else_is_watched_and_a_large_one_pulled() -> None:
    made = client()
    oid = object_of(identity("x"))
    made.references.add(oid)
    first, second = Waiter(), Waiter()
    made.want_value(oid, first)
    made.want_outcome(oid, second)
    assert len(said(made, m.Watch)) == 1
    hear(made, m.Result(1, ME, [m.Outcome(oid, m.LOCATED, 3)]))
    assert (first.remaining, second.remaining) == (1, 0)
    (pull,) = said(made, m.Pull)
    hear(made, m.Chunk(0, pull.transfer, m.VALUE, 0, 3, b"val"))
    assert first.remaining == 0
    outcome = made.here(oid)
    assert outcome is not None and outcome.value == b"val"


def test_a_wait_for_some_counts_what_is_ready_and_returns_the_first_places() -> None:
    made = client()
    oids = [submit(made)[0] for _ in range(5)]
    resolve(made, oids[3])
    assert made.first_ready(oids, 2, whole=True) == [3]
    waiter = made.want_some(oids, 3, whole=True)
    assert (waiter.remaining, len(waiter.missing)) == (2, 4)
    resolve(made, oids[1], oids[4], oids[2], seq=2)
    assert waiter.remaining <= 0 and waiter.missing == {oids[0]}
    assert made.first_ready(oids, 3, whole=True) == [1, 2, 3]
    assert made.first_ready(oids, 9, whole=False) == [1, 2, 3, 4]


def test_a_value_elsewhere_is_not_ready_where_the_value_is_wanted() -> None:
    made = client()
    oids = [submit(made)[0] for _ in range(2)]
    hear(made, m.Result(1, ME, [m.Outcome(oids[1], m.VALUE | m.LOCATED, 1 << 20)]))
    assert made.first_ready(oids, 1, whole=False) == [1]
    assert made.first_ready(oids, 1, whole=True) == []
    said(made)
    waiter = made.want_some(oids, 1, whole=True)
    assert waiter.remaining == 1 and waiter.missing == {*oids}
    assert [pull.object_id for pull in said(made, m.Pull)] == [oids[1]]
    made.near.reached[oids[1]] = None  # it has been here
    assert made.first_ready(oids, 1, whole=True) == [1]


@pytest.mark.parametrize("whole", [True, False])
def test_a_finalizer_does_not_wait_for_what_was_collected(whole: bool) -> None:
    made = client()
    oids = [submit(made)[0] for _ in range(2)]
    waiter = made.want_some(oids, 2, whole=whole)
    end = Waiter()
    made.want_outcome(oids[0], end)
    for oid in oids:
        made.references.remove(oid)
    assert (waiter.remaining, end.remaining) == (0, 0)
    assert not made.waiters.values and not made.waiters.ends


def test_a_fetched_object_is_held_until_its_value_is_here() -> None:
    made = client()
    here, elsewhere = submit(made)[0], object_of(identity("x"))
    resolve(made, here)
    came: list[m.Outcome | None] = []
    for oid in (here, elsewhere):
        made.fetch(oid, came.append)
    assert came == [made.here(here)] and elsewhere in made.references
    hear(made, m.Result(2, ME, [m.Outcome(elsewhere, m.VALUE, 1, b"x")]))
    assert came[1] == m.Outcome(elsewhere, m.VALUE, 1, b"x")
    assert elsewhere not in made.references


def test_a_waiter_that_gave_up_is_not_called() -> None:
    made = client()
    (oid,) = submit(made)
    waiter = Waiter()
    made.want_value(oid, waiter)
    made.forget_waiter([oid], waiter)
    resolve(made, oid)
    assert waiter.remaining == 1


def test_the_end_of_the_cluster_wakes_everybody() -> None:
    made = client()
    (oid,) = submit(made)
    waiter, asking = Waiter(), Waiter()
    made.want_value(oid, waiter)
    answer = made.ask(lambda number: m.Query(number, m.STATUS), asking)
    hear(made, m.Shutdown(0, "bye"))
    assert (waiter.remaining, asking.remaining, answer) == (0, 0, [])
    assert made.stopped == "bye"


def test_a_driver_whose_job_was_ended_stops() -> None:
    made = client()
    waiter = Waiter()
    made.want_value(submit(made)[0], waiter)
    made.disconnected()
    hear(made, m.Refused(0, m.FENCED, "out of reach"))
    assert waiter.remaining == 0 and made.stopped == "out of reach"
