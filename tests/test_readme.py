"""The README says what is there: its commands parse, its files exist, its tree is the tree."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", README, re.S)
    for line in re.sub(r"\\\n\s*", "", block).splitlines() if line.strip() and not line.startswith("#")
]
SUBMITS = [command[command.index("submit.py"):] for command in COMMANDS if "submit.py" in command]


def test_the_readme_shows_commands():
    assert any("jobs/quickstart.yaml" in command for command in SUBMITS)
    assert any("pytest" in command for command in COMMANDS)


@pytest.mark.parametrize("command", SUBMITS)
def test_every_submission_parses_and_its_job_file_validates(command):
    import submit
    from yolov7_ray.jobs.job_file import load_job

    arguments = submit.parse(shlex.split(re.split("&&|>", command)[0])[1:])
    if arguments.command == "run" and arguments.job.startswith("jobs/"):
        load_job(str(ROOT / arguments.job), arguments.overrides)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(((?!http|#)[^)]+)\)", README))))
def test_every_link_points_at_a_file(path):
    assert (ROOT / path).exists()


def tree_paths() -> set[str]:
    """Paths in the README's tree: two blanks a level, names before ``#``, folders end in a slash."""
    [tree] = re.findall(r"```tree\n(.*?)```", README, re.S)
    paths, folders = set(), []
    for line in filter(str.strip, tree.splitlines()):
        names = line.split("#")[0].split()
        folders = folders[:(len(line) - len(line.lstrip())) // 2]
        paths |= {"/".join([*folders, name.rstrip("/")]) for name in names}
        if names and names[0].endswith("/"):
            folders.append(names[0].rstrip("/"))
    return paths


def test_the_tree_is_the_tree():
    shown = tree_paths()
    gone = sorted(path for path in shown if not (ROOT / path).exists())
    assert not gone, f"in the README's tree, but not there: {gone}"
    modules = {path.relative_to(ROOT).as_posix() for room in ("yolov7", "platform")
               for path in (ROOT / room).rglob("*.py") if path.name != "__init__.py"}
    assert not modules - shown, f"not in the README's tree: {sorted(modules - shown)}"
