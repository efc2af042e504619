"""Results: written, read again, checked, and shown; and what mutations of them the checks notice."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.load.calls import INTERACTIVE, Call, Outcome
from tests.load.capacity import BEGIN, END, sections, updated
from tests.load.checks import checks_of, failures
from tests.load.measuring import fewest_for_capacity, kept_up
from tests.load.page import load_tables, machine_facts, page
from tests.load.planning import CORES_OF_POD, UTILISATION, busiest, cores, cost, in_pods, one_machine, pods, validate
from tests.load.plots import load_plots, svg
from tests.load.queueing import simulate
from tests.load.results import ClosedStep, Ends, Latency, LoadReport, Machine, OpenStep, Usage, WorkloadResult, read, write

PARTS = {"gateway": 4.0, "patching": 20.0, "preprocessing": 5.0, "classification": 2.0, "triton": 7.0, "retrieval": 2.0, "generator": 1.0}


def _call(intended: float, latency: float = 0.05, outcome: Outcome = Outcome.ANSWERED) -> Call:
    return Call(intended, intended + latency, outcome, "OK" if outcome is Outcome.ANSWERED else "INTERNAL", INTERACTIVE, cells=1)


def _usage(parts: dict[str, float] | None = None) -> Usage:
    used = PARTS if parts is None else parts
    return Usage(10.0, used, 0.03, 0.9, {part: 100.0 for part in used if part != "generator"})


def _closed(in_flight: int, rate: float, latency: float) -> ClosedStep:
    calls = [_call(0.1 * number, latency * (0.8 + 0.4 * (number % 5) / 4)) for number in range(200)]
    return ClosedStep(in_flight, rate, Latency.of(calls), Ends.of(calls), _usage())


def _open(share: float, latency: float) -> OpenStep:
    calls = [_call(0.1 * number, latency * (0.8 + 0.4 * (number % 5) / 4)) for number in range(200)]
    return OpenStep(share, 40.0 * share, 1.0, Latency.of(calls), Ends.of(calls), _usage())


def _result(target: str = "five", workload: str = "crops") -> WorkloadResult:
    search = [_closed(1, 20.0, 0.045), _closed(2, 36.0, 0.05), _closed(4, 40.0, 0.09)]
    return WorkloadResult(target, workload, 1.0, search[0], search, search[2], [_open(0.5, 0.06), _open(0.7, 0.08), _open(0.9, 0.2)])


def _report() -> LoadReport:
    machine = Machine("x86_64", 2, "3.11", "2026-11-30T12:00:00+00:00")
    return LoadReport(machine, {"seconds": "10"}, [_result(), _result("embedded"), _result("five", "fields")], complete=True)


def test_latencies_are_those_of_answered_calls() -> None:
    calls = [_call(0.0, 0.010), _call(1.0, 0.030), _call(2.0, 9.0, Outcome.LOST)]
    found = Latency.of(calls)
    assert found is not None
    assert (found.count, found.mean, found.p50) == (2, 20.0, 20.0)
    assert found.shares[-1] == 1.0
    assert Latency.of([calls[2]]) is None
    assert Ends.of(calls) == Ends(2, 0, 1, 0, {"INTERNAL": 1}, 0)


def test_a_server_that_keeps_up_has_answered_what_was_sent_early_enough() -> None:
    assert kept_up([_call(0.1 * number) for number in range(100)], 10.0, latency=0.1) == 1.0
    late = [_call(0.1 * number, 0.05 * number) for number in range(100)]
    assert kept_up(late, 10.0, latency=0.1) == pytest.approx(0.67, abs=0.02)
    assert kept_up([], 10.0, 0.1) == 0.0


def test_the_fewest_calls_in_flight_that_are_enough_give_the_capacity() -> None:
    assert fewest_for_capacity([(1, 10.0), (2, 19.5), (4, 20.0), (8, 19.9)]) == 2
    assert fewest_for_capacity([(1, 10.0), (2, 15.0), (4, 20.0)]) == 4


def test_a_sound_server_passes() -> None:
    assert failures(checks_of(_result())) == []


@pytest.mark.parametrize(
    ("number", "changed", "words"),
    [
        (1, {"kept_up": 0.6}, "answered 0.60 of what was offered"),
        (0, {"kept_up": 0.5}, "answered 0.50 of what was offered"),
        (0, {"latency": Latency.of([_call(0.1 * n, 0.5) for n in range(50)])}, "times the unloaded median"),
        (0, {"latency": None}, "does not exist"),
        (1, {"ends": Ends(100, 0, 1, 0)}, "1 calls ended without an answer"),
        (1, {"ends": Ends(100, 0, 0, 2)}, "2 calls ended without an answer"),
        (1, {"usage": replace(_usage(), generator_share=0.5)}, "the generator used 50%"),
    ],
)
def test_a_broken_server_fails_with_a_sentence(number: int, changed: dict[str, object], words: str) -> None:
    result = _result()
    result.open[number] = replace(result.open[number], **changed)  # type: ignore[arg-type]
    found = failures(checks_of(result))
    assert found
    assert any(words in sentence and sentence.endswith(".") for sentence in found)


def test_a_server_that_answers_nothing_fails() -> None:
    result = _result()
    assert result.capacity is not None
    result.capacity = replace(result.capacity, rate=0.0)
    assert any("the capacity is 0" in sentence for sentence in failures(checks_of(result)))


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = _report()
    report.checks = checks_of(report.results[0])
    write(report, tmp_path / "deep" / "load.json")
    assert read(LoadReport, tmp_path / "deep" / "load.json") == report
    with pytest.raises(SystemExit, match="run the load test first"):
        read(LoadReport, tmp_path / "none.json")


def test_the_page_needs_no_other_file_and_says_what_failed() -> None:
    report = _report()
    report.results[0].open[1] = replace(report.results[0].open[1], kept_up=0.1)
    report.checks = checks_of(report.results[0])
    text = page("Load <test>", machine_facts(report.machine, {}, complete=False), load_tables(report), load_plots(report), report.checks)
    assert text.count("<svg") == len(load_plots(report)) == 5
    assert not re.search(r"""(?:src|href)=["'](?!#)|@import|url\((?!#)""", text)
    assert "Load &lt;test&gt;" in text
    assert "ended early" in text
    assert text.count("<li class=no>") == 1


