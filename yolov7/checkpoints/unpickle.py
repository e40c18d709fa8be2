"""Pickles read as data: a stack machine that implements the format's opcodes and executes no code of the file.

A pickle is a program, and Python's own reader imports and calls whatever it names. This one imports
nothing: a name stays a `Name`, an object becomes a `Record` of its constructor and arguments. Rules:

* names on the caller's list of builders (tensors), and plain containers, are built;
* a name of the standard library that is not on the short list below is refused wherever it occurs;
* any other class becomes a record, which holds its arguments and its state, and is inert;
* a bound method of a record, which is pickled as a call of `getattr`, becomes a record, too: nothing is looked up;
* a call of any other function is refused (a class is recognised by its capital letter);
* extension codes, out-of-band buffers and persistent ids that the caller does not know are refused.

Anything refused or damaged raises a ValueError that says what and where.
"""

from __future__ import annotations

import pickletools
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAX_PICKLE_BYTES = 16 * 2**20
"""The structure alone, without tensor data: official files have less than 1 MB. A one-byte opcode can
create an object of a hundred bytes, so this also bounds the memory."""

_PYTHON_2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_INERT_CLASSES = {
    "argparse.Namespace", "datetime.date", "datetime.datetime", "datetime.timedelta", "types.SimpleNamespace",
    "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath", "torch.device", "torch.dtype", "numpy.dtype", "numpy.ndarray",
    "numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar",
}  # fmt: skip
"""Objects that checkpoints hold besides weights (options, paths, dates, a best fitness): kept as records."""
_SCALARS = (str, bytes, int, float, bool, type(None))


@dataclass(frozen=True, eq=False, slots=True)
class Name:
    """A class or function named by the pickle; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True, repr=False)
class Record:
    """An object of a class that is not built: its constructor, arguments and state, without behaviour."""

    made_by: Name
    args: tuple = ()
    state: Any = None
    elements: list = field(default_factory=list)
    """The items of a subclass of list."""
    entries: dict = field(default_factory=dict)
    """The items of a subclass of dict."""

    def __repr__(self) -> str:  # a record may contain itself
        return f"<record of {self.made_by}>"

    @property
    def attributes(self) -> dict:
        """The instance's attributes, of `__dict__` and of slots."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


def _ordered_dict(pairs: Iterable = ()) -> dict:
    return _set_items({}, [part for pair in pairs for part in _checked_pair(pair)])


def _checked_pair(pair: Any) -> tuple:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ValueError("a mapping is made from something else than pairs")
    return tuple(pair)


def _set_items(mapping: dict, alternating: list) -> dict:
    for key, value in zip(alternating[::2], alternating[1::2], strict=True):
        mapping[_checked_key(key)] = value
    return mapping


def _checked_key(key: Any) -> Any:
    """Allow scalars and tuples of scalars as keys: a deeply nested key would overflow Python's own stack."""
    if isinstance(key, _SCALARS) or isinstance(key, tuple) and all(isinstance(part, _SCALARS) for part in key):
        return key
    raise ValueError(f"a {type(key).__name__} cannot be a key here; strings, numbers and tuples of them can")


def _encode_latin_1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in the encoding {encoding[:20]!r}")
    return text.encode("latin-1")


def _bound_method(owner: Any = None, name: Any = None, *more: Any) -> Record:
    """A method of a record of a foreign class, as a record that cannot be called."""
    known = not isinstance(owner, Record) or owner.made_by.module.partition(".")[0] in sys.stdlib_module_names
    if known or not isinstance(name, str) or not name.isidentifier() or more:
        raise ValueError(f"the file wants an attribute of a {type(owner).__name__} looked up; nothing was executed")
    return Record(Name("builtins", "getattr"), (owner, name))


CONTAINERS: dict[str, Callable[..., Any]] = {
    "builtins.getattr": _bound_method,  # fused modules hold one as their `forward`
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda factory=None, pairs=(): _ordered_dict(pairs),
    "builtins.list": lambda values=(): list(_expect_sequence(values)),
    "builtins.tuple": lambda values=(): tuple(_expect_sequence(values)),
    "builtins.set": lambda values=(): {_checked_key(value) for value in _expect_sequence(values)},
    "builtins.frozenset": lambda values=(): frozenset(_checked_key(value) for value in _expect_sequence(values)),
    "builtins.dict": _ordered_dict,
    "builtins.bytearray": lambda data=b"": bytearray(_expect_type(bytes, data)),
    "torch.Size": lambda values=(): tuple(_expect_sequence(values)),
    "_codecs.encode": _encode_latin_1,  # how protocol 2 writes bytes
}
"""Name → function that builds the plain container it denotes."""


