"""Worker processes: they end with their parent, even if it is killed."""

import os
import subprocess
import sys
import time

import pytest

from zoomloc.world.processes import worker_pool

PARENT = """
import time
import work
from zoomloc.world.processes import worker_pool

if __name__ == "__main__":
    with worker_pool(2) as pool:
        print(*set(pool.map(work.who, range(8))), flush=True)
        time.sleep(60)
"""
WORK = """
import os, time

def who(_):
    time.sleep(0.2)
    return os.getpid()
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_of_a_killed_parent_end(tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert pids and all(map(alive, pids))
        parent.kill()
    until_s = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert not any(map(alive, pids))


@pytest.mark.parametrize("prepare", [None, os.chdir])
def test_workers_are_prepared(tmp_path, prepare):
    args = () if prepare is None else (str(tmp_path),)
    with worker_pool(1, prepare, args) as pool:
        here = pool.submit(os.getcwd).result()
    assert (here == str(tmp_path)) == (prepare is not None)
