"""Picture files read for what they say of themselves, by one process or several.

Knows nothing of folders, tables or drives; decodes no picture that ends as it should.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from zoomloc.errors import PhotoError
from zoomloc.world.exif import ExifFacts, facts_of
from zoomloc.world.images import check_whole, opened
from zoomloc.world.processes import worker_pool

CHUNK = 64
FEW = 4 * CHUNK  # are read before a process has started


def facts_in(path: Path) -> ExifFacts | str:
    """The facts of one picture file, or the reason why it cannot be used."""
    try:
        with opened(path) as image:
            check_whole(image)
            return facts_of(image)
    except PhotoError as error:
        return str(error).removeprefix(f"{path}: ")


@contextmanager
def reading_pool(workers: int, pictures: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes for that many pictures, or None where one does."""
    if workers > 1 and pictures > FEW:
        with worker_pool(workers) as pool:
            yield pool
    else:
        yield None


def each_facts(
    paths: Sequence[Path], pool: ProcessPoolExecutor | None
) -> Iterable[ExifFacts | str]:
    """``facts_in`` of each path, in order."""
    if pool is None:
        return map(facts_in, paths)
    return pool.map(facts_in, paths, chunksize=CHUNK)
