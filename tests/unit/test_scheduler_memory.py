"""What the scheduler keeps in memory only: the offers in hand, and what it asks about again."""

import pytest

from scale.core.cluster import Offer, TaskRef
from scale.core.resources import Resources
from scale.scheduler.offers import OfferBook
from scale.scheduler.reconcile import FIRST_RETRY_S, FULL_EVERY_S, LONGEST_RETRY_S, Reconciler

TASKS = [TaskRef("t1", "a1"), TaskRef("t2", "a1")]


def offer(offer_id: str, agent: str = "a1") -> Offer:
    return Offer(offer_id, agent, "host", "127.0.0.1", 5051, Resources(1000))


def test_a_book_knows_how_old_its_offers_are() -> None:
    book = OfferBook()
    assert (book.oldest_s(), book.offers()) == (None, ())
    book.add([offer("o1")], now_s=10)
    book.add([offer("o2")], now_s=12)
    assert book.oldest_s() == 10
    assert book.older_than(5, now_s=14.9) == []
    assert book.older_than(5, now_s=15) == ["o1"]
    assert book.older_than(5, now_s=20) == ["o1", "o2"]


def test_offers_leave_the_book_by_id_by_agent_and_all_at_once() -> None:
    book = OfferBook()
    book.add([offer("o1"), offer("o2"), offer("o3", "a2"), offer("o4", "a2")], now_s=0)
    book.drop(["o1", "unknown"])
    assert len(book) == 3
    book.drop_agent("a2")
    assert [each.offer_id for each in book.offers()] == ["o2"]
    book.clear()
    assert len(book) == 0


def test_what_is_not_answered_is_asked_later_and_later_up_to_a_limit() -> None:
    reconciler = Reconciler()
    reconciler.ask(TASKS, now_s=0)
    now_s, gaps = 0.0, []
    for _ in range(9):
        assert list(reconciler.due(now_s=now_s)) == TASKS
        assert list(reconciler.due(now_s=now_s)) == [], "once"
        following = reconciler.next_s()
        assert following is not None
        gaps.append(following - now_s)
        now_s = following
    assert gaps[:3] == [FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S]
    assert gaps[-1] == LONGEST_RETRY_S


def test_what_is_answered_is_asked_no_more_and_then_nothing_is_due() -> None:
    reconciler = Reconciler()
    reconciler.ask(TASKS, now_s=0)
    reconciler.heard_of("t1")
    reconciler.heard_of("never asked")
    assert list(reconciler.due(now_s=0)) == TASKS[1:]
    reconciler.heard_of("t2")
    assert list(reconciler.due(now_s=100)) == []
    assert reconciler.next_s() is None


def test_a_full_reconciliation_stays_due_until_it_was_begun() -> None:
    reconciler = Reconciler()
    assert not reconciler.full_due(now_s=1e9)
    reconciler.begin(now_s=5)
    assert not reconciler.full_due(now_s=4.9)
    assert reconciler.full_due(now_s=5)
    assert reconciler.full_due(now_s=6)
    reconciler.began(now_s=6)
    assert reconciler.next_s() == pytest.approx(6 + FULL_EVERY_S)
    assert not reconciler.full_due(now_s=7)


def test_without_a_connection_nothing_is_asked() -> None:
    reconciler = Reconciler()
    reconciler.begin(now_s=0)
    reconciler.ask(TASKS, now_s=0)
    reconciler.pause()
    assert reconciler.next_s() is None
    assert list(reconciler.due(now_s=1e9)) == []
    assert not reconciler.full_due(now_s=1e9)
