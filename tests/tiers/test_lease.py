"""Who watches a lease, by times that are made up: when it takes over, and when it must not."""

from __future__ import annotations

import pytest

from tiers.lease import END, FAILED, FINISHED, LEAD, LEFT, WAIT, Lease, Seen, Watch

LEASE = Lease(3, "alpha:71", members=2)


def watch(**settings: float) -> Watch:
    return Watch(10.0, **settings)  # type: ignore[arg-type]


def beats(found: Watch, start_s: float, number: int, every_s: float = 3.0, lease: Lease = LEASE) -> tuple[float, Lease]:
    """Let a leader renew its lease so often; nothing comes of it."""
    for _ in range(number):
        lease, start_s = lease.next(), start_s + every_s
        assert found.look(start_s, Seen(lease.epoch, lease)).what == WAIT
    return start_s, lease


def test_a_leader_that_beats_is_left_alone_and_one_that_does_not_is_succeeded() -> None:
    found = watch()
    now_s, lease = beats(found, 1e6, 50)
    assert found.look(now_s + 9.9, Seen(3, lease)).what == WAIT
    verdict = found.look(now_s + 10.0, Seen(3, lease))
    assert verdict.what == LEAD and verdict.reason == "nothing was heard of alpha:71, number 3, for 10 s"


def test_a_leader_that_may_be_silent_for_longer_is_given_its_time() -> None:
    found, lease = watch(), Lease(3, "alpha:71", lease_s=60.0)
    for now_s in (0.0, 30.0, 59.0):
        assert found.look(now_s, Seen(3, lease)).what == WAIT
    assert found.look(60.0, Seen(3, lease)).what == LEAD


def test_a_long_pause_of_the_watcher_alone_succeeds_nobody() -> None:
    """The watcher slept for an hour: what it finds then is new to it, and counts from then."""
    found = watch()
    now_s, lease = beats(found, 0.0, 2)
    for _ in range(700):
        lease = lease.next()
    assert found.look(now_s + 3600, Seen(3, lease)).what == WAIT
    assert found.look(now_s + 3609, Seen(3, lease)).what == WAIT
    assert found.look(now_s + 3610, Seen(3, lease)).what == LEAD


def test_any_change_is_a_sign_of_life_even_one_that_goes_back() -> None:
    found = watch()
    assert found.look(0.0, Seen(3, LEASE.next().next())).what == WAIT
    assert found.look(9.0, Seen(3, LEASE)).what == WAIT
    assert found.look(18.0, Seen(3, LEASE)).what == WAIT
    assert found.look(19.0, Seen(3, LEASE)).what == LEAD


def test_a_successor_has_the_whole_lease_to_write_its_first_record() -> None:
    found = watch()
    now_s, lease = beats(found, 0.0, 3)
    assert found.look(now_s + 9, Seen(3, lease)).what == WAIT
    assert found.look(now_s + 9.5, Seen(4)).what == WAIT  # claimed, and nothing written yet
    assert found.look(now_s + 19, Seen(4)).what == WAIT
    verdict = found.look(now_s + 19.5, Seen(4))
    assert verdict.what == LEAD and "number 4" in verdict.reason


def test_a_lease_that_cannot_be_read_succeeds_nobody_and_the_time_begins_anew() -> None:
    found = watch()
    now_s, lease = beats(found, 0.0, 3)
    for later_s in (5, 50, 500):
        assert found.look(now_s + later_s, None).what == WAIT
    assert found.look(now_s + 501, Seen(3, lease)).what == WAIT
    assert found.look(now_s + 510, Seen(3, lease)).what == WAIT
    assert found.look(now_s + 511, Seen(3, lease)).what == LEAD


def test_who_has_left_is_succeeded_at_once_and_who_has_ended_is_not() -> None:
    for state, what, failed in ((LEFT, LEAD, False), (FINISHED, END, False), (FAILED, END, True)):
        verdict = watch().look(0.0, Seen(3, LEASE.next(state=state, reason="so it is")))
        assert (verdict.what, verdict.failed) == (what, failed) and "so it is" in verdict.reason


