"""The questions of clients, in threads: one client's slow questions keep nobody else waiting, nor do those of many.

    add ──▶ what it is about is recorded ──▶ quick lane: some threads, little time for each question
                                                │ it takes longer; or it is likely to
                                                └────▶ slow lane: one thread, one question after the other

Each client has one question under way at a time; its others wait behind it. But a user may have many clients, so the
time of a question is limited, too. In the quick lane that is some processor time: enough for a question by id, or one
that an index answers. A thread takes the question next whose client has had the least of them lately: so a few cheap
questions do not wait behind many that need nearly all of that time. A question that needs more begins again in the slow
lane. There its time is shorter the more
questions wait, so that none waits much longer than a query may take. When a client leaves, its questions end.

A question whose thread hangs gets an error, and the other threads go on. While all threads of a lane hang, the
questions that wait for it get the error, too.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from ...errors import EngineroomError, QueryError, StoreError
from ...ids import ClientId
from ...stores.base import QUERY_SECONDS
from ...stores.query.deadline import Asker
from ...watchdog.watchdog import HANG_SECONDS
from .reading_threads import ReadingThreads

QUICK_THREADS = 3
#: Processor time of a question in the quick lane, in seconds …
QUICK_THREAD_TIME = 0.25
#: … and seconds that it may take, for stores that work elsewhere.
QUICK_SECONDS = 2.0
#: Time of a question in the slow lane, in seconds, however many wait.
LEAST_SECONDS = 1.0

#: The turns of so many clients are kept, before those that have passed are forgotten.
MOST_TURNS = 1000

#: Nothing needs to be recorded.
DONE: Future[None] = Future()
DONE.set_result(None)


class Question:
    """What is called for a question.

    Parameters
    ----------
    begin : callable
        Gives a future: when it is done, the question may run.
    run : callable
        Reads, and hands over what it found. It may be called twice: the first time may end with an error.
    fail : callable
        Hands over an error.
    is_slow : bool
        It is likely to take long.
    """

    __slots__ = ("asker", "began", "begin", "fail", "is_slow", "run")

    def __init__(
        self,
        begin: Callable[[], Future[None]],
        run: Callable[[], None],
        fail: Callable[[Exception], None],
        is_slow: bool = False,
    ) -> None:
        self.begin, self.run, self.fail, self.is_slow = begin, run, fail, is_slow
        self.asker = Asker()
        #: when it began in the slow lane (monotonic seconds)
        self.began = 0.0


class Questions:
    """Runs the questions of clients: of each client one at a time, in their order."""

    def __init__(self, hang_seconds: float = HANG_SECONDS) -> None:
        self._quick = ReadingThreads(QUICK_THREADS, "question", hang_seconds, self._quick_hang)
        self._slow = ReadingThreads(1, "slow-question", hang_seconds, self._slow_hang)
        self._lock = threading.Lock()
        #: client → its questions: the one under way, then those that wait behind it
        self._of_client: dict[ClientId, deque[Question]] = {}
        #: the quick lane: (turn, number, client, question) of those that wait for a thread, as a heap
        self._queue: list[tuple[float, int, ClientId, Question]] = []
        self._numbers = itertools.count()
        #: client → the turn of its next question: that of its last one, and the processor time that it took
        self._turns: dict[ClientId, float] = {}
        #: the turn of the question that began last. A client that has not asked lately has this turn.
        self._turn = 0.0
        #: questions in the slow lane that have not begun there
        self._waiting: set[Question] = set()
        #: the one that runs there
        self._running: Question | None = None

    def add(self, client: ClientId, question: Question) -> None:
        """Run a question, once those that this client asked before are answered."""
        with self._lock:
            questions = self._of_client.setdefault(client, deque())
            questions.append(question)
            if len(questions) > 1:
                return
        self._begin(client, question)

    def withdraw(self, client: ClientId, question: Question) -> None:
        """Nobody waits for this answer: end the question with an error, and go on with the next one of its client."""
        with self._lock:
            questions = self._of_client.get(client)
            if not questions or question not in questions:
                return
            if questions[0] is not question:
                questions.remove(question)
            self._waiting.discard(question)
            self._share_time()
        self._give_up(client, question, withdrawn())

    def drop(self, client: ClientId) -> None:
        """Forget the questions of a client, and end the one that runs."""
        with self._lock:
            self._turns.pop(client, None)
            for question in self._of_client.pop(client, ()):
                question.asker.has_left = True
                self._waiting.discard(question)
            self._share_time()

    def close(self) -> bool:
        """End what runs, and forget the rest. False: a thread hangs."""
        with self._lock:
            for questions in self._of_client.values():
                for question in questions:
                    question.asker.has_left = True
        is_quick_closed, is_slow_closed = self._quick.close(), self._slow.close()
        return is_quick_closed and is_slow_closed

    def _begin(self, client: ClientId, question: Question) -> None:
        def go(recorded: Future[None]) -> None:
            error = recorded.exception()
            if error is not None:
                question.run, question.is_slow = _raising(error), False
            if question.is_slow:
                self._go_slowly(client, question)
            else:
                self._go_quickly(client, question)

        question.begin().add_done_callback(go)

    def _go_quickly(self, client: ClientId, question: Question) -> None:
        if (error := self._quick.error) is not None:
            self._give_up_all([client], error)
            return
        with self._lock:
            turn = max(self._turn, self._turns.get(client, 0.0))
            heapq.heappush(self._queue, (turn, next(self._numbers), client, question))
        with contextlib.suppress(RuntimeError):  # the controller is closing
            self._quick.submit(self._run_next)

    def _run_next(self) -> None:
        with self._lock:
            if not self._queue:
                return  # it was given up
            turn, _, client, question = heapq.heappop(self._queue)
            self._turn = max(self._turn, turn)
        self._run_quickly(client, question, turn)

    def _charge(self, client: ClientId, turn: float) -> None:
        """The next question of a client has this turn."""
        with self._lock:
            if client in self._of_client:  # else it has left
                self._turns[client] = turn
            if len(self._turns) > MOST_TURNS:
                self._turns = {client: turn for client, turn in self._turns.items() if turn > self._turn}

    def _run_quickly(self, client: ClientId, question: Question, turn: float) -> None:
        asker, began = question.asker, time.thread_time()
        asker.until = time.monotonic() + QUICK_SECONDS
        asker.until_thread_time = began + QUICK_THREAD_TIME
        try:
            if not asker.has_left:
                with self._quick.reading(asker, lambda error: self._give_up(client, question, error)):
                    question.run()
        except Exception as error:
            self._charge(client, turn + time.thread_time() - began)
            if asker.left() < 0 and not asker.has_left:
                asker.until = asker.until_thread_time = math.inf
                self._go_slowly(client, question)
                return
            question.fail(error)
        else:
            self._charge(client, turn + time.thread_time() - began)
        self._end(client, question)

    def _go_slowly(self, client: ClientId, question: Question) -> None:
        if (error := self._slow.error) is not None:
            self._give_up_all([client], error)
            return
        with self._lock:
            if not question.asker.has_left:
                self._waiting.add(question)
                self._share_time()
        with contextlib.suppress(RuntimeError):  # the controller is closing
            self._slow.submit(lambda: self._run_slowly(client, question))

    def _run_slowly(self, client: ClientId, question: Question) -> None:
        with self._lock:
            self._waiting.discard(question)
            self._running, question.began = question, time.monotonic()
            self._share_time()
        try:
            if not question.asker.has_left:
                with self._slow.reading(question.asker, lambda error: self._give_up(client, question, error)):
                    guarded(question.run, question.fail)
        finally:
            with self._lock:
                self._running = None
            self._end(client, question)

    def _share_time(self) -> None:
        """Give the question in the slow lane its share of the time: the more wait, the less."""
        if self._running is not None:
            share = max(QUERY_SECONDS / (1 + len(self._waiting)), LEAST_SECONDS) if self._waiting else math.inf
            self._running.asker.until = self._running.began + share

    def _give_up(self, client: ClientId, question: Question, error: EngineroomError) -> None:
        """Answer a question with an error. What may come of it later is not wanted."""
        question.asker.has_left = True
        question.fail(error)
        self._end(client, question)

    def _give_up_all(self, clients: Iterable[ClientId], error: StoreError) -> None:
        """Nothing can be read: all questions of these clients are answered with an error."""
        with self._lock:
            given_up = [question for client in clients for question in self._of_client.pop(client, ())]
            self._waiting.difference_update(given_up)
            for question in given_up:
                question.asker.has_left = True
        for question in given_up:
            question.fail(error)

    def _quick_hang(self, error: StoreError) -> None:
        with self._lock:
            clients = [client for _, _, client, _ in self._queue]
            self._queue.clear()
        self._give_up_all(clients, error)

    def _slow_hang(self, error: StoreError) -> None:
        with self._lock:
            clients = [client for client, questions in self._of_client.items() if questions[0] in self._waiting]
        self._give_up_all(clients, error)

    def _end(self, client: ClientId, question: Question) -> None:
        """A question has been answered: go on with the next one of its client."""
        with self._lock:
            questions = self._of_client.get(client)
            if not questions or questions[0] is not question:
                return  # the client has left
            questions.popleft()
            if not questions:
                del self._of_client[client]
                return
            next = questions[0]
        self._begin(client, next)


def _raising(error: BaseException) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


def withdrawn() -> QueryError:
    """The error that a question ends with whose answer nobody waits for."""
    return QueryError("nobody waits for this answer any more")


def guarded(run: Callable[[], None], fail: Callable[[Exception], None]) -> None:
    """Call `run`; if it raises, call `fail` with the error."""
    try:
        run()
    except Exception as error:
        fail(error)
