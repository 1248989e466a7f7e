"""Pickles of other people, read without running anything that they name.

    annotations = load_pickle("imigue_pyskl.pkl")

A pickle is a program: the plain unpickler imports and calls whatever a file asks for. Here `pickletools` splits the
file into opcodes and a small stack machine follows only those that build data. A global of the file is never
imported; its name stands for one of the few constructors in this module, or the file is refused.
"""

import math
import mmap
import pickletools
import re
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from clipmg_hf.data.problems import DatasetFormatError


# Bytes that may be built for each byte of the file: an object array holds 8 for a member of at least one. Without a
# limit, a short file could copy one of its values over and over.
MAX_EXPANSION = 8
DTYPE_NAME = re.compile(r"[|<>=]?(?:\?|b1|[iuf]\d{1,2}|c\d{1,2}|O\d?|[SU]\d{1,9})")
LATIN_1 = ("latin1", "latin-1")
ADMITTED = "only numpy arrays, numbers, strings, bytes, None and built-in containers are read, nothing was executed"


class _Refused(ValueError):
    """What the file asks for and this module does not do."""


class _Name(str):
    """A global of the file, such as "numpy.ndarray": a name that `_CONSTRUCTORS` knows, and never the thing itself."""

    __slots__ = ()


def load_pickle(path: str | PathLike) -> Any:
    """Read a pickle that holds nothing but data; protocols 0 to 5, arrays of numpy 1 and 2.

    Args:
        path (`str` or `PathLike`): The file. It is not trusted.

    Returns:
        Numbers, strings, bytes, None, lists, tuples, dictionaries, sets, and numpy arrays, scalars and dtypes of
        booleans, numbers, strings and objects of these kinds. An `OrderedDict` comes back as a `dict`.

    Raises:
        DatasetFormatError: The file is missing, is no pickle, or names anything else; the message says what.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetFormatError(f"{path}: no such file; expected a pickle.")
    if path.stat().st_size == 0:
        raise DatasetFormatError(f"{path}: the file is empty; expected a pickle.")
    # Unlike a file, a map never allocates more than it holds when it is asked for a length that the pickle made up.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as source:
        machine = _Machine(MAX_EXPANSION * len(source))
        try:
            return machine.run(pickletools.genops(source))  # type: ignore[arg-type]
        except _Refused as error:
            raise DatasetFormatError(f"{path}, byte {machine.position}: {error} is refused: {ADMITTED}.") from None
        # A broken file can fail in any operation of the machine.
        except Exception as error:
            reason = str(error)[:200] or type(error).__name__
            raise DatasetFormatError(f"{path}, byte {machine.position}: no readable pickle ({reason}).") from error


class _Machine:
    """The stack, the marks and the memo of a pickle that is read.

    Args:
        budget (`int`): Bytes that copies and arrays may take.
    """

    def __init__(self, budget: int):
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.budget = budget
        self.position = 0

    def run(self, opcodes: Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> Any:
        """Follow the opcodes up to the last, STOP, and return what is on top of the stack."""
        for opcode, argument, position in opcodes:
            self.position = position or 0
            name = opcode.name
            if name in _ARGUMENT_OPCODES:
                self.push(argument)
            elif name in _OPCODES:
                _OPCODES[name](self, argument)
            else:
                raise _Refused(f"opcode {name}{f' {argument[:100]!r}' if isinstance(argument, str) else ''}")
        return self.stack[-1]

    def spend(self, num_bytes: int) -> None:
        """Take bytes from the budget."""
        self.budget -= num_bytes
        if self.budget < 0:
            raise ValueError(f"it builds more than {MAX_EXPANSION} bytes for each of its own")

    def push(self, value: Any) -> None:
        """Put a value on top of the stack."""
        self.stack.append(value)

    def remember(self, index: int) -> None:
        """Keep the value on top of the stack under an index of the memo."""
        self.memo[index] = self.stack[-1]

    def mark(self) -> None:
        """Start a new stack on top of the present one."""
        self.outer_stacks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        """Everything since the last mark."""
        items, self.stack = self.stack, self.outer_stacks.pop()
        return items

    def replace(self, count: int, make: Callable[[list[Any]], Any]) -> None:
        """Replace the last `count` values by what `make` makes of them."""
        if len(self.stack) < count:
            raise ValueError("the stack is empty")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        self.push(make(items))

    def pop(self) -> None:
        """Drop the last value, or the last mark when nothing is above it."""
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def extend(self, kind: type, items: list[Any]) -> None:
        """Add items to the list, set or dictionary (keys and values in turn) on top of the stack."""
        target: Any = self.stack[-1]
        found: type = type(target)
        if found is not kind:
            raise _Refused(f"adding items to a {found.__name__}")
        if kind is list:
            target.extend(items)
        elif kind is set:
            target.update(_check_keys(items))
        else:
            target.update(zip(_check_keys(items[::2]), items[1::2], strict=True))

    def push_dict(self, items: list[Any]) -> None:
        """Put a dictionary of keys and values in turn on top of the stack."""
        self.push({})
        self.extend(dict, items)

    def push_global(self, module: Any, name: Any) -> None:
        """Push the name of an admitted global."""
        full_name = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "?"
        if full_name not in _CONSTRUCTORS:
            raise _Refused(f"global {full_name[:100]!r}")
        self.push(_Name(full_name))

    def push_stack_global(self) -> None:
        """Push the global whose module and name are on the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        self.push_global(module, name)

    def reduce(self) -> None:
        """Call a constructor with a tuple of arguments."""
        arguments, name = self.stack.pop(), self.stack.pop()
        constructor = _CONSTRUCTORS[name] if type(name) is _Name else None
        if constructor is None or type(arguments) is not tuple:
            raise _Refused(f"a call of {name if type(name) is _Name else type(name).__name__}")
        self.push(constructor(self, *arguments))

    def build(self) -> None:
        """Give an array or dtype its state."""
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is np.ndarray:
            _set_array(self, target, *state)
        elif isinstance(target, np.dtype):
            _set_dtype(target, *state)
        else:
            raise _Refused(f"a state for a {type(target).__name__}")


