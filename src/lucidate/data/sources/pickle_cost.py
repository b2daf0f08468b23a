"""What loading a pickle would cost, found out without loading it.

A pickle of a hundred bytes can hold a tuple of two tuples of two tuples …, each one object that stands twice. It takes
no memory, but whoever hashes it, as a key of a dictionary is hashed, goes through all 2**n of its members; and tuples a
million deep overflow the stack. Neither has a place in a batch of images.
"""

from __future__ import annotations

import pickletools
from typing import Any

FACTOR = 16  # of its length may a pickle cost: an array's bytes pass through three or four steps
SLACK = 4096
DEEPEST = 100  # tuples within tuples
MOST = 1_000_000  # operations; the largest batch that is read, with labels and file names, has half as many
SHOWN = {"GET", "BINGET", "LONG_BINGET"}
KEPT = {"PUT", "BINPUT", "LONG_BINPUT"}
TUPLES = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}


def require_cheap(content: bytes) -> None:
    """Raise ValueError for a pickle that costs more than its length, or that is none; nothing of it is executed."""
    # What stands on the pickle's stack and in its memo: (members, depth); a mark is None.
    stack: list[tuple[int, int] | None] = []
    memo: dict[int, tuple[int, int]] = {}
    cost = 0
    argument: Any
    for number, (operation, argument, _) in enumerate(pickletools.genops(content)):
        name = operation.name
        if number >= MOST:
            raise ValueError(f"it has more than {MOST:,} operations")
        if name in SHOWN:
            stack.append(memo[argument])
        elif name in KEPT or name == "MEMOIZE":
            place = len(memo) if name == "MEMOIZE" else argument
            if place > number:  # loading would make room for all places before it
                raise ValueError(f"place {place} of the memo at operation {number}")
            memo[place] = _top(stack)
        elif name == "DUP":
            stack.append(_top(stack))
        elif name == "MARK":
            stack.append(None)
        else:
            taken = _taken(stack, operation)
            members, depth = 1 + sum(each[0] for each in taken), 1 + max((each[1] for each in taken), default=0)
            cost += members
            if cost > FACTOR * len(content) + SLACK or depth > DEEPEST:
                raise ValueError("it would cost far more to load than its length tells")
            if name not in TUPLES:  # neither lists nor dictionaries nor what is called are gone through as a whole
                members = 1 + (len(argument) if isinstance(argument, bytes | str) else 0)
                depth = 0
            stack += [(members, depth)] * len(operation.stack_after)


def _top(stack: list[tuple[int, int] | None]) -> tuple[int, int]:
    top = stack[-1]
    if top is None:
        raise ValueError("a mark in the place of a value")
    return top


def _taken(stack: list[tuple[int, int] | None], operation: pickletools.OpcodeInfo) -> list[tuple[int, int]]:
    """Take from the stack what an operation takes, and give it without the mark."""
    before = operation.stack_before
    taken: list[tuple[int, int]] = []
    if pickletools.markobject in before:
        while (each := stack.pop()) is not None:
            taken.append(each)
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        each = stack.pop()
        if each is None:
            raise ValueError("a mark in the place of a value")
        taken.append(each)
    return taken