def test_a_report_without_measurements_is_a_page_too() -> None:
    report = LoadReport(Machine.here(), {})
    assert load_plots(report) == {}
    assert "ended early" in page("Load test", machine_facts(report.machine, {}, complete=False), load_tables(report), {}, [])


def test_the_same_plot_gives_the_same_bytes() -> None:
    first, second = (svg(next(iter(load_plots(_report()).values()))) for _ in range(2))
    assert first == second


def test_pods_grow_with_the_load_and_never_vanish() -> None:
    used = cost(_result())
    assert "generator" not in used
    assert {part: pod.pods for part, pod in pods(used, 1.0).items()} == dict.fromkeys(used, 1)
    million = pods(used, 1e6)
    for part, pod in million.items():
        assert pod.cores_used == pytest.approx(1e6 / 3600 * used[part] / 1000)
        assert pod.cores_used <= UTILISATION * pod.pods * CORES_OF_POD[part]
        assert pod.cores_used > UTILISATION * (pod.pods - 1) * CORES_OF_POD[part]
    assert cores(million) == sum(pod.pods * CORES_OF_POD[part] for part, pod in million.items())


def test_what_breaks_first_is_the_part_with_most_work_for_its_cores() -> None:
    service = in_pods(_result(), {})
    assert busiest(simulate(service, 30.0, 5_000))[0] == "patching"
    assert simulate(service, 30.0, 5_000).refused == 0
    assert simulate(service, 300.0, 5_000).refused_share > 0.5
    ample = {part: pod.pods for part, pod in pods(cost(_result()), 300.0 * 3600).items()}
    assert simulate(in_pods(_result(), ample), 300.0, 5_000).refused == 0


def test_the_machine_of_the_measurement_has_its_capacity() -> None:
    service = one_machine(_result(), 2)
    assert sum(part.seconds for part in service.parts) == pytest.approx(2 / 40.0)
    below, above = (simulate(service, rate, 10_000) for rate in (36.0, 80.0))
    assert below.refused == 0
    assert 1.0 - above.refused_share == pytest.approx(0.5, abs=0.03)
    assert [one.share for one in validate(_result(), 2, 2_000)] == [0.5, 0.7, 0.9]


def test_the_capacity_page_is_written_between_its_marks() -> None:
    text = "\n".join(sections(_report(), 1_000, 64, images=500))
    assert "1,000,000 an hour" in text
    assert "| crops, a cell |" in text
    assert "Median error" in text
    assert "- At 10 times the present load, all arrangements answer everything." in text
    assert re.search(r"- At 1,000 times the present load, these do not: one machine, 2 cores \(cores\); one pod of each part \(patching\)", text)
    once = updated(f"# Capacity\n\n{BEGIN}\n\nformer figures\n\n{END}\n\nThe end.\n", text)
    assert "former figures" not in once
    assert once.endswith(f"{END}\n\nThe end.\n")
    assert updated(once, text) == once
