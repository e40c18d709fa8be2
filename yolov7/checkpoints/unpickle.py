"""Pickles read as data: a stack machine that knows every opcode of the format and can call nothing.

A pickle is a program, and Python's own reader imports and calls whatever it names. This one imports
nothing: a name stays a `Name`, an object becomes a `Record` of what it was made from. The rule:

* names on the caller's list of builders (tensors), and plain containers, get their meaning;
* a name of the standard library that is not on the short list below is refused wherever it stands;
* any other class becomes a record, which holds its arguments and its state, and never acts;
* any other function that the pickle wants called is refused (a class is told by its capital letter);
* extension codes, out-of-band buffers and persistent ids that the caller does not know are refused.

Everything that is refused or damaged ends in a ValueError that says what and where.
"""

from __future__ import annotations

import pickletools
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAX_PICKLE_BYTES = 16 * 2**20
"""The structure alone, without the tensors' numbers: official files have less than 1 MB. An opcode of one
byte can make an object of a hundred, so this also bounds the memory."""

_PYTHON_2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_INERT_CLASSES = {
    "argparse.Namespace", "datetime.date", "datetime.datetime", "datetime.timedelta", "types.SimpleNamespace",
    "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath", "torch.device", "torch.dtype", "numpy.dtype", "numpy.ndarray",
    "numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar",
}  # fmt: skip
"""What checkpoints hold beside weights (options, paths, dates, a best fitness): kept as records."""
_SCALARS = (str, bytes, int, float, bool, type(None))


@dataclass(frozen=True, eq=False, slots=True)
class Name:
    """A class or function that the pickle names; it was never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True, repr=False)
class Record:
    """An object of a class that is not built: what it was made from, and nothing that could act."""

    made_by: Name
    args: tuple = ()
    state: Any = None
    elements: list = field(default_factory=list)
    """What a subclass of list holds."""
    entries: dict = field(default_factory=dict)
    """What a subclass of dict holds."""

    def __repr__(self) -> str:  # a record may contain itself
        return f"<record of {self.made_by}>"

    @property
    def attributes(self) -> dict:
        """The instance's attributes, of `__dict__` and of slots."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


def _ordered_dict(pairs: Iterable = ()) -> dict:
    return _filled({}, [part for pair in pairs for part in _pair(pair)])


def _pair(pair: Any) -> tuple:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ValueError("a mapping is made from something else than pairs")
    return tuple(pair)


def _filled(mapping: dict, alternating: list) -> dict:
    for key, value in zip(alternating[::2], alternating[1::2], strict=True):
        mapping[_hashable(key)] = value
    return mapping


def _hashable(key: Any) -> Any:
    """Let scalars, and tuples of scalars, be keys: a deeply nested key would overflow Python's own stack."""
    if isinstance(key, _SCALARS) or isinstance(key, tuple) and all(isinstance(part, _SCALARS) for part in key):
        return key
    raise ValueError(f"a {type(key).__name__} cannot be a key here; strings, numbers and tuples of them can")


def _latin_1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in the encoding {encoding[:20]!r}")
    return text.encode("latin-1")


CONTAINERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda factory=None, pairs=(): _ordered_dict(pairs),
    "builtins.list": lambda values=(): list(_sequence(values)),
    "builtins.tuple": lambda values=(): tuple(_sequence(values)),
    "builtins.set": lambda values=(): {_hashable(value) for value in _sequence(values)},
    "builtins.frozenset": lambda values=(): frozenset(_hashable(value) for value in _sequence(values)),
    "builtins.dict": _ordered_dict,
    "builtins.bytearray": lambda data=b"": bytearray(_of_type(bytes, data)),
    "torch.Size": lambda values=(): tuple(_sequence(values)),
    "_codecs.encode": _latin_1,  # how protocol 2 writes bytes
}
"""Name → what makes the plain container that it stands for."""


def _sequence(values: Any) -> Any:
    return _of_type((list, tuple), values)


def _of_type(kinds: type | tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, kinds):
        raise ValueError(f"a {type(value).__name__} where another kind of value belongs")
    return value


_MARK = object()