def test_a_run_that_nobody_was_seen_to_lead_is_taken_up_only_where_it_is_named() -> None:
    found = watch(takes_any=False)
    for now_s in (0.0, 100.0, 1000.0):
        assert found.look(now_s, Seen(3, LEASE)).what == WAIT
    assert found.look(1001.0, Seen(3, LEASE.next(state=LEFT))).what == LEAD  # it was there all the time
    assert watch(takes_any=False).look(0.0, Seen(3, LEASE.next(state=LEFT))).what == WAIT
    found = watch(takes_any=False)
    now_s, lease = beats(found, 0.0, 2)
    assert found.look(now_s + 10, Seen(3, lease)).what == LEAD


def test_what_is_led_one_time_after_the_other_is_led_at_once_where_nobody_does() -> None:
    over = LEASE.next(state=FINISHED, reason="the federation has finished")
    nobody, before = watch(anew=True), watch(anew=True)
    assert nobody.look(0.0, Seen(0)).what == LEAD
    verdict = before.look(0.0, Seen(3, over))
    assert (
        verdict.what == LEAD and verdict.reason == "what alpha:71, number 3, led is over: the federation has finished"
    )
    assert watch().look(0.0, Seen(0)).what == WAIT and watch().look(0.0, Seen(3, over)).what == END


@pytest.mark.parametrize("state", [FINISHED, FAILED])
def test_who_saw_it_led_ends_with_it_all_the_same(state: str) -> None:
    found = watch(anew=True)
    now_s, lease = beats(found, 0.0, 2)
    verdict = found.look(now_s, Seen(3, lease.next(state=state, reason="it is over")))
    assert verdict.what == END and verdict.reason == "it is over" and verdict.failed == (state == FAILED)


def test_a_leader_that_members_cannot_reach_is_succeeded_after_some_patience() -> None:
    found, now_s, lease = watch(patience_s=30.0), 0.0, LEASE.next(members=1)
    for _ in range(10):
        now_s, lease = now_s + 3, lease.next()
        assert found.look(now_s, Seen(3, lease, callers=2)).what == WAIT
    lease = lease.next()
    verdict = found.look(now_s + 3, Seen(3, lease, callers=2))
    assert verdict.what == LEAD
    assert verdict.reason == "2 members call here, 1 are in touch with alpha:71, number 3"


@pytest.mark.parametrize("members", [-1, 2, 3])
def test_callers_count_only_against_a_leader_that_listens_and_has_fewer(members: int) -> None:
    found, lease = watch(patience_s=5.0), LEASE.next(members=members)
    for now_s in range(100):
        lease = lease.next()
        assert found.look(float(now_s), Seen(3, lease, callers=2)).what == WAIT


def test_patience_begins_anew_when_members_are_back_with_their_leader() -> None:
    found, lease, now_s = watch(patience_s=5.0), LEASE.next(members=1), 0.0
    for callers in (2, 2, 0, 2, 2, 2):
        lease, now_s = lease.next(), now_s + 2
        assert found.look(now_s, Seen(3, lease, callers)).what == WAIT
    assert found.look(now_s + 2, Seen(3, lease.next(), 2)).what == LEAD


def test_a_record_is_read_as_it_was_written_and_half_of_one_is_refused() -> None:
    content = LEASE.next(address="a:1", state=FAILED, reason="quorum").write()
    assert Lease.read(content) == LEASE.next(address="a:1", state=FAILED, reason="quorum")
    for wrong in (b"", content[: len(content) // 2], b"[]", b'{"epoch": 1}', b'{"no": 1}', b"\xff\xfe"):
        with pytest.raises(ValueError, match="no lease"):
            Lease.read(wrong)
