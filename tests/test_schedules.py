"""What a schedule of a broken promise holds, on shipped experiments of each kind of cause."""

from __future__ import annotations

from crashsim.power.broken_promises import MOST_SPANS
from crashsim.results import Schedule
from tests.test_stories import cases

RETRY = "on_sync_error=retry"


def schedule(experiment: str, case: str) -> Schedule:
    (found,) = cases(experiment)[case].schedules
    return found


def texts(found: Schedule, lane: str) -> list[str]:
    return [span.text for span in found.spans if span.lane == lane]


def test_V2_a_disk_that_ignores_flush_is_seen_to_do_nothing() -> None:
    found = schedule("ignored-flush-rate", "share=1/1")
    assert set(texts(found, "disk-flush")) == {"does nothing"}
    assert texts(found, "writeback") == ["with this write's page"]
    assert found.durable_ns == -1
    assert texts(found, "call") == ["for vCPU 0"]


def test_D4_a_shorn_page_is_seen_never_to_arrive() -> None:
    found = schedule("shorn-writes", "share=1/1000")
    assert "with this write's page, which never arrives" in texts(found, "writeback")


def test_V4_what_never_reaches_the_file_is_never_written_back() -> None:
    for case in ("vmm=qemu,kind=private", "vmm=qemu,kind=tmpfs"):
        found = schedule("lost-although-synced", case)
        assert texts(found, "writeback") == []
        assert found.durable_ns == -1


def test_a_schedule_ends_with_what_it_is_about() -> None:
    for found in (schedule("ignored-flush-rate", "share=1/2"), schedule("fsyncgate", RETRY)):
        begin = min(span.begin_ns for span in found.spans)
        end = found.acknowledged_ns if found.durable_ns < 0 else found.durable_ns
        assert all(begin <= span.begin_ns <= end for span in found.spans)
        assert all(len(texts(found, lane)) <= MOST_SPANS for lane in ("writeback", "disk-flush"))
