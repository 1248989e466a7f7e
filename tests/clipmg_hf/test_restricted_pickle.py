"""The restricted unpickler agrees with the plain one on data, and runs nothing of a file that holds more than data."""

import collections
import copyreg
import pickle
import pickletools
import struct
import sys

import numpy as np
import pytest

from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.data.restricted_pickle import load_pickle


DATA = {
    "arrays": [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(24, dtype=np.float16).reshape(2, 3, 4).transpose(1, 0, 2),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10, dtype=np.int64)[::2],
        np.arange(3, dtype=">i2"),
        np.array(3.5),
        np.zeros((0, 3), np.uint8),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array(["0001_0", "é"]),
        np.array([b"a\xff", b""]),
        np.array([1, "a", None, [2.5], np.arange(2)], dtype=object),
    ],
    "scalars": [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("x"), np.str_(""), np.bytes_(b"\xff")],
    "dtypes": [np.dtype("float32"), np.dtype(">i4"), np.dtype("U5")],
    "numbers": [0, 1, 255, 65536, -1, 2**70, -(2**40), 1.25, float("inf"), 2j, True, False, None],
    "texts": ["", "é\n\\", "x" * 300, b"", b"\x00\xff\n", bytearray(b"\x80"), bytearray()],
    "sets": [set(), {1, "a"}, frozenset({2}), frozenset()],
    ("a", 1): ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    3: {},
    "nested": {"list": [[[]]], "dictionary": {"a": {"b": []}}},
}


def same(first, second) -> bool:
    if type(first) is not type(second):
        return False
    if isinstance(first, np.ndarray):
        if first.dtype != second.dtype or first.shape != second.shape:
            return False
        return same(first.tolist(), second.tolist()) if first.dtype.hasobject else np.array_equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def load(tmp_path, data: bytes):
    path = tmp_path / "pack.pkl"
    path.write_bytes(data)
    return load_pickle(path)


def refuse(tmp_path, data: bytes, message: str) -> None:
    with pytest.raises(DatasetFormatError, match=rf"pack\.pkl, byte \d+: {message}"):
        load(tmp_path, data)


def as_numpy_1(data: bytes) -> bytes:
    """The pickle as numpy 1 writes it: the same functions under the older name of their module."""
    if data[0] != 0x80 or data[1] < 4:
        return data.replace(b"numpy._core.", b"numpy.core.")
    for name in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        old = name.replace(b"_core", b"core")
        data = data.replace(bytes([len(name)]) + name, bytes([len(old)]) + old)
    return data


@pytest.mark.parametrize("numpy_1", [False, True])
@pytest.mark.parametrize("protocol", range(6))
def test_data_of_every_protocol_come_back(tmp_path, protocol, numpy_1):
    data = pickle.dumps(DATA, protocol)
    expected = pickle.loads(data)
    if numpy_1:
        data = as_numpy_1(data)
        assert b"numpy._core" not in data
        assert b"numpy.core" in data
    assert same(expected, load(tmp_path, data))


@pytest.mark.parametrize("protocol", range(6))
def test_an_ordered_dictionary_becomes_a_dictionary(tmp_path, protocol):
    found = load(tmp_path, pickle.dumps(collections.OrderedDict([("b", 1), ("a", np.arange(2))]), protocol))
    assert type(found) is dict
    assert list(found) == ["b", "a"]


def test_shared_and_recursive_lists_stay_so(tmp_path):
    shared = [np.arange(3)]
    content: list = [shared, shared]
    content.append(content)
    found = load(tmp_path, pickle.dumps(content, 2))
    assert found[0] is found[1]
    assert found[2] is found


def test_strings_of_python_2_hold_bytes(tmp_path):
    # dtype("<i2") and its array, as numpy under Python 2 wrote them with protocol 2.
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\n"
        b"dtype\nU\x02i2K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\xff\x00\x01\x00tb."
    )
    np.testing.assert_array_equal(load(tmp_path, data), np.array([255, 1], np.int16))


def test_numpys_own_dtypes_are_not_changed(tmp_path):
    load(tmp_path, pickle.dumps(np.dtype(">f4"), 2))
    assert np.dtype("f4").byteorder == "="
    assert np.dtype("f4").isnative


class Call:
    """Pickles as a call of a function, with a state and items if given."""

    def __init__(self, function, *arguments, state=None, items=()):
        self.reduced = (function, arguments, state)
        self.items = items

    def __reduce__(self):
        return (*self.reduced, iter(self.items) if self.items else None)


