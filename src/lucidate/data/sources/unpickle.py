"""CIFAR's python batches without the dangers of pickle.

A pickle names the functions that rebuild what it holds, any function: reading a stranger's is running the stranger's
program. Here each name that a CIFAR batch has a use for leads to an inert stand-in that only remembers what it was
given; every other name is refused before anything is called. The arrays are then rebuilt from the stand-ins, with their
shapes and types checked.

What loading would cost is found out before. A pickle of a hundred bytes can hold a tuple of two tuples of two tuples …,
each one object that stands twice: whoever hashes it, as a key of a dictionary is, goes through all 2**n of its members;
and tuples a million deep overflow the stack. Neither is a batch of images.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucidate.core.errors import SourceError, UnsafeFileError
from lucidate.core.text import brief
from lucidate.data.sources.source import check_class_names

ROW = 3072  # bytes of one image: 32×32 red, then green, then blue
# A pickle may cost 16 times its length, as an array's bytes pass through three or four steps, and 4096 for its names.
COST_FACTOR, COST_SLACK = 16, 4096
DEEPEST_TUPLE = 100  # tuples within tuples
MOST_OPERATIONS = 1_000_000  # operations; the largest batch that is read, with labels and file names, has half as many
CORES = ("numpy.core", "numpy._core")  # before and since NumPy 2
FROM_MEMO = {"GET", "BINGET", "LONG_BINGET"}
TO_MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}
TUPLES = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}


def load_batch(content: bytes, *, name: str, num_classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 3072) and labels (n,) of one batch, written by Python 2 or 3.

    Raises UnsafeFileError for a pickle that asks for anything but arrays, SourceError for a damaged or other one.
    """
    batch = _dictionary(content, name=name)
    images, labels = _array(batch.get("data")), _label_array(batch.get("labels"))
    if images is None or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != ROW or not len(images):
        what = "none" if images is None else f"{images.dtype} {images.shape}"
        raise SourceError(f"{name}: expected b'data' as a uint8 array of shape (n, {ROW}), received {what}")
    if labels is None or len(labels) != len(images):
        count = "none that are whole numbers" if labels is None else str(len(labels))
        raise SourceError(f"{name}: expected b'labels' for {len(images)} images, received {count}")
    check_labels(labels, name=name, num_classes=num_classes)
    return images, labels


def load_class_names(content: bytes, *, name: str) -> tuple[str, ...]:
    """b'label_names' of a batches.meta. Raises SourceError or UnsafeFileError."""
    names = _dictionary(content, name=name).get("label_names")
    if not isinstance(names, list | tuple) or len(names) < 2 or not all(isinstance(n, bytes | str) for n in names):
        raise SourceError(f"{name}: expected b'label_names' as a list of at least two names, received {brief(names)}")
    return check_class_names([_text(each) for each in names], where=name)


def check_labels(labels: NDArray[np.int64], *, name: str, num_classes: int) -> None:
    """Raises SourceError for a label that no class has."""
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if outside.size:
        row = int(outside[0])
        raise SourceError(f"{name}: expected labels from 0 to {num_classes - 1}, received {labels[row]} in row {row}")


class _Dtype:
    """Stands for numpy.dtype: remembers the type's name and byte order."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])

    def real(self) -> np.dtype[Any]:
        code = _text(self.code).lstrip("<>=|")
        if code not in ("u1", "i1", "i2", "i4", "i8", "u2", "u4", "u8"):
            raise ValueError(f"an array of type {brief(code)}")  # above all "O": objects
        return np.dtype(self.order + code)


class _Array:
    """Stands for numpy.ndarray and for _reconstruct, which numpy's own pickles call to make one."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def real(self) -> NDArray[Any]:
        _, shape, dtype, columns_first, raw = self.state
        return np.frombuffer(raw, dtype.real()).reshape(shape, order="F" if columns_first else "C")


class _Frombuffer(_Array):
    """Stands for numpy's _frombuffer, which protocol 5 calls."""

    def __init__(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        self.state = (1, shape, dtype, _text(order) == "F", raw)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("an array with a second state")


class _Encode:
    """Stands for _codecs.encode, by which Python 3 writes bytes in Python 2's protocols."""

    def __new__(cls, text: str, encoding: Any) -> Any:
        if _text(encoding) not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"text in {brief(encoding)}")
        return text.encode("latin-1")

    def __setstate__(self, state: Any) -> None:  # without it, a pickle could set attributes of this class
        raise pickle.UnpicklingError("bytes with a state")


