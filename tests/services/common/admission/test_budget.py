"""A budget that callers share."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.admission.budget import Budget, Holding
from services.common.admission.caller import Caller
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
