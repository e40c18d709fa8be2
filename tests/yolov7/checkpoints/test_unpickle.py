"""A pickle is read as data: nothing in this corpus runs, whatever opcode asks for it."""

import contextlib
import copyreg
import functools
import io
import operator
import os
import pathlib
import pickle
import random
import struct
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from torch import nn

from yolov7.checkpoints import unpickle
from yolov7.checkpoints.torchfile import LEGACY_MAGIC, read_torch_file
from yolov7.checkpoints.unpickle import Name, PickleReader, Record

EXTENSION = 0xF1


def as_zip(path, pickled, storages=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def as_legacy(path, pickled):
    header = [pickle.dumps(value, 2) for value in (LEGACY_MAGIC, 1001, {"little_endian": True})]
    path.write_bytes(b"".join(header) + pickled + pickle.dumps([], 2))
    return path


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


# --- what would run ---


class Call:
    """Pickles to "call this with these arguments"."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced

    def __call__(self):
        raise AssertionError("only pickled")


def attacks(path):
    """Name → a pickle that makes the folder `path` when Python's own reader reads it."""
    code = f"__import__('os').mkdir({path!r})"
    argument = b"(" + text(path)
    made = {
        "os.mkdir": Call(os.mkdir, path),
        "os.system": Call(os.system, f"mkdir {path}"),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "a method by getattr": Call(Call(getattr, pathlib.Path(path), "mkdir")),
        "a method by its caller": Call(operator.methodcaller("mkdir"), pathlib.Path(path)),
        "map": Call(list, Call(map, os.mkdir, [path])),
        "a process": Call(subprocess.check_call, ["mkdir", path]),
        "functools.partial": Call(functools.partial(os.mkdir, path)),
        "in a container": {"model": [OrderedDict(a=Call(os.mkdir, path))]},
        "as an argument of a known class": OrderedDict([("a", Call(os.mkdir, path))]),
        "as the state of a known class": Call(torch.Size, Call(list, [Call(os.mkdir, path)])),
    }
    written = {
        "GLOBAL": b"cos\nmkdir\n" + argument + b"tR.",
        "STACK_GLOBAL": b"\x80\x04" + text("os") + text("mkdir") + b"\x93" + argument + b"tR.",
        "STACK_GLOBAL of a path": b"\x80\x04" + text("pathlib") + text("os.mkdir") + b"\x93" + argument + b"tR.",
        "Python 2's name": b"\x80\x02c__builtin__\neval\n(" + text(code) + b"tR.",
        "INST": argument + b"ios\nmkdir\n.",
        "OBJ": b"(cos\nmkdir\n" + text(path) + b"o.",
        "memo and lines": b"cos\nmkdir\np0\n0g0\n(V" + path.encode() + b"\ntR.",
        "left on the stack": b"\x80\x02cos\nmkdir\n" + argument + b"tR0N.",
        "EXT1": b"\x80\x02\x82\xf1" + argument + b"tR.",
        "EXT2": b"\x80\x02\x83\xf1\x00" + argument + b"tR.",
        "EXT4": b"\x80\x02\x84\xf1\x00\x00\x00" + argument + b"tR.",
        "a function of the file's own package": b"\x80\x02cmodels.common\nload\n" + argument + b"tR.",
        "a function in a class": b"\x80\x04" + text("models.common") + text("Evil.load") + b"\x93" + argument + b"tR.",
        "a key that hashes": b"\x80\x02}cmodels.common\nKey\n)\x81Ns.",
    }
    return {name: pickle.dumps(value, 2) for name, value in made.items()} | written


def inert(path):
    """Name → a pickle that makes the folder with Python's reader, and a record with ours."""
    argument = b"(" + text(path)
    new = b"\x80\x02cmodels.common\nEvil\n)\x81"
    return {
        "REDUCE": b"\x80\x02cmodels.common\nMade\n" + argument + b"tR.",
        "INST": argument + b"imodels.common\nMade\n.",
        "OBJ": b"(cmodels.common\nMade\n" + text(path) + b"o.",
        "NEWOBJ": b"\x80\x02cmodels.common\nNew\n" + argument + b"t\x81.",
        "NEWOBJ_EX": b"\x80\x04cmodels.common\nNew\n)}" + text("path") + text(path) + b"s\x92.",
        "copyreg": b"\x80\x02ccopyreg\n__newobj__\n(cmodels.common\nNew\n" + text(path) + b"tR.",
        "BUILD by __setstate__": new + text(path) + b"b.",
        "BUILD by __setattr__": new.replace(b"Evil", b"Sets") + b"N}" + text("path") + text(path) + b"s\x86b.",
        "APPEND": new + text(path) + b"a.",
        "APPENDS": new + argument + b"e.",
        "SETITEM": new + text("path") + text(path) + b"s.",
        "SETITEMS": new + b"(" + text("path") + text(path) + b"u.",
    }


@pytest.fixture
def evil_package(tmp_path):
    """A package whose classes make a folder however they are touched; gives the folder."""
    folder = str(tmp_path / "executed")

    def make(self, *args, **keywords):
        os.mkdir(folder)

    def new(cls, *args, **keywords):
        os.mkdir(folder)
        return object.__new__(cls)

    touched = dict.fromkeys(("__setstate__", "append", "extend", "__setitem__"), make)
    module = types.ModuleType("models.common")
    module.Evil = type("Evil", (), touched | {"load": staticmethod(os.mkdir)})
    module.Sets = type("Sets", (), {"__setattr__": make})
    module.Made = type("Made", (), {"__init__": make})
    module.New = type("New", (), {"__new__": new})
    module.Key = type("Key", (), {"__hash__": make})
    module.load = os.mkdir
    sys.modules |= {"models": types.ModuleType("models"), "models.common": module}
    copyreg.add_extension("os", "mkdir", EXTENSION)
    yield folder
    copyreg.remove_extension("os", "mkdir", EXTENSION)
    del sys.modules["models"], sys.modules["models.common"]


def assert_python_would_run(pickled, folder):
    with contextlib.suppress(Exception):
        pickle.loads(pickled)
    assert os.path.isdir(folder), "the attack does nothing: the corpus proves nothing"
    os.rmdir(folder)


@pytest.mark.parametrize("wrap", [as_zip, as_legacy])
@pytest.mark.parametrize("name", attacks(""))
def test_an_attack_is_refused(tmp_path, evil_package, name, wrap):
    pickled = attacks(evil_package)[name]
    assert_python_would_run(pickled, evil_package)
    with pytest.raises(ValueError, match=r"evil.pt: "):
        read_torch_file(wrap(tmp_path / "evil.pt", pickled))
    assert not os.path.exists(evil_package)


@pytest.mark.parametrize("name", inert(""))
def test_an_object_becomes_a_record(tmp_path, evil_package, name):
    pickled = inert(evil_package)[name]
    assert_python_would_run(pickled, evil_package)
    record = read_torch_file(as_zip(tmp_path / "inert.pt", pickled))
    assert not os.path.exists(evil_package)
    assert isinstance(record, Record) and record.made_by.module == "models.common"
    held = [*record.args, record.state, record.attributes.get("path"), *record.elements, *record.entries.values()]
    assert evil_package in held or {"path": evil_package} in held


@pytest.mark.parametrize("name", [
    "os.system", "posix.system", "nt.system", "builtins.open", "importlib.import_module",
    "runpy.run_path", "pty.spawn", "webbrowser.open", "ctypes.CDLL", "codecs.decode", "functools.reduce",
    "operator.attrgetter", "types.FunctionType", "marshal.loads", "pickle.loads", "copyreg.add_extension",
    "collections.namedtuple", "subprocess.Popen", "sys.settrace", "threading.Thread", "multiprocessing.Process",
])  # fmt: skip
def test_the_standard_library_is_refused_by_name(name):
    module, function = name.rsplit(".", 1)
    with pytest.raises(ValueError, match=rf"names '{name}', which is code"):
        read(f"c{module}\n{function}\n.".encode())


@pytest.mark.parametrize("name", [
    "torch.load", "torch.hub.load", "torch.serialization.load", "torch._utils._rebuild_sparse_tensor",
    "torch._tensor._rebuild_from_type_v2", "torch.jit._pickle.build_intlist", "numpy.load", "numpy.frombuffer",
    "numpy.testing._private.utils.runstring", "pandas.read_pickle", "joblib.load", "cloudpickle.loads",
])  # fmt: skip
def test_functions_of_libraries_are_not_called(name):
    module, function = name.rsplit(".", 1)
    with pytest.raises(ValueError, match=rf"wants '{name}' called"):
        read(f"c{module}\n{function}\n)R.".encode())
    assert str(read(f"c{module}\n{function}\n.".encode())) == name, "a mere name does nothing"


def test_a_bound_method_of_a_record_is_a_record():
    owner = b"cmodels.common\nConv\n)\x81q\x00"
    bound = read(b"\x80\x02c__builtin__\ngetattr\n" + owner + b"X\x0b\x00\x00\x00fuseforward\x86R.")
    assert str(bound.made_by) == "builtins.getattr" and str(bound.args[0].made_by) == "models.common.Conv"
    assert bound.args[1] == "fuseforward"
    with pytest.raises(ValueError, match="made by no name"):
        read(b"\x80\x02c__builtin__\ngetattr\n" + owner + b"X\x0b\x00\x00\x00fuseforward\x86R)R.")


@pytest.mark.parametrize("owner", [b"N", b"cmodels.common\nConv\n", b"cpathlib\nPath\n)\x81", b"}"])
def test_no_attribute_of_anything_else_is_looked_up(owner):
    with pytest.raises(ValueError, match="wants an attribute of a .* looked up; nothing was executed"):
        read(b"\x80\x02c__builtin__\ngetattr\n" + owner + b"X\x05\x00\x00\x00mkdir\x86R.")


def read(pickled, **keywords):
    return PickleReader(**keywords).read(io.BytesIO(pickled))


# --- what is honest ---


CONTENT = {
    "plain": [None, True, -1, 2**70, 1.5, "ü", b"\x00\xff", bytearray(b"x"), (1, (2,)), {3, "a"}, frozenset({4})],
    "ordered": OrderedDict(a=1, b=[2]),
    "default": defaultdict(list, {"k": [1]}),
    "keys": {1: "int", (1, "a"): "tuple", None: "none", 1.5: "float"},
}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_round_trips_in_every_protocol(protocol):
    assert read(pickle.dumps(CONTENT, protocol)) == CONTENT


def test_sharing_and_cycles_are_kept():
    shared, cycle = [1], []
    cycle.append(cycle)
    first, second, around = read(pickle.dumps((shared, shared, cycle)))
    assert first is second and around[0] is around


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_are_those_of_torch(tmp_path, legacy):
    base = torch.randn(4, 6)
    content = {str(dtype): (torch.randn(2, 3) * 4).to(dtype) for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
        torch.int8, torch.uint8, torch.bool)}  # fmt: skip
    content |= {"base": base, "transposed": base.t(), "part": base[1:3, ::2], "scalar": torch.tensor(3.0)}
    content |= {"empty": torch.empty(0, 3), "parameter": nn.Parameter(torch.randn(2))}
    path = tmp_path / "tensors.pt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    read_back = read_torch_file(path)
    for name, expected in content.items():
        assert read_back[name].dtype == expected.dtype and torch.equal(read_back[name], expected), name
    assert read_back["part"].untyped_storage().data_ptr() == read_back["base"].untyped_storage().data_ptr()


