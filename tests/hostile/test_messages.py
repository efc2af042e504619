"""Half messages, compressed messages, unread answers, silent streams: small requests that once stopped the server for everyone."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import DiagnosisClient, diagnose_request
from tests.hostile.attacker import DIAGNOSIS, Attacker, framed
from tests.hostile.victim import MIB, GoodClient, resident_bytes, sized
from tests.running import SERVING, Running, eventually

UNIMPLEMENTED, EXHAUSTED, LATE, INVALID = "12", "8", "4", "3"
DIAGNOSE = f"{DIAGNOSIS}/Diagnose"
STREAM = f"{DIAGNOSIS}/DiagnoseStream"
Item = TypeVar("Item")
Found = TypeVar("Found")
CHECK = "/grpc.health.v1.Health/Check"


@contextmanager
def attackers(address: str, count: int, *, reads: bool = True) -> Iterator[list[Attacker]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Attacker(address, reads=reads)) for _ in range(count)]


def at_once(items: Sequence[Item], step: Callable[[Item], Found]) -> list[Found]:
    with ThreadPoolExecutor(len(items)) as threads:
        return list(threads.map(step, items))


@pytest.mark.parametrize("method", [DIAGNOSE, CHECK])
def test_calls_that_send_most_of_a_message(victim: Running, attacked: str, good: GoodClient, growth: Callable[[], int], method: str) -> None:
    with attackers(attacked, sized(24, 80)) as attacking, good.at_work():
        calls = [(a, a.call(method)) for a in attacking]
        part = framed(bytes(20 * MIB), 23 * MIB)
        sent = at_once(calls, lambda call: call[0].send(call[1], part))
        grown = growth()
        assert victim.health() == SERVING
        at_once(calls, lambda call: call[0].listen(2.0))
    assert max(sent) > 2 * MIB, "some are read; a call that is not read gets one window of 64 KiB"
    assert grown < sized(240, 800) * MIB
    assert {status for a, number in calls if (status := a.statuses.get(number))} <= {EXHAUSTED, LATE}


def test_a_message_that_unpacks_to_gigabytes(attacked: str, good: GoodClient, growth: Callable[[], int]) -> None:
    packed = gzip.compress(bytes(sized(200, 2000) * MIB), 9)
    with Attacker(attacked) as attacker, good.at_work():
        number = attacker.call(DIAGNOSE, ("grpc-encoding", "gzip"))
        attacker.send(number, b"\1" + framed(packed)[1:], end=True)
        attacker.listen(1.0)
        grown = growth()
    assert attacker.statuses[number] == UNIMPLEMENTED
    assert grown < 32 * MIB


def test_answers_that_nobody_reads(attacked: str, good: GoodClient, field: bytes, growth: Callable[[], int]) -> None:
    """Explained answers of a field are larger than a window, so they wait in the server."""
    images = [diagnose_request(field, explain=True, request_id=str(n)) for n in range(12)]

    def send_images(attacker: Attacker) -> None:
        number = attacker.call(STREAM)
        for image in images:
            attacker.send(number, framed(diagnosis_pb2.DiagnoseStreamRequest(request=image).SerializeToString()))
        until = time.monotonic() + sized(10, 150)
        while time.monotonic() < until and not attacker.closed:
            attacker.listen()

    with attackers(attacked, sized(6, 20), reads=False) as attacking, good.at_work():
        at_once(attacking, send_images)
        grown = growth()
    assert sum(a.closed for a in attacking) >= sized(6, 12), "who does not read loses the connection; who got no slot has nothing to read"
    assert grown < sized(200, 700) * MIB


def test_streams_that_say_nothing(victim: Running, attacked: str, good: GoodClient, field: bytes, right: object) -> None:
    with attackers(attacked, sized(4, 8)) as attacking, good.at_work():
        calls = [(a, a.call(STREAM)) for a in attacking for _ in range(8)]
        assert victim.health() == SERVING
        with DiagnosisClient(good.address) as client:
            requests = (diagnose_request(field, request_id=str(n)) for n in range(3))
            answers = dict(client.diagnose_stream(requests, timeout=30.0))
        assert len(answers) == 3
        at_once(attacking, lambda attacker: attacker.listen(sized(2, 15)))
    ended = [status for a, number in calls if (status := a.statuses.get(number))]
    assert len(ended) >= len(calls) - 16, "at most the slots stay taken"
    assert set(ended) <= {EXHAUSTED, LATE}


def test_messages_that_protobuf_cannot_read(attacked: str, good: GoodClient) -> None:
    with Attacker(attacked) as attacker, good.at_work():
        calls = [attacker.call(method) for method in (DIAGNOSE, STREAM, CHECK)]
        for number in calls:
            attacker.send(number, framed(b"\xff" * 64), end=True)
        attacker.listen(1.0)
    assert [attacker.statuses.get(number) for number in calls] == [INVALID] * 3


def test_watchers_of_health_are_counted(victim: Running, good: GoodClient) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{victim.part.port}") as channel, good.at_work():
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(service="live"), timeout=sized(30, 240)) for _ in range(sized(120, 3000))]
        answered, refusals = 0, set()
        for watch in watches:
            try:
                next(watch)
                answered += 1
            except grpc.RpcError as error:
                refusals.add(error.code())
        for watch in watches:
            watch.cancel()
        assert answered == 64
        assert refusals <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}, "of thousands on one connection some are reset"
        assert victim.health() == SERVING


def test_attacks_that_come_again_leave_no_memory_behind(victim: Running, attacked: str, good: GoodClient) -> None:
    left = []
    for _ in range(sized(6, 30)):
        with attackers(attacked, 5) as attacking, good.at_work():
            calls = [(a, a.call(DIAGNOSE)) for a in attacking]
            at_once(calls, lambda call: call[0].send(call[1], framed(bytes(20 * MIB), 23 * MIB)))
            unreadable = [(a, a.call(STREAM)) for a in attacking]
            at_once(unreadable, lambda call: call[0].send(call[1], framed(b"\xff" * 64), end=True))
        eventually(lambda: victim.metrics()("dl4all_admission_held") == 0.0, what="all is given back")
        left.append(resident_bytes(victim))
    assert left[-1] < max(left[: len(left) // 2]) + sized(96, 16) * MIB, left
