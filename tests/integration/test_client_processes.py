"""The user's process: it forks, opens many files or may open few, and forgets clients."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import threading

import pytest
from conftest import processes_of, wait_until

import engineroom as er

FORKING = """
import os, sys, time
import engineroom as er

cluster = er.Cluster(n=1, profile_dir=sys.argv[1], database="none")
rc = cluster.start_and_connect_sync()
called = []
def hold(gate):
    import os, time
    while not os.path.exists(gate):
        time.sleep(0.005)

gate = sys.argv[1] + ".gate"
slow = rc[0].apply_async(hold, gate)
slow.add_done_callback(lambda result: called.append(os.getpid()))
ready = rc[0].apply_async(abs, -3)
mapped = rc[0].map_async(abs, [-1, -2])

def child(body):
    pid = os.fork()
    if pid == 0:
        body()
        sys.exit(5)  # runs the exit functions
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def refused(call):
    try:
        call()
    except er.ControllerLost as error:
        assert "fork" in str(error) or "parent" in str(error), error
    else:
        raise AssertionError("not refused")

def use():
    for call in (slow.get, slow.wait, lambda: list(mapped), lambda: rc[0].apply_async(abs, -1), rc.queue_status):
        refused(call)
    refused(lambda: rc.wait_for_engines(2))
    rc.close()
    cluster.stop_cluster_sync()
    assert not called

assert child(use) == 5
open(gate, "w").close()
assert ready.get(60) == 3
assert child(lambda: ready.get() == 3 or sys.exit(1)) == 5
assert slow.get(60) is None
assert list(mapped) == [1, 2]
assert child(lambda: None) == 5
assert rc[0].apply_sync(abs, -4) == 4
print("fine")
"""


def run(source: str, *arguments: str, **options):
    # Python 3.12 and later warn of each fork of a process that has threads.
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", source, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, **options)


def test_a_forked_process_does_not_wait_for_ever_and_stops_no_cluster(tmp_path):
    done = run(FORKING, tmp_path / "profile_default")
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
    assert done.stderr == ""
    wait_until(lambda: not processes_of(tmp_path))


def test_a_forked_process_that_lives_on_does_not_keep_the_cluster(tmp_path):
    source = """
import os, sys, time
import engineroom as er
rc = er.Cluster(n=1, profile_dir=sys.argv[1], database="none").start_and_connect_sync()
pid = os.fork()
if pid == 0:
    os.closerange(0, 3)
    time.sleep(600)
