"""How a promise was broken: who did what, when, from the store to the flush that does not cover it.

Contract: a pure function of the History. A schedule has only what bears on one store and one
flush request that was acknowledged with success while the store was not safe (Rule V2): the
store, the request and the host call that answered it, the writeback of the device and the disk's
FLUSHes meanwhile, at most `MOST_SPANS` of each of these two; and flushes that failed since.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from crashsim.engine.history import NEVER, History
from crashsim.engine.pages import PAGE_BYTES, split
from crashsim.engine.streams import I64
from crashsim.engine.units import format_bytes
from crashsim.power.safety import Safety
from crashsim.results import Schedule, ScheduleSpan

MOST_SPANS = 4
UNENDED = -1
FAILED = ", failed"


def schedule_of(history: History, durable: Safety, request: int, store: int) -> Schedule:
    """The schedule in which flush `request` was acknowledged although row `store` was not safe."""
    here = slice(store, store + 1)
    pieces = split(history.store_offset[here], history.store_length[here])
    safe = durable.of_pieces(pieces, history.store_t_ns[here])
    worst = int(safe.argmax())
    page, safe_ns = int(pieces.page[worst]), int(safe[worst])
    device = int(history.flush_device[request])
    span = history.devices[device]
    offset = int(history.store_offset[store]) - span.first_page * PAGE_BYTES
    size = format_bytes(int(history.store_length[store]))
    write = int(history.store_write[store])
    text = f"write {write}, {size} at offset {offset}"
    began_ns, acked_ns = int(history.store_t_ns[store]), int(history.flush_ack_ns[request])
    answering = _answered_by(history, request)
    since_ns = began_ns
    if answering is not None:
        since_ns = min(began_ns, int(history.flush_begin_ns[answering]))
    until_ns = acked_ns if safe_ns == NEVER else safe_ns
    spans = [ScheduleSpan("store", text, began_ns, _ended(safe_ns))]
    spans += _requests(history, request, answering, since_ns)
    spans += _writeback(history, device, page, began_ns, since_ns, until_ns)
    spans += _disk_flushes(history, since_ns, until_ns)
    return Schedule(span.name, write, acked_ns, _ended(safe_ns), spans)


def _ended(t_ns: int) -> int:
    return UNENDED if t_ns == NEVER else t_ns


def _answered_by(history: History, request: int) -> int | None:
    """The request whose host call gave this one its result: itself, as a rule (Rule V3)."""
    if int(history.flush_begin_ns[request]) != NEVER:
        return request
    same = history.flush_device == history.flush_device[request]
    same &= history.flush_ack_ns == history.flush_ack_ns[request]
    found = np.flatnonzero(same & (history.flush_begin_ns != NEVER))
    return int(found[0]) if found.size else None


def _requests(
    history: History, request: int, answering: int | None, since_ns: int
) -> Iterator[ScheduleSpan]:
    """The request, the one whose call it shared, and that call; before them requests that failed
    since the store: the guest was told once (Rule H14)."""
    acked_ns = int(history.flush_ack_ns[request])
    failed = (history.flush_device == history.flush_device[request]) & (history.flush_result > 0)
    failed &= (history.flush_ack_ns >= since_ns) & (history.flush_ack_ns <= acked_ns)
    told = np.flatnonzero(failed)[-MOST_SPANS:].tolist()
    for one in sorted({*told, request, request if answering is None else answering}):
        text = _asker(history, one) + (FAILED if one in told else "")
        submitted_ns, ended_ns = int(history.flush_submit_ns[one]), int(history.flush_ack_ns[one])
        yield ScheduleSpan("flush", text, submitted_ns, ended_ns)
    if answering is not None:
        begun_ns = int(history.flush_begin_ns[answering])
        yield ScheduleSpan("call", f"for {_asker(history, answering)}", begun_ns, acked_ns)


def _asker(history: History, request: int) -> str:
    vcpu = int(history.flush_vcpu[request])
    return "the guest's journal" if vcpu < 0 else f"vCPU {vcpu}"


def _writeback(
    history: History, device: int, page: int, stored_ns: int, since_ns: int, until_ns: int
) -> list[ScheduleSpan]:
    """Batches of the device, and whether each carried the page."""
    inside = (history.batch_device == device) & (history.batch_t_ns >= since_ns)
    spans = []
    for batch in np.flatnonzero(inside & (history.batch_t_ns <= until_ns)).tolist():
        mine = np.flatnonzero(history.io_batch == batch)
        if not mine.size:
            continue
        begin_ns, end_ns = int(history.batch_t_ns[batch]), int(history.io_complete_ns[mine].max())
        text = _carried(history, mine, page) if begin_ns >= stored_ns else "before this write"
        if history.batch_failed[batch]:
            text += FAILED
        spans.append(ScheduleSpan("writeback", text, begin_ns, end_ns))
    # Those with the write's page say most; the rest only shows that it was left out.
    spans.sort(key=lambda span: (span.text.startswith("without"), span.begin_ns))
    return sorted(spans[:MOST_SPANS], key=lambda span: span.begin_ns)


def _carried(history: History, ios: I64, page: int) -> str:
    first, pages = history.io_first_page[ios], history.io_pages[ios]
    if not bool(np.any((first <= page) & (page < first + pages))):
        return "without this write's page"
    last = first + pages - 1 == page
    if bool(np.any(last & (history.io_corrupted[ios] != 0))):
        return "with this write's page, which arrives damaged"
    if bool(np.any(last & (history.io_shorn[ios] != 0))):
        return "with this write's page, which never arrives"
    return "with this write's page"


def _disk_flushes(history: History, since_ns: int, until_ns: int) -> list[ScheduleSpan]:
    issue, end = history.flush_disk_issue_ns, history.flush_disk_end_ns
    rows = np.flatnonzero((issue >= since_ns) & (issue <= until_ns))
    return [
        ScheduleSpan(
            "disk-flush",
            "does nothing" if _ignored(history, row) else "",
            int(issue[row]),
            _ended(int(end[row])),
        )
        for row in rows[-MOST_SPANS:].tolist()
    ]


def _ignored(history: History, row: int) -> bool:
    return bool(history.info.ignores_flush or history.flush_disk_ignored[row])