class Marker:
    """Imported, made or given a state by nobody."""

    touched = False

    def __setstate__(self, state):
        type(self).touched = True


class Subarray(np.ndarray):
    def __array_finalize__(self, other):
        Marker.touched = True


def touch(*_):
    Marker.touched = True


@pytest.fixture
def untouched():
    Marker.touched = False
    yield
    assert not Marker.touched


def object_array(item) -> np.ndarray:
    array = np.empty(1, object)
    array[0] = item
    return array


MALICIOUS = {
    "own function": (Call(touch), r"global '[\w.]+\.touch' is refused"),
    "eval": (Call(eval, "1"), r"global '(__builtin__|builtins)\.eval' is refused"),
    "exec": (Call(exec, "1"), r"global '(__builtin__|builtins)\.exec' is refused"),
    "getattr": (Call(getattr, np.ndarray, "tofile"), r"global '(__builtin__|builtins)\.getattr' is refused"),
    "numpy.load": (Call(np.load, "x.npy"), r"global 'numpy\.load' is refused"),
    "numpy.save": (Call(np.save, "x.npy", 1), r"global 'numpy\.save' is refused"),
    "numpy.fromfile": (Call(np.fromfile, "x"), r"global 'numpy(\._core\.multiarray)?\.fromfile' is refused"),
    "function without a call": (["a", touch], r"global '[\w.]+\.touch' is refused"),
    "class": (Marker, r"global '[\w.]+\.Marker' is refused"),
    "instance": (Marker(), r"global '(copy_reg\._reconstructor|[\w.]+\.Marker)' is refused"),
    "array of another class": (np.arange(2).view(Subarray), r"global '[\w.]+\.Subarray' is refused"),
    "in an object array": (object_array(Call(touch)), r"global '[\w.]+\.touch' is refused"),
    "in a dictionary in an object array": (object_array({"a": [Call(touch)]}), r"global '[\w.]+\.touch' is refused"),
    "default of a dictionary": (collections.defaultdict(touch), r"global 'collections\.defaultdict' is refused"),
    "copyreg": (
        Call(vars(copyreg)["_reconstructor"], Marker, object, None),
        r"global 'copy_?reg\._reconstructor' is refused",
    ),
    "range": (range(3), r"global '(__builtin__\.xrange|builtins\.range)' is refused"),
    "matrix": (np.ones((2, 2)).view(np.matrix), r"global 'numpy(\.matrixlib\.defmatrix)?\.matrix' is refused"),
    "record": (np.zeros(1, [("a", "f4")]), r"dtype 'V4' is refused"),
    "date": (np.datetime64("2020-01-01"), r"dtype 'M8' is refused"),
    "rotating text": (
        Call(__import__("_codecs").encode, "a", "rot13"),
        r"_codecs\.encode of anything but text in latin1 is refused",
    ),
    "bytes with a state": (Call(bytes, state={"a": 1}), r"a state for a bytes is refused"),
    "list with a state": (Call(set, [1], state={"a": 1}), r"a state for a set is refused"),
    "array that is a dictionary": (
        Call(np.dtype, "f4", False, True, items=[1]),
        r"adding items to a \w+ is refused",
    ),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", MALICIOUS)
def test_anything_but_data_is_refused(tmp_path, monkeypatch, untouched, name, protocol):
    content, message = MALICIOUS[name]
    data = pickle.dumps({"split": {}, "annotations": [content]}, protocol)
    Marker.touched = False
    monkeypatch.chdir(tmp_path)
    refuse(tmp_path, data, message + r": only numpy arrays, .*, nothing was executed\.")
    assert [path.name for path in tmp_path.iterdir()] == ["pack.pkl"]


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_is_not_run(tmp_path, protocol):
    marker = tmp_path / "marker"
    data = pickle.dumps(Call(__import__("os").system, f"touch {marker}"), protocol)
    refuse(tmp_path, data, r"global '(posix|nt)\.system' is refused")
    assert not marker.exists()
    # The plain unpickler does run it.
    pickle.loads(data)
    assert marker.exists()


class PersistentPickler(pickle.Pickler):
    def persistent_id(self, obj):
        return "secret" if obj is Marker else None


@pytest.mark.parametrize("protocol", range(6))
def test_persistent_ids_are_refused(tmp_path, protocol):
    path = tmp_path / "source.pkl"
    with path.open("wb") as file:
        PersistentPickler(file, protocol).dump([Marker])
    refuse(tmp_path, path.read_bytes(), r"opcode (BINPERSID|PERSID 'secret') is refused")


def test_the_extension_registry_is_refused(tmp_path, untouched):
    code = 240
    copyreg.add_extension(__name__, "touch", code)
    try:
        data = pickle.dumps(Call(touch), 2)
        pickle.loads(data)
        assert Marker.touched
        Marker.touched = False
        refuse(tmp_path, data, "opcode EXT1 is refused")
    finally:
        copyreg.remove_extension(__name__, "touch", code)
        copyreg.clear_extension_cache()


def test_buffers_outside_of_the_file_are_refused(tmp_path):
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(np.arange(1000), 5, buffer_callback=buffers.append)
    assert buffers
    refuse(tmp_path, data, "opcode NEXT_BUFFER is refused")


NDARRAY, RECONSTRUCT, DTYPE = b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\ndtype\n"
FLOAT32, OBJECT = (DTYPE + b"X\x02\x00\x00\x00" + name + b"\x89\x88\x87R" for name in (b"f4", b"O8"))
EMPTY_ARRAY = RECONSTRUCT + NDARRAY + b"K\x00\x85C\x01b\x87R"
HUGE = b"\x8a\x08" + struct.pack("<q", 2**60)
NO_DATA = b"C\x00"


def array(shape: bytes, dtype: bytes, data: bytes) -> bytes:
    return b"\x80\x03" + EMPTY_ARRAY + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb."


CRAFTED = {
    "inst": (b"(S'1'\nios\nsystem\n.", r"opcode INST 'os system' is refused"),
    "obj": (b"(cnumpy\ndtype\nX\x02\x00\x00\x00f4o.", "opcode OBJ is refused"),
    "newobj": (b"\x80\x02" + NDARRAY + HUGE + b"\x85\x81.", "opcode NEWOBJ is refused"),
    "newobj_ex": (b"\x80\x04" + NDARRAY + HUGE + b"\x85}\x92.", "opcode NEWOBJ_EX is refused"),
    "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.", r"global 'numpy\.ndarray\.dump' is refused"),
    "name that is no text": (b"\x80\x04K\x01K\x02\x93.", r"global '\?' is refused"),
    "call of the class": (b"\x80\x02" + NDARRAY + HUGE + b"\x85R.", r"a call of numpy\.ndarray is refused"),
    "call of a text": (b"\x80\x02X\x0d\x00\x00\x00numpy.ndarray)R.", "a call of str is refused"),
    "state of a name": (b"\x80\x02" + NDARRAY + b"}b.", "a state for a _Name is refused"),
    "array of a huge size": (
        b"\x80\x02" + RECONSTRUCT + NDARRAY + HUGE + b"\x85C\x01b\x87R.",
        "an array of another class",
    ),
    "array of a dtype": (b"\x80\x02" + RECONSTRUCT + DTYPE + b"K\x00\x85C\x01b\x87R.", "an array of another class"),
    "huge shape": (array(HUGE + b"\x85", FLOAT32, NO_DATA), r"no readable pickle \(an array of 1152921504606846976 "),
    "overflowing shape": (array(HUGE + HUGE + b"\x86", FLOAT32, NO_DATA), r"no readable pickle \(an array of \d{37} "),
    "huge and empty": (array(HUGE + HUGE + b"K\x00\x87", FLOAT32, NO_DATA), r"no readable pickle"),
    "negative shape": (array(b"J\xff\xff\xff\xff\x85", FLOAT32, NO_DATA), r"no readable pickle \(the shape of"),
    "true shape": (array(b"\x88\x85", FLOAT32, b"C\x04abcd"), r"no readable pickle \(the shape of"),
    "too little data": (array(b"K\x02\x85", FLOAT32, b"C\x04abcd"), r"no readable pickle \(an array of 2 elements"),
    "objects as data": (array(b"K\x01\x85", OBJECT, b"C\x08abcdefgh"), r"no readable pickle \(an object array of 1"),
    "too few objects": (array(HUGE + b"\x85", OBJECT, b"]"), r"no readable pickle \(an object array of \d+ elements"),
    "object scalar": (
        b"\x80\x03cnumpy.core.multiarray\nscalar\n" + OBJECT + b"C\x08abcdefgh\x86R.",
        r"no readable pickle \(the data of a scalar",
    ),
    "elements without size": (
        array(HUGE + b"\x85", DTYPE + b"X\x02\x00\x00\x00U0\x89\x88\x87R", NO_DATA),
        r"no readable pickle \(the elements of an array have no size",
    ),
    "dtype with fields": (DTYPE + b"X\x02\x00\x00\x00f4\x85R(K\x03U\x01<N)}tb.", "a dtype with fields is refused"),
    "dtype from a comma list": (DTYPE + b"X\x05\x00\x00\x00f4,f4\x85R.", "dtype 'f4,f4' is refused"),
    "dtype from a dictionary": (DTYPE + b"}\x85R.", "a dtype that is not named is refused"),
    "huge text": (b"\x80\x04\x8d" + struct.pack("<q", 2**62) + b"abc.", "no readable pickle"),
    "huge bytes": (b"\x80\x04\x8e" + struct.pack("<q", 2**40) + b"abc.", "no readable pickle"),
    "huge frame": (b"\x80\x04\x95" + struct.pack("<q", 2**62) + b"K\x01", "no readable pickle"),
    "endless number": (b"I" + b"9" * 10_000 + b"\n.", "no readable pickle"),
    "no end": (b"\x80\x02]", "no readable pickle"),
    "nothing left": (b"\x80\x02.", "no readable pickle"),
    "empty stack": (b"\x80\x02\x87.", r"no readable pickle \(the stack is empty\)"),
    "unknown memo": (b"\x80\x02h\x05.", "no readable pickle"),
    "no mark": (b"\x80\x02]e.", "no readable pickle"),
    "odd items": (b"\x80\x02}(K\x01u.", "no readable pickle"),
    "unknown opcode": (b"\x80\x02\xff.", "no readable pickle"),
    "text": (b"frame_dir,label\n", "no readable pickle"),
    "list as a key": (b"\x80\x02}]K\x01s.", "a list as a key"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_or_broken_file_is_refused(tmp_path, name):
    refuse(tmp_path, *CRAFTED[name])


def test_nested_tuples_are_not_hashed(tmp_path):
    # Each tuple holds the one before twice: the hash of the last would take 2 ** 100 steps.
    bomb = b"\x80\x02)" + b"2\x86" * 100
    refuse(tmp_path, b"\x80\x02}" + bomb[2:] + b"K\x01s.", "a tuple as a key")
    refuse(tmp_path, b"\x80\x04\x8f(" + bomb[2:] + b"\x90.", "a tuple as a key")


def test_a_deep_nest_neither_crashes_nor_recurses(tmp_path):
    depth = 200_000
    found = load(tmp_path, b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
    assert sys.getrecursionlimit() < depth
    assert len(found) == 1


def test_a_value_is_not_copied_over_and_over(tmp_path):
    text = b"x" * 10_000
    head = b"\x80\x03X" + struct.pack("<i", len(text)) + text + b"q\x00c_codecs\nencode\nq\x010"
    copies = b"h\x01h\x00X\x06\x00\x00\x00latin1\x86R0" * 1000
    refuse(tmp_path, head + copies + b"N.", r"no readable pickle \(it builds more than 8 bytes for each of its own\)")
    data = b"\x80\x03" + FLOAT32 + b"q\x000B" + struct.pack("<i", len(text)) + text + b"q\x010"
    state = b"(K\x01M" + struct.pack("<H", len(text) // 4) + b"\x85h\x00\x89h\x01tb0"
    refuse(tmp_path, data + (EMPTY_ARRAY + state) * 1000 + b"N.", r"no readable pickle \(it builds more than 8 bytes")


def test_random_damage_gives_data_or_a_clean_error(tmp_path):
    generator = np.random.default_rng(0)
    for protocol in (0, 2, 4, 5):
        original = pickle.dumps({"a": [np.arange(4), np.float32(1), {"b": (1, b"c")}, {1}]}, protocol)
        for _ in range(300):
            data = bytearray(original)
            for position in generator.integers(len(data), size=generator.integers(1, 4)):
                data[position] = generator.integers(256)
            try:
                load(tmp_path, bytes(data))
            except DatasetFormatError as error:
                assert "pack.pkl" in str(error)


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(DatasetFormatError, match=r"nowhere\.pkl: no such file"):
        load_pickle(tmp_path / "nowhere.pkl")
    with pytest.raises(DatasetFormatError, match=r"pack\.pkl: the file is empty"):
        load(tmp_path, b"")


def test_every_opcode_is_either_followed_or_refused_on_purpose():
    from clipmg_hf.data.restricted_pickle import _ARGUMENT_OPCODES, _OPCODES

    refused = {opcode.name for opcode in pickletools.opcodes} - _ARGUMENT_OPCODES - set(_OPCODES)
    assert refused == {
        *("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"),
        *("NEXT_BUFFER", "READONLY_BUFFER"),
    }
