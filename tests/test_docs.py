"""The documentation is true: its examples run, its lists are whole, its links lead somewhere.

A page's ```python blocks run in order in one fresh process, as a script a user wrote would, with an empty
IPYTHONDIR. In them `expression  # → value` is checked: the expression's repr is the value. A block that follows
a line `<!-- not run: why -->` is left out.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from conftest import processes_of, wait_until

import engineroom
from engineroom import errors
from engineroom.core import actions, events
from engineroom.core.tasks import TRANSITIONS
from engineroom.records import fields

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TEXT = "\n".join(page.read_text() for page in PAGES)

FENCE = re.compile(r"^```(\w*|\{[\w-]+\})\s*$")
NOT_RUN = re.compile(r"^<!-- not run(?:: (.+?))? -->$")
SHOWN = re.compile(r"^(.+?)  +# → (.+)$")

PRELUDE = (
    "def _shown(line, value, expected): "
    "assert repr(value) == expected, f'line {line}: {value!r}, the page says {expected}'"
)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def examples_of(text: str) -> str:
    """The page as a script: its Python blocks on their own lines, everything else blank; "" if there are none."""
    lines, script, inside, before = text.splitlines(), [], None, ""
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        code = ""
        if inside is None and fence:
            skipped = NOT_RUN.match(before)
            assert not skipped or skipped[1], f"line {number - 1}: say why the block is not run"
            inside = "skipped" if skipped else fence[1] or "text"
        elif fence:
            inside = None
        elif inside == "python":
            code = checked(line, number)
        script.append(code)
        before = line.strip() or before
    assert inside is None, "a block is not closed"
    return "\n".join(script) + "\n" if any(script) else ""


def checked(line: str, number: int) -> str:
    """The line; if it shows a value, one that compares."""
    shown = SHOWN.match(line)
    if shown is None:
        return line
    code = shown[1].strip()
    ast.parse(code, mode="eval")
    return f"{line[: len(line) - len(line.lstrip())]}_shown({number}, {code}, {shown[2].strip()!r})"


RUNNABLE = [page for page in PAGES if examples_of(page.read_text())]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_the_examples_run(page: Path, tmp_path: Path):
    script = tmp_path / f"{page.stem}_page.py"  # a script joblib.py would be the module joblib
    first, _, rest = examples_of(page.read_text()).partition("\n")
    assert not first, "the first line of a page is its title"
    script.write_text(f"{PRELUDE}\n{rest}")
    environment = {
        **os.environ,
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "IPP_NONINTERACTIVE": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    for name in ("IPP_PROFILE_DIR", "IPP_CLUSTER_ID"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, f"{name_of(page)} (line numbers are the page's):\n{done.stdout}{done.stderr}"
    wait_until(lambda: not processes_of(tmp_path))


def test_the_tutorial_and_the_readme_have_examples():
    assert {"README.md", "docs/tutorial.md", "docs/records.md"} <= {name_of(page) for page in RUNNABLE}


def test_a_shown_value_that_is_wrong_is_noticed():
    script = PRELUDE + "\n" + examples_of("title\n```python\n1 + 1  # → 3\n```\n")
    with pytest.raises(AssertionError, match="line 3: 2, the page says 3"):
        exec(script, {})


# ---------------------------------------------------------------------------------------------- lists are whole


def classes_of(module: object, base: type) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


@pytest.mark.parametrize("name", classes_of(errors, errors.EngineroomError))
def test_every_error_is_in_the_table_of_errors(name: str):
    row = re.search(rf"^\| `{name}` \| `([\w-]+)` \|", (ROOT / "docs/errors.md").read_text(), re.M)
    assert row, f"docs/errors.md has no row for {name}"
    assert row[1] == getattr(errors, name).code


@pytest.mark.parametrize("name", [*classes_of(events, events.Event), *classes_of(actions, actions.Action)])
def test_every_event_and_action_is_in_the_page_of_the_core(name: str):
    if name not in ("Event", "Action"):
        assert f"| `{name}` |" in (ROOT / "docs/core.md").read_text()


def test_the_page_of_the_core_has_the_table_of_transitions():
    table = ["| from | to | when |", "|---|---|---|"]
    table += [f"| {old.name} | {new.name} | {why} |" for (old, new), why in TRANSITIONS.items()]
    assert "\n".join(table) in (ROOT / "docs/core.md").read_text(), "it should be:\n" + "\n".join(table)


def commands() -> list[str]:
    """Every command of the command line: `ipcluster`, `ipcluster start`, …"""
    names = []
    for name, target in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].items():
        names.append(name)
        for value in vars(import_module(target.partition(":")[0])).values():
            below = getattr(value, "subcommands", None)
            if inspect.isclass(value) and getattr(value, "name", None) == name and isinstance(below, dict):
                names += [f"{name} {command}" for command in below]
    return list(dict.fromkeys(names))


def test_every_command_is_in_the_docs():
    assert {"ipcluster start", "engineroom tasks", "ipcontroller"} <= set(commands())
    assert [command for command in commands() if command not in TEXT] == []


@pytest.mark.parametrize("key", fields.KEYS)
def test_every_key_of_a_record_is_in_the_page_of_records(key: str):
    assert re.search(rf"^\| `{key}` \|", (ROOT / "docs/records.md").read_text(), re.M)


def test_every_operator_is_in_the_page_of_records():
    from engineroom.stores.query import parse as query

    text = (ROOT / "docs/records.md").read_text()
    known = [*query._OPERATORS, *query._JOINS, "$regex", "$options"]
    assert [operator for operator in known if f"`{operator}`" not in text] == []


def test_every_public_name_is_in_the_reference():
    pages = "\n".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    named = set(re.findall(r"^\.\. auto\w+:: engineroom\.(\w+)$|^\.\. data:: engineroom\.(\w+)$", pages, re.M))
    found = {name for pair in named for name in pair} | {"__version__", "version_info"}
    if "automodule:: engineroom.errors" in pages:
        found |= {*classes_of(errors, BaseException), "TimeoutError"}
    missing = sorted(set(engineroom.__all__) - found)
    assert missing == [], "docs/api/ has a page for each kind of them: add a line to it"


# ---------------------------------------------------------------------------------------------- links lead somewhere


def in_navigation() -> set[Path]:
    """The pages that the lists `:::{toctree}` name."""
    found = {ROOT / "docs/index.md"}
    for page in PAGES:
        for entries in re.findall(r"^:::\{toctree\}\n(.*?)^:::$", page.read_text(), re.M | re.S):
            for line in entries.splitlines():
                name = re.sub(r"^.*<(.+)>$", r"\1", line)
                if name and not name.startswith(":"):
                    found |= {path.resolve() for path in page.parent.glob(f"{name}.md")}
    return found


def test_every_page_is_in_the_navigation_of_the_site():
    """`make docs` finds more: this is for those who do not build it."""
    forgotten = {page for page in PAGES if "site" not in page.parts} - in_navigation() - {ROOT / "README.md"}
    assert sorted(map(name_of, forgotten)) == [], "name it in a part of the site: docs/how-to.md, docs/reference.md, …"


def anchors_of(page: Path) -> set[str]:
    """The anchors that headings make."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path):
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), f"{name_of(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors_of(there), f"{name_of(page)}: {path or page.name} has no heading #{anchor}"


#: files named in prose as `core/scheduler.py` or `src/engineroom/…`
FILE = re.compile(r"`((?:[\w.]+/)*[\w]+\.py)`")


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "migration.md"], ids=name_of)
def test_source_files_that_are_named_are_there(page: Path):
    for name in FILE.findall(page.read_text()):
        if name.endswith("_config.py"):
            continue  # a user's file
        places = [ROOT / name, ROOT / "src/engineroom" / name, ROOT / "tests" / name]
        assert any(place.exists() for place in places), f"{name_of(page)} names {name}, which is not there"


def test_the_threat_model_names_tests_that_exist():
    page = (ROOT / "docs/security.md").read_text()
    table = page[page.index("## Who might attack") : page.index("## On one host")]
    named = re.findall(r"`((?:\w+/)*test_\w+\.py)(?:::(\w+))?`", table)
    assert len(named) > 15
    for file, test in named:
        text = (ROOT / "tests" / file).read_text()
        assert f"def {test or 'test_'}" in text, f"{file} has no test {test}"
