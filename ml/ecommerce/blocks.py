"""Computing over millions of rows a block at a time: memory stays bounded, and more threads give the same bits.

Floating-point sums depend on their order. The borders of the blocks depend on the number of rows alone and results come
back in the order of the rows, so whoever adds them up one after the other gets the same sum from any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

# a block of 32 features and what is computed from it fit the cache of a core
BLOCK_ROWS = 16_384


def map_blocks(compute: Callable[[slice], Result], row_count: int, *, thread_count: int | None = None) -> list[Result]:
    """Call `compute` for each block of rows and return the results in the order of the rows.

    compute: takes a slice of at most `BLOCK_ROWS` rows; may write to rows of its own; calls no BLAS of several threads.
    thread_count: None is one per core.
    """
    blocks = [slice(start, min(start + BLOCK_ROWS, row_count)) for start in range(0, row_count, BLOCK_ROWS)]
    with ThreadPoolExecutor(thread_count or os.cpu_count()) as pool:
        return list(pool.map(compute, blocks))
