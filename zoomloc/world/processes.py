"""Worker processes that end when the process that started them is gone, however it ended.

Knows nothing of the work.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

LOOK_EVERY_S = 0.5


def worker_pool(
    workers: int,
    prepare: Callable[..., object] | None = None,
    args: tuple[Any, ...] = (),
    interruptible: bool = False,
) -> ProcessPoolExecutor:
    """A pool of spawned processes (forked GDAL and OpenMP may hang).

    ``prepare(*args)`` runs first in each. Ctrl-C reaches them only where ``interruptible``:
    else it is the parent's business, and workers end with their pool. A parent that is killed
    leaves none behind.
    """
    begun = (os.getpid(), interruptible, prepare, args)
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=begun)


def _begin(
    parent: int, interruptible: bool, prepare: Callable[..., object] | None, args: tuple[Any, ...]
) -> None:
    if not interruptible:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if prepare is not None:
        prepare(*args)


def _end_with(parent: int) -> None:
    """End this process once it belongs to another parent."""
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY_S)
    os._exit(1)
