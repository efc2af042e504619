"""A budget that callers share."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.admission.budget import Budget, Holding, WorkRules
from services.common.admission.caller import Caller
from services.common.admission.priority import Priority
from services.common.errors import OverloadedError

A, B, C = Caller("a"), Caller("b"), Caller("c")


def test_a_lone_caller_takes_all_but_the_reserve() -> None:
    budget = Budget(8, 2)
    for _ in range(6):
        budget.take(A, 1)
    with pytest.raises(OverloadedError):
        budget.take(A, 1)
    assert budget.held == 6


def test_the_reserve_is_for_callers_below_their_share() -> None:
    budget = Budget(8, 2)
    for _ in range(6):
        budget.take(A, 1)
    budget.take(B, 1)
    budget.take(B, 1)
    with pytest.raises(OverloadedError):
        budget.take(C, 1)
    with pytest.raises(OverloadedError):
        budget.take(A, 1)


def test_what_is_given_back_is_there_again_once() -> None:
    budget = Budget(4, 0)
    held = [budget.take(A, 2) for _ in range(2)]
    held[0].release()
    held[0].release()
    assert budget.held == 2
    held[1].resize(1)
    budget.take(B, 3)
    with pytest.raises(OverloadedError):
        budget.take(B, 1)


def test_more_than_the_budget_is_taken_alone() -> None:
    budget = Budget(4, 1)
    assert budget.take(A, 100).amount == 3
    with pytest.raises(OverloadedError):
        budget.take(A, 1)


async def test_waiters_are_served_as_room_comes_and_those_who_hold_least_first() -> None:
    budget = Budget(4, 0)
    first, second = budget.take(A, 3), budget.take(B, 1)
    served: list[str] = []

    async def want(caller: Caller) -> None:
        await budget.wait(caller, 2)
        served.append(caller.identity)

    waiting = [asyncio.create_task(want(caller)) for caller in (A, B, C)]
    await asyncio.sleep(0)
    second.release()
    first.resize(2)
    await asyncio.sleep(0.01)
    assert served == ["b"], "A came first, but holds most"
    for task in waiting:
        task.cancel()


async def test_the_reserve_is_given_at_once_though_others_wait() -> None:
    budget = Budget(8, 2, patience=60.0, longest_wait=60.0)
    budget.take(A, 6)
    waiting = asyncio.create_task(budget.wait(A, 1))
    await asyncio.sleep(0)
    async with asyncio.timeout(10.0):
        assert (await budget.wait(B, 2)).amount == 2
    waiting.cancel()


async def test_who_waits_too_long_is_refused() -> None:
    budget = Budget(2, 0, patience=0.01, longest_wait=0.05)
    budget.take(A, 2)
    with pytest.raises(OverloadedError):
        await budget.wait(B, 1)
    assert budget.held == 2


async def test_too_many_waiters_are_refused_at_once() -> None:
    budget = Budget(1, 0, longest_wait=60.0, most_waiting=1)
    budget.take(A, 1)
    waiting = asyncio.create_task(budget.wait(B, 1))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await budget.wait(C, 1)
    waiting.cancel()


async def test_a_cancelled_waiter_takes_nothing() -> None:
    budget = Budget(2, 0)
    held = budget.take(A, 2)
    waiting = asyncio.create_task(budget.wait(B, 2))
    await asyncio.sleep(0)
    held.release()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.held == 0
    assert budget.take(C, 2).amount == 2


async def test_idle_work_is_ended_for_those_who_wait_the_oldest_of_the_largest_caller_first() -> None:
    budget = Budget(4, 0, patience=0.02, longest_wait=5.0)
    ended: list[str] = []

    def holding(caller: Caller, name: str, *, idle: bool) -> Holding:
        found = budget.take(caller, 1)

        def end() -> None:
            ended.append(name)
            found.release()

        found.end = end
        found.idle(idle)
        return found

    holding(B, "small caller", idle=True)
    holding(A, "works", idle=False)
    holding(A, "oldest", idle=True)
    await asyncio.sleep(0.001)
    holding(A, "younger", idle=True)
    await budget.wait(C, 1)
    assert ended == ["oldest"]


async def test_work_that_goes_on_is_never_ended() -> None:
    budget = Budget(1, 0, patience=0.01, longest_wait=0.1)
    held = budget.take(A, 1)
    held.end = held.release
    held.idle()
    held.idle(False)
    with pytest.raises(OverloadedError):
        await budget.wait(B, 1)


def test_a_budget_is_stuck_while_it_refuses_and_nothing_comes_back() -> None:
    budget = Budget(1, 0)
    held = budget.take(A, 1)
    assert budget.stuck_seconds == 0.0
    with pytest.raises(OverloadedError):
        budget.take(A, 1)
    assert budget.stuck_seconds > 0.0
    held.release()
    assert budget.stuck_seconds == 0.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), max_size=60), st.integers(1, 20), st.integers(0, 8))
def test_the_budget_is_never_exceeded_and_adds_up(steps: list[tuple[str, int]], limit: int, reserve: int) -> None:
    budget = Budget(limit, reserve)
    held: list[Holding] = []
    for name, amount in steps:
        if amount == 0 and held:
            held.pop().release()
        elif amount:
            try:
                held.append(budget.take(Caller(name), amount))
            except OverloadedError:
                assert budget.held + min(amount, limit) > limit - reserve
        assert budget.held == sum(h.amount for h in held) <= limit


def _work(limit: int = 10, most: int = 100, most_batch: int = 100, most_batch_waiting: int = 100, seconds: float = 60.0, **options: Any) -> Budget:
    return Budget(limit, 0, work=WorkRules(most, most_batch, most_batch_waiting, dict.fromkeys(Priority, seconds)), **options)


async def _served(budget: Budget, *wanted: tuple[str, Caller, int, Priority]) -> tuple[list[str], list[asyncio.Task[None]]]:
    """Names in the order in which they are served, and who waits."""
    order: list[str] = []

    async def want(name: str, caller: Caller, amount: int, priority: Priority) -> None:
        await budget.wait(caller, amount, priority=priority)
        order.append(name)

    tasks = []
    for one in wanted:
        tasks.append(asyncio.create_task(want(*one)))
        await asyncio.sleep(0)
    return order, tasks


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_interactive_waiters_come_before_those_of_batches() -> None:
    budget = _work(2)
    held = [budget.take(A, 1) for _ in range(2)]
    order, _ = await _served(budget, ("batch", B, 1, Priority.BATCH), ("interactive of one who holds", A, 1, Priority.INTERACTIVE))
    held[0].release()
    await _settle()
    assert order == ["interactive of one who holds"]
    held[1].release()
    await _settle()
    assert order[1:] == ["batch"]


async def test_of_one_priority_those_come_first_whose_callers_hold_least_and_then_those_who_came_first() -> None:
    budget = _work(4)
    held = [budget.take(caller, amount) for caller, amount in ((A, 2), (B, 1), (C, 1))]
    wanted = [(name, caller, 1, Priority.BATCH) for name, caller in (("a", A), ("b 1", B), ("c", C), ("b 2", B))]
    order, _ = await _served(budget, *wanted)
    for one in (*held[1:], held[0]):
        one.release()
        await _settle()
    assert order == ["b 1", "c", "a", "b 2"]


async def test_a_batch_never_uses_what_is_kept_for_interactive_work() -> None:
    budget = _work(10, kept=4)
    await budget.wait(A, 6, priority=Priority.BATCH)
    order, tasks = await _served(budget, ("batch", B, 1, Priority.BATCH), ("interactive", C, 4, Priority.INTERACTIVE))
    await _settle()
    assert order == ["interactive"]
    assert budget.held == 10
    tasks[0].cancel()


async def test_without_a_reserve_for_interactive_work_a_batch_takes_all() -> None:
    budget = _work(10)
    assert (await budget.wait(A, 100, priority=Priority.BATCH)).amount == 10


async def test_nobody_overtakes_a_large_piece_of_work_that_waits() -> None:
    budget = _work(4)
    held = [budget.take(A, 1) for _ in range(4)]
    order, _ = await _served(budget, ("large", B, 4, Priority.INTERACTIVE), ("small", C, 1, Priority.INTERACTIVE), ("batch", C, 1, Priority.BATCH))
    for one in held[:-1]:
        one.release()
        await _settle()
    assert order == []
    held[-1].release()
    await _settle()
    assert order == ["large"]


async def test_bytes_that_fit_overtake_those_that_do_not() -> None:
    budget = Budget(4, 0, longest_wait=60.0)
    held = [budget.take(A, 1) for _ in range(4)]
    order, _ = await _served(budget, ("large", B, 4, Priority.INTERACTIVE), ("small", C, 1, Priority.INTERACTIVE))
    held[0].release()
    await _settle()
    assert order == ["small"]


async def test_who_waits_behind_one_that_leaves_is_served() -> None:
    budget = _work(4)
    budget.take(A, 2)
    order, tasks = await _served(budget, ("large", B, 4, Priority.INTERACTIVE), ("small", C, 1, Priority.INTERACTIVE))
    tasks[0].cancel()
    await _settle()
    assert order == ["small"]


async def test_only_so_many_pieces_of_work_are_done_at_once_and_fewer_of_batches() -> None:
    budget = _work(100, most=3, most_batch=1)
    await budget.wait(A, 1, priority=Priority.BATCH)
    order, _ = await _served(budget, ("batch", A, 1, Priority.BATCH), *((f"interactive {n}", B, 1, Priority.INTERACTIVE) for n in range(3)))
    await _settle()
    assert order == ["interactive 0", "interactive 1"]


@pytest.mark.parametrize(("priority", "is_refused"), [(Priority.INTERACTIVE, False), (Priority.BATCH, True)])
async def test_work_that_would_wait_too_long_is_refused_at_once_and_told_when_to_come_again(priority: Priority, is_refused: bool) -> None:
    budget = Budget(10, 0, work=WorkRules(100, 100, 100, {Priority.INTERACTIVE: 5.0, Priority.BATCH: 3.0}))
    budget.take(A, 10)
    _, tasks = await _served(budget, ("first", A, 10, Priority.INTERACTIVE), ("second", A, 10, priority))
    await _settle()
    assert [task.done() for task in tasks] == [False, is_refused]
    if is_refused:
        refused = tasks[1].exception()
        assert isinstance(refused, OverloadedError)
        assert refused.reason == "OVERLOADED"
        assert refused.retry_after == pytest.approx(4.0, rel=0.1)
    for task in tasks:
        task.cancel()


async def test_few_of_batches_wait_so_that_interactive_work_can() -> None:
    budget = _work(1, most_batch_waiting=2)
    budget.take(A, 1)
    wanted = [(f"batch {n}", A, 1, Priority.BATCH) for n in range(3)]
    _, tasks = await _served(budget, *wanted, ("interactive", A, 1, Priority.INTERACTIVE))
    await _settle()
    assert [task.done() for task in tasks] == [False, False, True, False]
    assert isinstance(tasks[2].exception(), OverloadedError)
    for task in tasks:
        task.cancel()


async def test_work_that_would_begin_after_its_deadline_is_refused_at_once() -> None:
    budget = _work(10)
    budget.take(A, 10)
    with pytest.raises(OverloadedError):
        await budget.wait(B, 5, left=0.5)
    waiting = asyncio.create_task(budget.wait(B, 5, left=2.0))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    waiting.cancel()


async def test_the_expected_wait_follows_what_was_given_back_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("services.common.admission.budget.time.monotonic", lambda: now[0])
    budget = _work(10, most=1)
    assert budget.expected_wait(Priority.INTERACTIVE, 10) == 0.0
    for _ in range(400):
        held = budget.take(A, 10)
        now[0] += 0.5
        held.release()
    held = budget.take(A, 10)
    assert budget.expected_wait(Priority.INTERACTIVE, 10) == pytest.approx(0.5, rel=0.1)
    held.resize(9)
    held.release()
    assert budget.expected_wait(Priority.INTERACTIVE, 10) == 0.0


def test_every_refusal_says_when_to_come_again() -> None:
    budget = Budget(1, 0)
    budget.take(A, 1)
    with pytest.raises(OverloadedError) as caught:
        budget.take(A, 1)
    assert caught.value.retry_after is not None
    assert 0.1 <= caught.value.retry_after <= 10.0


async def test_work_that_was_granted_to_a_caller_who_has_gone_counts_as_given_up() -> None:
    budget = _work(1)
    held = budget.take(A, 1)
    waiting = asyncio.create_task(budget.wait(B, 1))
    await asyncio.sleep(0)
    held.release()
    granted = next(iter(budget._holdings))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (budget.held, granted.worth) == (0, 0)
