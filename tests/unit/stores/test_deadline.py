from __future__ import annotations

import math
import time

from engineroom.stores.query.deadline import Asker, Deadline, asked_by


def test_the_processor_time_of_the_thread_is_no_limit_for_a_server() -> None:
    asker = Asker()
    asker.until = time.monotonic() + 100.0
    asker.until_thread_time = time.thread_time() - 1.0  # used up
    with asked_by(asker):
        deadline = Deadline(1000.0)
    assert deadline.left() < 0
    assert 0 < deadline.left_elsewhere() <= 100.0


def test_a_server_has_no_time_for_an_asker_that_has_left() -> None:
    asker = Asker()
    with asked_by(asker):
        deadline = Deadline(1000.0)
    asker.has_left = True
    assert deadline.left_elsewhere() == -math.inf