class PickleReader:
    """Reads one pickle into plain containers, `Name`s, `Record`s and what `builders` make.

    `builders` map full names to functions of the pickled arguments; `resolve_id` turns a persistent
    id into an object. Both raise ValueError for what they do not know.
    """

    def __init__(
        self, builders: Mapping[str, Callable[..., Any]] | None = None, resolve_id: Callable[[Any], Any] | None = None
    ) -> None:
        self.builders = CONTAINERS | dict(builders or {})
        self.resolve_id = resolve_id
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def read(self, file: BinaryIO) -> Any:
        """Return what the pickle at the file's position holds, and leave the position behind it."""
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
        elements = target.elements if isinstance(target, Record) else _of_type(list, target)
        elements.extend(values)

    def _update(self, alternating: list) -> None:
        target = self._top()
        _filled(target.entries if isinstance(target, Record) else _of_type(dict, target), alternating)

    def _add(self, values: list) -> None:
        _of_type(set, self._top()).update(map(_hashable, values))

    # --- names and objects ---

    def _name(self, module: Any, name: Any) -> Name:
        module, name = _of_type(str, module), _of_type(str, name)
        found = Name(_PYTHON_2_MODULES.get(module, module), name)
        known = str(found) in self.builders or str(found) in _INERT_CLASSES or str(found) in _CONSTRUCTORS
        if not known and found.module.partition(".")[0] in sys.stdlib_module_names:
            raise ValueError(f"the file names {_shown(found)}, which is code, not data; nothing was executed")
        return found

    def _make(self, made_by: Any, args: Any, *, is_class: bool) -> Any:
        """Build what we know, record what is a class (`is_class`: by the opcode), refuse to call the rest."""
        if not isinstance(made_by, Name) or not isinstance(args, tuple):
            raise ValueError("damaged pickle: an object is made by no name, or from no tuple")
        if str(made_by) in self.builders:
            return self.builders[str(made_by)](*args)
        if str(made_by) in _CONSTRUCTORS:
            return Record(_of_type(Name, args[0]), args[1:])
        looks_like_class = made_by.name.rpartition(".")[2].lstrip("_")[:1].isupper()
        if is_class or looks_like_class or str(made_by) in _INERT_CLASSES:
            return Record(made_by, args)
        raise ValueError(f"the file wants {_shown(made_by)} called, which no weights need; nothing was executed")

    def _reduce(self, *, is_class: bool) -> None:
        args = self._pop()
        self.stack.append(self._make(self._pop(), args, is_class=is_class))

    def _new_with_keywords(self) -> None:
        keywords, args = _of_type(dict, self._pop()), _of_type(tuple, self._pop())
        self.stack.append(self._make(self._pop(), (*args, keywords) if keywords else args, is_class=True))

    def _instance(self, made_by: Name, args: list) -> None:
        self.stack.append(self._make(made_by, tuple(args), is_class=False))

    def _object(self) -> None:
        made_by, *args = self._pop_to_mark()
        self._instance(made_by, args)

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):  # an OrderedDict's attributes: nothing that weights need
            raise ValueError(f"a {type(target).__name__} is given a state")

    def _persistent(self, persistent_id: Any) -> None:
        if self.resolve_id is None:
            raise ValueError("a persistent id, which points outside the file")
        self.stack.append(self.resolve_id(persistent_id))


def _shown(name: Name) -> str:
    return repr(str(name)[:200])


_CONSTRUCTORS = {"copyreg._reconstructor", "copyreg.__newobj__"}
"""How old protocols spell "an object of this class"."""
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
    "DICT": lambda self, _: self.stack.append(_filled({}, self._pop_to_mark())),
    "FROZENSET": lambda self, _: self.stack.append(frozenset(map(_hashable, self._pop_to_mark()))),
    "APPEND": lambda self, _: self._extend([self._pop()]),
    "APPENDS": lambda self, _: self._extend(self._pop_to_mark()),
    "SETITEM": lambda self, _: self._update([self._pop(), self._pop()][::-1]),
    "SETITEMS": lambda self, _: self._update(self._pop_to_mark()),
    "ADDITEMS": lambda self, _: self._add(self._pop_to_mark()),
    "GLOBAL": lambda self, both: self.stack.append(self._name(*both.split(" ", 1))),
    "STACK_GLOBAL": lambda self, _: self.stack.append(self._name(*[self._pop(), self._pop()][::-1])),
    "REDUCE": lambda self, _: self._reduce(is_class=False),
    "NEWOBJ": lambda self, _: self._reduce(is_class=True),
    "NEWOBJ_EX": lambda self, _: self._new_with_keywords(),
    "INST": lambda self, both: self._instance(self._name(*both.split(" ", 1)), self._pop_to_mark()),
    "OBJ": lambda self, _: self._object(),
    "BUILD": lambda self, _: self._build(),
    "PERSID": lambda self, persistent_id: self._persistent(persistent_id),
    "BINPERSID": lambda self, _: self._persistent(self._pop()),
}
_ACTIONS |= dict.fromkeys(
    ("PUT", "BINPUT", "LONG_BINPUT"), lambda self, place: self.memo.__setitem__(place, self._top())
)
_ACTIONS |= dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda self, place: self.stack.append(self.memo[place]))