def _expect_sequence(values: Any) -> Any:
    return _expect_type((list, tuple), values)


def _expect_type(kinds: type | tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, kinds):
        raise ValueError(f"a {type(value).__name__} where another kind of value belongs")
    return value


_MARK = object()


class PickleReader:
    """Reads one pickle into plain containers, `Name`s, `Record`s and results of `builders`.

    `builders` map full names to functions of the pickled arguments; `resolve_id` turns a persistent
    id into an object. Both raise ValueError for unknown input.
    """

    def __init__(
        self, builders: Mapping[str, Callable[..., Any]] | None = None, resolve_id: Callable[[Any], Any] | None = None
    ) -> None:
        self.builders = CONTAINERS | dict(builders or {})
        self.resolve_id = resolve_id
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def read(self, file: BinaryIO) -> Any:
        """Return the content of the pickle at the file's position, and advance the position past it."""
        self.stack, self.memo = [], {}
        start = position = file.tell()
        name = "start"
        try:
            for opcode, argument, position in pickletools.genops(file):
                name = opcode.name
                if position - start > MAX_PICKLE_BYTES:
                    raise ValueError(f"the structure is larger than {MAX_PICKLE_BYTES} bytes")
                if name == "STOP":
                    return self._pop()
                if name in _CONSTANTS:
                    self.stack.append(argument)
                elif name in _ACTIONS:
                    _ACTIONS[name](self, argument)
                elif name not in ("PROTO", "FRAME"):
                    raise ValueError(f"{name} reaches outside the file")
        except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"damaged pickle: {name} at byte {position} does not fit what is before it") from error
        except ValueError as error:
            raise ValueError(f"{error} ({name} at byte {position} of the pickle)") from error
        raise ValueError("damaged pickle: it has no end")

    # --- the stack ---

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("damaged pickle: a value is missing")
        return value

    def _top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("damaged pickle: a value is missing")
        return self.stack[-1]

    def _pop_to_mark(self) -> list:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _discard(self) -> None:
        self.stack.pop()

    def _push_tuple(self, length: int) -> None:
        values = [self._pop() for _ in range(length)]
        self.stack.append(tuple(values[::-1]))

    # --- containers ---

    def _extend(self, values: list) -> None:
        target = self._top()
        elements = target.elements if isinstance(target, Record) else _expect_type(list, target)
        elements.extend(values)

    def _update(self, alternating: list) -> None:
        target = self._top()
        _set_items(target.entries if isinstance(target, Record) else _expect_type(dict, target), alternating)

    def _add(self, values: list) -> None:
        _expect_type(set, self._top()).update(map(_checked_key, values))

    # --- names and objects ---

    def _name(self, module: Any, name: Any) -> Name:
        module, name = _expect_type(str, module), _expect_type(str, name)
        found = Name(_PYTHON_2_MODULES.get(module, module), name)
        known = str(found) in self.builders or str(found) in _INERT_CLASSES or str(found) in _CONSTRUCTORS
        if not known and found.module.partition(".")[0] in sys.stdlib_module_names:
            raise ValueError(f"the file names {_quoted(found)}, which is code, not data; nothing was executed")
        return found

    def _construct(self, made_by: Any, args: Any, *, is_class: bool) -> Any:
        """Build known names, record classes (`is_class`: by the opcode), refuse to call anything else."""
        if not isinstance(made_by, Name) or not isinstance(args, tuple):
            raise ValueError("damaged pickle: an object is made by no name, or from no tuple")
        if str(made_by) in self.builders:
            return self.builders[str(made_by)](*args)
        if str(made_by) in _CONSTRUCTORS:
            return Record(_expect_type(Name, args[0]), args[1:])
        looks_like_class = made_by.name.rpartition(".")[2].lstrip("_")[:1].isupper()
        if is_class or looks_like_class or str(made_by) in _INERT_CLASSES:
            return Record(made_by, args)
        raise ValueError(f"the file wants {_quoted(made_by)} called, which no weights need; nothing was executed")

    def _reduce(self, *, is_class: bool) -> None:
        args = self._pop()
        self.stack.append(self._construct(self._pop(), args, is_class=is_class))

    def _new_with_keywords(self) -> None:
        keywords, args = _expect_type(dict, self._pop()), _expect_type(tuple, self._pop())
        self.stack.append(self._construct(self._pop(), (*args, keywords) if keywords else args, is_class=True))

    def _instance(self, made_by: Name, args: list) -> None:
        self.stack.append(self._construct(made_by, tuple(args), is_class=False))

    def _object(self) -> None:
        made_by, *args = self._pop_to_mark()
        self._instance(made_by, args)

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):  # an OrderedDict's attributes are dropped: weights do not need them
            raise ValueError(f"a {type(target).__name__} is given a state")

    def _persistent(self, persistent_id: Any) -> None:
        if self.resolve_id is None:
            raise ValueError("a persistent id, which points outside the file")
        self.stack.append(self.resolve_id(persistent_id))