_ALLOWED: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode,
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in CORES},
    **{(f"{core}.numeric", "_frombuffer"): _Frombuffer for core in CORES},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _ALLOWED:
            raise UnsafeFileError(
                f"expected a pickle that holds arrays only, received one that asks for {module[:60]}.{name[:60]}; "
                "nothing of it was executed, and it should not be opened by other means"
            )
        return _ALLOWED[module, name]


def _dictionary(content: bytes, *, name: str) -> dict[str, Any]:
    try:
        require_cheap(content)
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except UnsafeFileError as error:
        raise UnsafeFileError(f"{name}: {error}") from None
    except Exception as error:  # a damaged pickle can fail in nearly any way
        raise SourceError(
            f"{name}: expected a CIFAR batch, received a truncated or damaged one ({error!s:.120})"
        ) from None
    if not isinstance(loaded, dict):
        raise SourceError(f"{name}: expected a CIFAR batch (a dictionary), received a {type(loaded).__name__}")
    return {_text(key): value for key, value in loaded.items() if isinstance(key, bytes | str)}


def _array(value: Any) -> NDArray[Any] | None:
    """The array that a stand-in describes, or None where it describes none."""
    try:
        return value.real() if isinstance(value, _Array) else None
    except (TypeError, ValueError, AttributeError, OverflowError, IndexError):
        return None


def _label_array(value: Any) -> NDArray[np.int64] | None:
    if isinstance(value, list | tuple):
        whole = all(type(each) is int and abs(each) < 2**31 for each in value)
        return np.array(value, dtype=np.int64) if whole else None
    array = _array(value)
    return array.astype(np.int64) if array is not None and array.ndim == 1 and array.dtype.kind in "iu" else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def require_cheap(content: bytes) -> None:
    """Raise ValueError for a pickle that costs more than its length, or that is none; nothing of it is executed."""
    # What stands on the pickle's stack and in its memo: (members, depth); a mark is None.
    stack: list[tuple[int, int] | None] = []
    memo: dict[int, tuple[int, int]] = {}
    cost = 0
    argument: Any
    for number, (operation, argument, _) in enumerate(pickletools.genops(content)):
        name = operation.name
        if number >= MOST_OPERATIONS:
            raise ValueError(f"it has more than {MOST_OPERATIONS:,} operations")
        if name in FROM_MEMO:
            stack.append(memo[argument])
        elif name in TO_MEMO or name == "MEMOIZE":
            entry = len(memo) if name == "MEMOIZE" else argument
            if entry > number:  # loading would allocate all entries before it
                raise ValueError(f"entry {entry} of the memo at operation {number}")
            memo[entry] = _value(stack[-1])
        elif name == "DUP":
            stack.append(_value(stack[-1]))
        elif name == "MARK":
            stack.append(None)
        else:
            taken = _taken(stack, operation)
            members, depth = 1 + sum(each[0] for each in taken), 1 + max((each[1] for each in taken), default=0)
            cost += members
            if cost > COST_FACTOR * len(content) + COST_SLACK or depth > DEEPEST_TUPLE:
                raise ValueError("it would cost far more to load than its length tells")
            if name not in TUPLES:  # neither lists nor dictionaries nor what is called are gone through as a whole
                members = 1 + (len(argument) if isinstance(argument, bytes | str) else 0)
                depth = 0
            stack += [(members, depth)] * len(operation.stack_after)


def _value(entry: tuple[int, int] | None) -> tuple[int, int]:
    if entry is None:
        raise ValueError("a mark in the entry of a value")
    return entry


def _taken(stack: list[tuple[int, int] | None], operation: pickletools.OpcodeInfo) -> list[tuple[int, int]]:
    """Take from the stack what an operation takes, and give it without the mark."""
    before = operation.stack_before
    taken: list[tuple[int, int]] = []
    if pickletools.markobject in before:
        while (each := stack.pop()) is not None:
            taken.append(each)
        before = before[: before.index(pickletools.markobject)]
    return taken + [_value(stack.pop()) for _ in before]