@pytest.mark.parametrize("legacy", [False, True])
def test_everything_that_checkpoints_hold_beside_weights(tmp_path, legacy):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.rand(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    content = {
        "optimizer": optimizer.state_dict(), "fitness": np.float64(0.5), "results": np.zeros((1, 3)),
        "device": torch.device("cpu"), "dtype": torch.float16,
        "size": torch.Size([1, 2]), "state_dict": module.state_dict(), "module": module, "class": nn.SiLU,
    }  # fmt: skip
    path = tmp_path / "all.pt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    read_back = read_torch_file(path)
    momentum = content["optimizer"]["state"][0]["momentum_buffer"]
    assert torch.equal(read_back["optimizer"]["state"][0]["momentum_buffer"], momentum)
    assert torch.equal(read_back["state_dict"]["0.weight"], module[0].weight)
    assert read_back["size"] == (1, 2)
    assert isinstance(read_back["dtype"], Name) and str(read_back["dtype"]) == "torch.float16"
    assert str(read_back["class"]) == "torch.nn.modules.activation.SiLU"
    assert isinstance(read_back["fitness"], Record) and isinstance(read_back["results"], Record)
    conv = read_back["module"].attributes["_modules"]["0"]
    assert repr(conv) == "<record of torch.nn.modules.conv.Conv2d>"
    assert torch.equal(conv.attributes["_parameters"]["bias"], module[0].bias)


# --- what is damaged, or lies ---


class Pickler(pickle.Pickler):
    """Writes persistent ids and tensors as torch does, with numbers as given."""

    def persistent_id(self, value):
        return value.id if isinstance(value, Persistent) else None


class Persistent:
    def __init__(self, *persistent_id):
        self.id = persistent_id[0] if len(persistent_id) == 1 else persistent_id


class Tensor(Call):
    def __init__(self, *args):
        super().__init__(torch._utils._rebuild_tensor_v2, *args)


def pickled(value):
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(value)
    return buffer.getvalue()


def storage(kind=torch.FloatStorage, key="0", num_elements=4, *more):
    return Persistent("storage", kind, key, "cpu", num_elements, *more)


@pytest.mark.parametrize(("value", "message"), [
    (Persistent("anything"), "no storage of torch"),
    (Persistent(("storage",)), "no storage of torch"),
    (Persistent(("storage", "FloatStorage", "0", "cpu", 4)), "no storage of torch"),
    (Persistent(("module", 1, 2)), "no storage of torch"),
    (Persistent(("file", "a.txt")), "no storage of torch"),
    (storage(torch.storage.UntypedStorage), "unknown kind"),
    (storage(key=0), "no storage of torch"),
    (storage(key="../data.pkl"), "is missing"),
    (storage(key="1"), "is missing"),
    (storage(num_elements="4"), "no storage of torch"),
    (storage(num_elements=-4), "unknown kind"),
    (storage(num_elements=5), "has 16 bytes"),
    (storage(num_elements=2**62), "has 16 bytes"),
    (storage(torch.FloatStorage, "0", 4, ("view", 0, 4)), "no storage of torch"),
    ([storage(), storage(torch.IntStorage)], "described in two ways"),
    (Tensor(storage(), 1, (4,), (1,), False, OrderedDict()), "reaches beyond its storage"),
    (Tensor(storage(), 0, (2, 2), (3, 1), False, OrderedDict()), "reaches beyond its storage"),
    (Tensor(storage(), 2**62, (1,), (1,), False, OrderedDict()), "reaches beyond its storage"),
    (Tensor(storage(), -1, (4,), (1,), False, OrderedDict()), "natural numbers"),
    (Tensor(storage(), 3, (4,), (-1,), False, OrderedDict()), "natural numbers"),
    (Tensor(storage(), 0, (4,), (1, 1), False, OrderedDict()), "natural numbers"),
    (Tensor(storage(), 0, (True,), (1,), False, OrderedDict()), "natural numbers"),
    (Tensor(storage(), 0, ("4",), (1,), False, OrderedDict()), "natural numbers"),
    (Tensor(storage(), 0, 4, 1, False, OrderedDict()), "does not fit"),
    (Tensor(storage(), 0, (2**40,), (0,), False, OrderedDict()), "more elements than its storage"),
    (Tensor(storage(), 0, (0, 2**80), (1, 1), False, OrderedDict()), "natural numbers"),
    (Tensor(storage(), 0, (1,) * 20, (1,) * 20, False, OrderedDict()), "more elements than its storage"),
    (Tensor("0", 0, (4,), (1,), False, OrderedDict()), "without a storage"),
    (Call(torch._utils._rebuild_parameter, [1.0], True, OrderedDict()), "without a tensor"),
])  # fmt: skip
def test_tensors_that_lie(tmp_path, value, message):
    path = as_zip(tmp_path / "lie.pt", pickled(value), {"0": bytes(16)})
    with pytest.raises(ValueError, match=f"lie.pt: .*{message}"):
        read_torch_file(path)


@pytest.mark.parametrize(("damaged", "message"), [
    (b"", "exhausted before seeing STOP"),
    (b"\x80\x02", "exhausted before seeing STOP"),
    (b"\x80\x02.", "does not fit"),
    (b"\x80\x02(.", "a value is missing"),
    (b"\x80\x02h\x07.", "does not fit"),  # nothing in the memo
    (b"\x80\x02t.", "does not fit"),  # no mark
    (b"\x80\x02N(u.", "another kind of value"),
    (b"\x80\x02}(Nu.", "shorter"),  # a key without a value
    (b"\x80\x02NR.", "does not fit"),
    (b"\x80\x02N)R.", "made by no name"),
    (b"\x80\x02ctorch\nSize\nNR.", "made by no name"),
    (b"\x80\x02]}b.", "a list is given a state"),
    (b"\x80\x05\x97.", "reaches outside"),  # NEXT_BUFFER
    (b"\x80\x05N\x98.", "reaches outside"),  # READONLY_BUFFER
    (b"Psomewhere\n.", "persistent id"),
    (b"\x80\x02Q.", "persistent id|does not fit"),
    (b"\xff.", "unknown"),
    (b"\x80\x02r\xff\xff\xff\xff.", "does not fit"),  # LONG_BINPUT far away
    (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.", "expected"),  # BINBYTES8 of 4 EB
    (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.", "expected"),  # BINUNICODE8
    (b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.", "not enough data"),  # LONG4
    (b"L" + b"9" * 5000 + b"L\n.", "digits|invalid"),
    (b"\x80\x02}" + b"N" + b"\x85" * 20_000 + b"Ns.", "cannot be a key"),
    (b"\x80\x02c" + b"a" * 10_000 + b"\nb\n)R.", "wants 'a{200}' called"),
])  # fmt: skip
def test_damaged_pickles(tmp_path, damaged, message):
    with pytest.raises(ValueError, match=message):
        read(damaged)
    with pytest.raises(ValueError, match=r"damaged.pt: "):
        read_torch_file(as_zip(tmp_path / "damaged.pt", damaged))


def test_a_pickle_is_bounded_in_size_and_not_in_depth(monkeypatch):
    many = b"\x80\x02]" + b"\x85" * 20_000 + b"."
    assert isinstance(read(many), tuple)
    monkeypatch.setattr(unpickle, "MAX_PICKLE_BYTES", 10_000)
    with pytest.raises(ValueError, match="larger than 10000 bytes"):
        read(many)


def test_broken_files_end_in_a_value_error_and_nothing_else(tmp_path):
    """Random changes and cuts of a small checkpoint, in both formats."""
    draw, path = random.Random(0), tmp_path / "broken.pt"
    outcomes = set()
    for legacy in (False, True):
        torch.save({"a": torch.arange(6.0).view(2, 3), "b": [OrderedDict(c=nn.SiLU())]}, path,
                   _use_new_zipfile_serialization=not legacy)  # fmt: skip
        whole = path.read_bytes()
        cuts = [whole[:length] for length in draw.sample(range(len(whole)), 100)]
        changed = []
        for _ in range(250):
            data = bytearray(whole)
            for _ in range(draw.randint(1, 3)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            changed.append(bytes(data))
        for data in cuts + changed:
            path.write_bytes(data)
            try:
                read_torch_file(path)
                outcomes.add("read")
            except ValueError as error:
                assert "broken.pt" in str(error)
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "x.pt"
    for content, message in [
        (b"", "an empty file"),
        (b"not a checkpoint", "no file of torch.save"),
        (pickle.dumps({"a": 1}), "a pickle, but no file of torch.save"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"x.pt: {message}"):
            read_torch_file(path)
    with pytest.raises(ValueError, match="compressed entries"):
        read_torch_file(as_zip(path, pickle.dumps({}), compression=zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(ValueError, match=r"without one data.pkl"):
        read_torch_file(path)
    torch.jit.save(torch.jit.script(nn.ReLU()), path)
    with pytest.raises(ValueError, match="TorchScript"):
        read_torch_file(path)


def test_a_zip_file_whose_entries_claim_too_much(tmp_path):
    honest = pickled(Tensor(storage(), 0, (4,), (1,), False, OrderedDict()))
    path = as_zip(tmp_path / "bomb.pt", honest, {"0": bytes(16)})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # the directory's line for the storage
    data[entry + 20 : entry + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="claim more bytes"):
        read_torch_file(path)


def test_legacy_storages_that_claim_too_much(tmp_path):
    header = [pickle.dumps(value, 2) for value in (LEGACY_MAGIC, 1001, {})]
    path = tmp_path / "bomb.pt"
    path.write_bytes(b"".join(header) + pickled(storage(num_elements=2**40)) + pickle.dumps(["0"], 2))
    with pytest.raises(ValueError, match="claim more bytes"):
        read_torch_file(path)
    path.write_bytes(b"".join(header) + pickled(storage()) + pickle.dumps(["0"], 2) + struct.pack("<q", 4) + bytes(8))
    with pytest.raises(ValueError, match="ends in the middle"):
        read_torch_file(path)
    path.write_bytes(b"".join(header) + pickled(storage()) + pickle.dumps([], 2) + bytes(64))
    with pytest.raises(ValueError, match="1 storages are missing"):
        read_torch_file(path)
