"""
A loop on the threads of XLA, of which none asks for the interpreter.

A task may be started late, when others wait for the same threads, or when all is done: it is not waited
for, and finds that the call is closed. What it looks at then is memory of its own [1]_.

References
----------
.. [1] OpenXLA, "XLA FFI C API", `XLA_FFI_ThreadPool_Schedule`, xla/ffi/api/c_api.h.
"""

from __future__ import annotations

from softmaxes._backends._numba._calls import as_c, call, freed, fresh, words_at
from softmaxes._backends._numba._numbers import compiled, inlined
from softmaxes._backends._numba._vectors import add_to

__all__ = ["in_pool"]

# The words of a block: who refers to it, tasks begun and ended, what they call, the address of the block,
# and what XLA is asked.
USERS, BEGUN, ENDED, SHARE, ARGUMENTS, BLOCK, REQUEST = range(7)
WORDS, BYTES = 5, 8  # of a request, and of a word
CLOSED = 1 << 32


@inlined()
def in_pool(schedule: int, context: int, workers: int, share: int, arguments: int) -> None:
    """Call a function of C on so many threads, of which this is one, and return when all have that began."""
    block = fresh((REQUEST + WORDS) * BYTES)
    words = words_at(block, REQUEST + WORDS)
    task, _, _ = as_c(_task, (block,))
    request = WORDS * BYTES, 0, context, task, block + BLOCK * BYTES
    for i, word in enumerate((1, 0, 0, share, arguments, block, *request)):
        words[i] = word
    for _ in range(1, workers):
        add_to(words, USERS, 1)
        if call(schedule, (block + REQUEST * BYTES,)) != 0:
            add_to(words, USERS, -1)
    call(share, (arguments,))
    begun = add_to(words, BEGUN, CLOSED)
    while add_to(words, ENDED, 0) < begun:
        pass
    _leave(block)


@compiled()
def _task(block: int) -> None:
    words = words_at(block, REQUEST)
    if add_to(words, BEGUN, 1) < CLOSED:
        call(words[SHARE], (words[ARGUMENTS],))
        add_to(words, ENDED, 1)
    _leave(block)


@inlined()
def _leave(block: int) -> None:
    if add_to(words_at(block, REQUEST), USERS, -1) == 1:
        freed(block)