def _check_keys(keys: list[Any]) -> list[Any]:
    """Keys and members are simple, as the hash of tuples in tuples in tuples can take for ever."""
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(
            part is None or isinstance(part, str | bytes | int | float | complex | np.generic) for part in parts
        ):
            raise _Refused(f"a {type(key).__name__} as a key or as a member of a set")
    return keys


def _make_dtype(_: _Machine, name: Any, align: Any = False, copy: Any = True) -> np.dtype:
    if isinstance(name, bytes):
        name = name.decode("ascii")
    if not isinstance(name, str) or not DTYPE_NAME.fullmatch(name):
        raise _Refused(f"dtype {str(name)[:40]!r}" if isinstance(name, str) else "a dtype that is not named")
    # A copy, whose byte order can be set without touching numpy's own dtypes.
    return np.dtype(name, False, True)


def _set_dtype(dtype: np.dtype, version: Any, order: Any, *rest: Any) -> None:
    order = order.decode("ascii") if isinstance(order, bytes) else order
    if type(version) is not int or order not in ("<", ">", "|", "=") or any(part is not None for part in rest[:3]):
        raise _Refused("a dtype with fields")
    # Size, alignment and flags follow from the name.
    expected: Any = dtype.__reduce__()[2]
    dtype.__setstate__((3, order, None, None, None, *expected[5:8]))  # type: ignore[attr-defined]


def _to_bytes(value: Any) -> bytes | bytearray:
    """Raw data; the strings that Python 2 wrote for them hold one byte in each character."""
    if isinstance(value, str):
        return value.encode("latin1")
    if not isinstance(value, bytes | bytearray):
        raise ValueError(f"expected raw data, got a {type(value).__name__}")
    return value


def _count(shape: Any, dtype: Any) -> int:
    """Number of elements of an array; Python's integers cannot overflow."""
    if not isinstance(dtype, np.dtype):
        raise ValueError(f"expected a dtype, got a {type(dtype).__name__}")
    if type(shape) is not tuple or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("the shape of an array is no tuple of sizes")
    if dtype.itemsize == 0:
        raise ValueError("the elements of an array have no size")
    return math.prod(shape)


def _start_array(_: _Machine, kind: Any, shape: Any, code: Any) -> np.ndarray:
    if type(kind) is not _Name or kind != "numpy.ndarray" or shape != (0,):
        raise _Refused("an array of another class than numpy.ndarray")
    return np.empty(0, "b")


def _set_array(machine: _Machine, array: np.ndarray, version: Any, shape: Any, dtype: Any, fortran: Any, data: Any):
    count = _count(shape, dtype)
    if dtype.hasobject:
        if type(data) is not list or len(data) != count:
            raise ValueError(f"an object array of {count} elements needs a list of as many")
    else:
        data = bytes(_to_bytes(data))
        if len(data) != count * dtype.itemsize:
            raise ValueError(f"an array of {count} elements of {dtype.itemsize} bytes comes with {len(data)} bytes")
    machine.spend(count * dtype.itemsize)
    array.__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]


