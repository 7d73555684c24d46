"""One decorator: compile a numeric kernel with numba and keep the machine code on disk.

Knows nothing of what is compiled.
"""

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """The function as machine code without the GIL, cached where a folder can be written to."""
    try:
        return cast(F, njit(cache=True, nogil=True, error_model="numpy")(function))
    except (
        RuntimeError
    ):  # numba: "no locator available": neither the sources nor a home is writable
        return cast(F, njit(nogil=True)(function))