def _quoted(name: Name) -> str:
    return repr(str(name)[:200])


_CONSTRUCTORS = {"copyreg._reconstructor", "copyreg.__newobj__"}
"""How old protocols denote "an object of this class"."""
_CONSTANTS = {
    "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
Action = Callable[[PickleReader, Any], Any]
_ACTIONS: dict[str, Action] = {
    "NONE": lambda self, _: self.stack.append(None),
    "NEWTRUE": lambda self, _: self.stack.append(True),
    "NEWFALSE": lambda self, _: self.stack.append(False),
    "EMPTY_LIST": lambda self, _: self.stack.append([]),
    "EMPTY_TUPLE": lambda self, _: self.stack.append(()),
    "EMPTY_DICT": lambda self, _: self.stack.append({}),
    "EMPTY_SET": lambda self, _: self.stack.append(set()),
    "MARK": lambda self, _: self.stack.append(_MARK),
    "POP": lambda self, _: self._discard(),
    "POP_MARK": lambda self, _: self._pop_to_mark(),
    "DUP": lambda self, _: self.stack.append(self._top()),
    "MEMOIZE": lambda self, _: self.memo.setdefault(len(self.memo), self._top()),
    "TUPLE": lambda self, _: self.stack.append(tuple(self._pop_to_mark())),
    "TUPLE1": lambda self, _: self._push_tuple(1),
    "TUPLE2": lambda self, _: self._push_tuple(2),
    "TUPLE3": lambda self, _: self._push_tuple(3),
    "LIST": lambda self, _: self.stack.append(self._pop_to_mark()),
    "DICT": lambda self, _: self.stack.append(_set_items({}, self._pop_to_mark())),
    "FROZENSET": lambda self, _: self.stack.append(frozenset(map(_checked_key, self._pop_to_mark()))),
    "APPEND": lambda self, _: self._extend([self._pop()]),
    "APPENDS": lambda self, _: self._extend(self._pop_to_mark()),
    "SETITEM": lambda self, _: self._update([self._pop(), self._pop()][::-1]),
    "SETITEMS": lambda self, _: self._update(self._pop_to_mark()),
    "ADDITEMS": lambda self, _: self._add(self._pop_to_mark()),
    "GLOBAL": lambda self, names: self.stack.append(self._name(*names.split(" ", 1))),
    "STACK_GLOBAL": lambda self, _: self.stack.append(self._name(*[self._pop(), self._pop()][::-1])),
    "REDUCE": lambda self, _: self._reduce(is_class=False),
    "NEWOBJ": lambda self, _: self._reduce(is_class=True),
    "NEWOBJ_EX": lambda self, _: self._new_with_keywords(),
    "INST": lambda self, names: self._instance(self._name(*names.split(" ", 1)), self._pop_to_mark()),
    "OBJ": lambda self, _: self._object(),
    "BUILD": lambda self, _: self._build(),
    "PERSID": lambda self, persistent_id: self._persistent(persistent_id),
    "BINPERSID": lambda self, _: self._persistent(self._pop()),
}
_ACTIONS |= dict.fromkeys(
    ("PUT", "BINPUT", "LONG_BINPUT"), lambda self, index: self.memo.__setitem__(index, self._top())
)
_ACTIONS |= dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda self, index: self.stack.append(self.memo[index]))
