"""Memory for the images of streams and their unread answers."""

from __future__ import annotations

import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.admission.caller import Caller
from services.gateway import image_room
from services.gateway.image_room import ImageRoom


def _image(size: int) -> diagnosis_pb2.DiagnoseRequest:
    return diagnosis_pb2.DiagnoseRequest(image=bytes(size))


async def test_an_image_holds_its_bytes_and_an_answer_no_less() -> None:
    room = ImageRoom(1000, 1.0).of(Caller("a"))
    holding = await room.taken(_image(300))
    assert holding.amount == 300
    room.unread(holding, diagnosis_pb2.DiagnoseStreamResponse(request_id="r"))
    assert holding.amount == 300
    room.unread(holding, diagnosis_pb2.DiagnoseStreamResponse(request_id="r" * 500))
    assert holding.amount > 500
    assert holding.idle_since is not None


async def test_who_does_not_read_loses_the_connection_when_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    shared = ImageRoom(1000, 0.01)
    silent = Caller("a", peer="ipv4:10.0.0.1:5")
    monkeypatch.setattr(image_room, "disconnect", ended.append)
    unread = await shared.of(silent).taken(_image(800))

    def end() -> None:
        ended.append(silent.peer)
        unread.release()

    monkeypatch.setattr(unread, "end", end)
    shared.of(silent).unread(unread, diagnosis_pb2.DiagnoseStreamResponse())
    holding = await shared.of(Caller("b")).taken(_image(700))
    assert ended == ["ipv4:10.0.0.1:5"]
    assert holding.amount == 700


async def test_the_end_of_a_room_is_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(image_room, "disconnect", ended.append)
    holding = await ImageRoom(1000, 1.0).of(Caller("a", peer="ipv4:10.0.0.1:5")).taken(_image(1))
    assert holding.end is not None
    holding.end()
    assert ended == ["ipv4:10.0.0.1:5"]