print(pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = run(source, tmp_path / "profile_default")
    child = int(done.stdout)
    try:
        wait_until(lambda: all(process.pid == child for process in processes_of(tmp_path)))
    finally:
        os.kill(child, 9)


@pytest.mark.fault(47)
def test_a_client_works_where_more_than_1024_files_are_open(cluster):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit[1] < 1500:
        pytest.skip(f"at most {limit[1]} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit[1], 4096), limit[1]))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with cluster.connect_client_sync() as rc:
            rc.wait_for_engines(2, timeout=30)
            assert rc.load_balanced_view().map_sync(abs, [-1, -2]) == [1, 2]
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


@pytest.mark.fault(47)
def test_too_few_descriptors_are_an_error(cluster):
    source = """
import os, resource, sys
import engineroom as er
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
clients = []
try:
    while True:
        clients.append(er.Client(profile_dir=sys.argv[1], cluster_id=sys.argv[2]))
except er.EngineroomError as error:
    assert "file descriptors" in str(error) and "ulimit" in str(error), error
assert clients and clients[0][0].apply_sync(abs, -1) == 1
for client in clients:
    client.close()
print("fine")
"""
    done = run(source, cluster.profile_dir, cluster.cluster_id)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_a_client_that_is_forgotten_is_closed(cluster):
    threads = set(threading.enumerate())
    before = descriptors()
    for _ in range(20):
        rc = cluster.connect_client_sync()
        assert rc.load_balanced_view().apply_sync(abs, -1) == 1
        rc[:].apply_async(abs, -2)
    del rc
    wait_until(lambda: descriptors() <= before)
    wait_until(lambda: set(threading.enumerate()) <= threads)


def test_a_result_keeps_its_forgotten_client(cluster):
    def ask():
        return cluster.connect_client_sync().load_balanced_view().apply_async(lambda: __import__("time").sleep(0.3))

    view = cluster.connect_client_sync().load_balanced_view()
    result = ask()
    gc.collect()
    assert result.get(60) is None
    gc.collect()
    assert view.apply_sync(abs, -1) == 1


SUBMITS = """
import gc, sys
import engineroom as er

def submit(path):
    rc = er.Client(path)
    view = rc.load_balanced_view(label="last")
    for number in range(10_000):
        view.apply_async(abs, -number)
    return rc

def growing(path):
    rc = er.Client(path)
    result = rc.load_balanced_view(label="last").map_async(abs, range(10_000))
    assert not result._all_submitted()
    return rc, result
"""

#: How a program ends right after its last call: the code, and its exit code.
ENDINGS = {
    "the end of the script": ("rc = submit(sys.argv[1])", 0),
    "sys.exit": ("rc = submit(sys.argv[1])\nsys.exit(3)", 3),
    "an error": ("rc = submit(sys.argv[1])\nraise ValueError('expected')", 1),
    "a client that is closed": ("submit(sys.argv[1]).close()\nimport os\nos._exit(0)", 0),
    "a client that is forgotten": ("submit(sys.argv[1])\ngc.collect()", 0),
    "a block": ("with submit(sys.argv[1]):\n    pass\nimport os\nos._exit(0)", 0),
    "a worker of multiprocessing": (
        "import multiprocessing\n"
        "if __name__ == '__main__':\n"
        "    worker = multiprocessing.get_context('fork').Process(target=submit, args=sys.argv[1:])\n"
        "    worker.start()\n"
        "    worker.join()\n"
        "    sys.exit(worker.exitcode)",
        0,
    ),
    "a map": ("rc, result = growing(sys.argv[1])", 0),
    "a map in a block": ("with growing(sys.argv[1])[0]:\n    pass\nimport os\nos._exit(0)", 0),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_program_submitted_last_is_not_lost(ending, rc):
    rc.purge_results(query={"label": "last"})
    code, expected = ENDINGS[ending]
    path = rc.cluster._connection_file()
    run = subprocess.run([sys.executable, "-c", SUBMITS + code, path], capture_output=True, text=True, timeout=120)
    assert run.returncode == expected, run.stderr
    wait_until(lambda: rc.db_count({"label": "last"}) and not rc.db_count({"label": "last", "completed": None}))
    records = rc.db_query({"label": "last"}, keys=["msg_id"], sort="submitted")
    assert sorted(rc.get_result([record["msg_id"] for record in records]).get(60)) == list(range(10_000))
    # On a busy machine the end takes long enough to be explained.
    said = [line for line in run.stderr.splitlines() if not line.startswith("engineroom: this client ends once the ")]
    assert len(said) <= (4 if expected == 1 else 0), run.stderr


SPAWNING = """
import multiprocessing, os, sys
import engineroom as er

scale = 10

class Point:
    def __init__(self, x): self.x = x
    def scaled(self): return self.x * scale

def scaled(point):
    return Point(point.scaled())

def child(profile_dir, found):
    with er.Client(profile_dir=profile_dir) as rc:
        view = rc.load_balanced_view()
        points = view.map_sync(scaled, [Point(1), Point(2)])
        here = view.apply_async(lambda: scaled(Point(3)).x)
        here.wait(60)
        rc[0].push({"scale": 100}, block=True)  # a name of the engine comes first, as for any script
        there = view.apply_sync(scaled, Point(1)).x
        names = rc.db_distinct("function_name", {"function_name": {"$regex": "scaled"}})
        found.put([[type(point) is Point, point.x] for point in points] + [here.get(60), there, names])

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    found = context.SimpleQueue()
    process = context.Process(target=child, args=(sys.argv[1], found))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    print(found.get())
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_functions_of_a_script_travel_from_a_spawned_process_too(fresh_cluster, tmp_path, method):
    """The script is the module `__mp_main__` there."""
    rc = fresh_cluster(n=1)
    script = tmp_path / "script.py"
    script.write_text(SPAWNING)
    command = [sys.executable, script, str(rc.cluster.profile_dir), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "[[True, 10], [True, 20], 30, 100, ['scaled']]\n", done.stderr


def test_a_client_of_a_task_is_of_its_own_cluster(fresh_cluster):
    """Whatever other clusters there are."""
    rc = fresh_cluster(n=1)

    def nested():
        with er.Client() as own:
            values = own.load_balanced_view().map_sync(abs, [-1, -2])
            return values, own.connection.profile_dir, own.connection.cluster_id

    assert rc[0].apply_sync(nested) == ([1, 2], rc.connection.profile_dir, rc.connection.cluster_id)
    script = "import engineroom as er; print(er.Client().connection.cluster_id)"
    said = rc[0].apply_sync(subprocess.check_output, [sys.executable, "-c", script], text=True)
    assert said == f"{rc.connection.cluster_id}\n"
    rc[0].apply_sync(os.environ.clear)
    assert rc[0].apply_sync(nested) == ([1, 2], rc.connection.profile_dir, rc.connection.cluster_id)
