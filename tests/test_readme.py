"""The READMEs say what is there: their commands parse, their files exist, the tree is the tree, the keys are the keys."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = {path: (ROOT / path).read_text() for path in (
    "README.md", "jobs/README.md", "cluster/README.md", "yolov7/README.md", "platform/README.md")}
README = READMES["README.md"]
COMMANDS = [
    line.split("#")[0].strip()
    for text in READMES.values()
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.S)
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


@pytest.mark.parametrize("readme, link", sorted(
    (path, link) for path, text in READMES.items() for link in set(re.findall(r"\]\(((?!http)[^)]+)\)", text))))
def test_every_link_points_at_a_file_and_a_heading_in_it(readme, link):
    path, _, heading = link.partition("#")
    file = (ROOT / readme).parent / path if path else ROOT / readme
    assert file.exists()
    if heading:
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
        assert heading in {re.sub(r"[^a-z0-9 -]", "", found.lower()).replace(" ", "-") for found in headings}


def test_the_first_page_is_short():
    assert README.count("\n") <= 165


def test_the_reference_has_every_key():
    from yolov7_ray.jobs.starter import reference

    assert (ROOT / "jobs/keys.md").read_text() == reference(), "python submit.py keys > jobs/keys.md"


def tree_paths() -> set[str]:
    """Paths in the tree of platform/README.md: two blanks a level, names before ``#``, folders end in a slash."""
    [tree] = re.findall(r"```tree\n(.*?)```", READMES["platform/README.md"], re.S)
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
    assert not gone, f"in the tree of platform/README.md, but not there: {gone}"
    modules = {path.relative_to(ROOT).as_posix() for room in ("yolov7", "platform")
               for path in (ROOT / room).rglob("*.py") if path.name != "__init__.py"}
    assert not modules - shown, f"not in the tree of platform/README.md: {sorted(modules - shown)}"