def _array_from_buffer(
    _: _Machine, data: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None
) -> np.ndarray:
    if not isinstance(data, bytes | bytearray) or len(data) != _count(shape, dtype) * dtype.itemsize:
        raise ValueError("the data of an array do not fit its shape")
    array = np.frombuffer(data, dtype)
    if order == "K" and axis_order is not None:
        return array.reshape(shape).transpose(axis_order)
    return array.reshape(shape, order=order)


def _make_scalar(machine: _Machine, dtype: Any, data: Any) -> Any:
    data = _to_bytes(data)
    if not isinstance(dtype, np.dtype) or dtype.hasobject or len(data) != dtype.itemsize:
        raise ValueError("the data of a scalar do not fit its dtype")
    machine.spend(len(data))
    return np.ndarray((), dtype, bytes(data))[()] if data else dtype.type()


def _encode(machine: _Machine, text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding not in LATIN_1:
        raise _Refused("_codecs.encode of anything but text in latin1")
    machine.spend(len(text))
    return text.encode("latin1")


def _make_bytes(_: _Machine) -> bytes:
    return b""


def _make_bytearray(machine: _Machine, data: Any = b"", encoding: Any = "latin1") -> bytearray:
    if not isinstance(data, str | bytes) or encoding not in LATIN_1:
        raise _Refused("a bytearray of anything but text in latin1 or bytes")
    machine.spend(len(data))
    return bytearray(_to_bytes(data))


def _make_complex(_: _Machine, real: Any, imaginary: Any) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise ValueError("the parts of a complex number are no floats")
    return complex(real, imaginary)


def _make_set(machine: _Machine, items: Any = ()) -> set[Any]:
    if not isinstance(items, list | tuple):
        raise ValueError("the members of a set come in no list")
    machine.spend(8 * len(items))
    return set(_check_keys(list(items)))


def _make_frozenset(machine: _Machine, items: Any = ()) -> frozenset[Any]:
    return frozenset(_make_set(machine, items))


def _make_dict(machine: _Machine, items: Any = ()) -> dict[Any, Any]:
    if not isinstance(items, list | tuple) or not all(isinstance(i, list | tuple) and len(i) == 2 for i in items):
        raise ValueError("the items of a dictionary come in no list of pairs")
    machine.spend(16 * len(items))
    _check_keys([key for key, _ in items])
    return dict(items)


def _numpy_names(module: str, constructor: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The names of a function under numpy 1 and numpy 2."""
    return {f"numpy.core.{module}": constructor, f"numpy._core.{module}": constructor}


# None: a name that can only be an argument.
_CONSTRUCTORS: dict[str, Callable[..., Any] | None] = {
    "numpy.ndarray": None,
    "numpy.dtype": _make_dtype,
    **_numpy_names("multiarray._reconstruct", _start_array),
    **_numpy_names("multiarray.scalar", _make_scalar),
    **_numpy_names("numeric._frombuffer", _array_from_buffer),
    "_codecs.encode": _encode,
    "collections.OrderedDict": _make_dict,
    # Python 2's name of the module, which protocols 0 to 2 use, and Python 3's.
    **{
        f"{module}.{name}": constructor
        for module in ("__builtin__", "builtins")
        for name, constructor in (
            ("bytes", _make_bytes),
            ("bytearray", _make_bytearray),
            ("complex", _make_complex),
            ("set", _make_set),
            ("frozenset", _make_frozenset),
        )
    },
}

# `pickletools` has decoded their argument, which is the value.
_ARGUMENT_OPCODES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
# Not here, so refused: persistent ids, the extension registry, buffers outside of the file, and instances of classes.
_OPCODES: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "MARK": lambda machine, _: machine.mark(),
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "POP": lambda machine, _: machine.pop(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "FROZENSET": lambda machine, _: machine.push(frozenset(_check_keys(machine.pop_mark()))),
    "DICT": lambda machine, _: machine.push_dict(machine.pop_mark()),
    "TUPLE1": lambda machine, _: machine.replace(1, tuple),
    "TUPLE2": lambda machine, _: machine.replace(2, tuple),
    "TUPLE3": lambda machine, _: machine.replace(3, tuple),
    "APPEND": lambda machine, _: machine.extend(list, [machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(list, machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(set, machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.extend(dict, [machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.extend(dict, machine.pop_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda machine, index: machine.remember(index)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, index: machine.push(machine.memo[index])),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "GLOBAL": lambda machine, name: machine.push_global(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.push_stack_global(),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}


__all__ = ["load_pickle"]
