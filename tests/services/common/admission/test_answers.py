"""An answer that stays unread costs its caller the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from services.common.admission import answers
from services.common.admission.answers import Answers
from services.common.admission.budget import Budget
from services.common.admission.caller import Caller


class Context:
    def __init__(self) -> None:
        self.done: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.done.append(callback)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    peers: list[str] = []
    monkeypatch.setattr(answers, "disconnect", peers.append)
    return peers


async def test_an_unread_answer_closes_the_connection(closed: list[str]) -> None:
    held = Budget(10, 0).take(Caller("a", peer="p"), 1)
    with Answers(held, 0.01).offered():
        await asyncio.sleep(0.05)
    assert closed == ["p"]


async def test_a_read_answer_closes_nothing(closed: list[str]) -> None:
    held = Budget(10, 0).take(Caller("a", peer="p"), 1)
    with Answers(held, 0.02).offered():
        pass
    await asyncio.sleep(0.05)
    assert closed == []


async def test_the_last_answer_holds_its_size_until_it_is_read(closed: list[str]) -> None:
    budget, context = Budget(10, 0), Context()
    given = Answers(budget.take(Caller("a", peer="p"), 1), 60.0)
    given.last(context)
    given.sized(7)
    assert given.is_sending
    assert budget.held == 7
    (done,) = context.done
    done(None)
    assert budget.held == 0
    assert closed == []


async def test_the_last_answer_must_be_read_in_time(closed: list[str]) -> None:
    Answers(Budget(10, 0).take(Caller("a", peer="p"), 1), 0.01).last(Context())
    await asyncio.sleep(0.05)
    assert closed == ["p"]
