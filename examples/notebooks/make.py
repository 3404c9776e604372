"""Makes the notebooks in this folder from `pages/`, runs them, and keeps what they show.

    python examples/notebooks/make.py [NAME ...]

A page is Markdown. Its text becomes cells of text, its Python blocks become cells of code. A block whose first line is
```python from options.py: prices, STRIKES
begins with these definitions of the script, so that code stands in one place; `CELLS[3]` names an entry of a list of
texts. The block ```python parameters has the sizes, which tests make smaller. `tests/notebook/test_examples.py` runs
all notebooks, and finds those that are not as their pages say.

Running needs nbclient, ipykernel, matplotlib, numpy and scikit-learn: `pip install engineroom[test]`.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGES = HERE / "pages"
SCRIPTS = HERE.parent
#: The first line of a block of code: what comes after the word python says what the block is.
BLOCK = re.compile(r"^```python ?([^\n]*)\n(.*?)^```\n?", re.M | re.S)
PARAMETERS = "parameters"


def names() -> list[str]:
    """The names of all notebooks."""
    return sorted(page.stem for page in PAGES.glob("*.md"))


def cells(name: str) -> list[dict[str, Any]]:
    """The cells of a notebook, without outputs."""
    found: list[dict[str, Any]] = []

    def add(kind: str, source: str, tags: list[str]) -> None:
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{len(found)}", "source": source.strip("\n")}
        cell["metadata"] = {"tags": tags} if tags else {}
        found.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))

    text, end = (PAGES / f"{name}.md").read_text(encoding="utf-8"), 0
    for block in BLOCK.finditer(text):
        if before := text[end : block.start()].strip("\n"):
            add("markdown", before, [])
        what, end = block[1], block.end()
        copied = copied_from(what.removeprefix("from ")) + "\n" if what.startswith("from ") else ""
        add("code", copied + block[2], [PARAMETERS] if what == PARAMETERS else [])
    if rest := text[end:].strip("\n"):
        add("markdown", rest, [])
    return found


def copied_from(what: str) -> str:
    """Definitions of a script as they stand there: `options.py: prices, STRIKES`."""
    script, _, wanted = what.partition(": ")
    source = (SCRIPTS / script).read_text(encoding="utf-8")
    defined = dict(_definitions(source))
    parts = []
    for name in wanted.split(", "):
        listed = re.fullmatch(r"(\w+)\[(\d+)\]", name)
        if listed:
            node = ast.parse(defined[listed[1]]).body[0]
            assert isinstance(node, ast.Assign)
            parts.append(str(ast.literal_eval(node.value)[int(listed[2])]))
        else:
            parts.append(defined[name])
    text = "".join(f"\n{part}\n" if part.startswith(("def ", "@")) else part for part in (f"{p}\n" for p in parts))
    return re.sub(r"  # noqa: \w+( - )?", lambda found: "  # " if found[1] else "", text).strip("\n")


def _definitions(source: str) -> list[tuple[str, str]]:
    """(name, source) of each function and constant, with its decorators and the `#:` line above it."""
    found, lines = [], source.splitlines()
    for node in ast.parse(source).body:
        first = node.lineno
        if isinstance(node, ast.FunctionDef):
            first = min([first, *(decorator.lineno for decorator in node.decorator_list)])
            targets = [node.name]
        elif isinstance(node, ast.Assign):
            target = node.targets[0]
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            targets = [part.id for part in parts if isinstance(part, ast.Name)]
        else:
            continue
        text = "\n".join(lines[first - 1 : node.end_lineno])
        found += [(name, text) for name in targets]
    return found


def notebook(name: str, **sizes: Any) -> Any:
    """A notebook, not run. `sizes`: values for names in its block of parameters."""
    import nbformat

    made = cells(name)
    for cell in made:
        if PARAMETERS in cell["metadata"].get("tags", ()):
            for key, value in sizes.items():
                cell["source"], count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value!r}", cell["source"])
                assert count == 1, f"{name}: no parameter {key}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.from_dict(
        {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    )


def main() -> None:
    """Make the notebooks that the command line names, or all."""
    import nbformat
    from nbclient import NotebookClient

    for name in sys.argv[1:] or names():
        made = notebook(name)
        NotebookClient(made, timeout=300, record_timing=False, resources={"metadata": {"path": str(HERE)}}).execute()
        made.metadata = {"kernelspec": made.metadata["kernelspec"]}
        path = HERE / f"{name}.ipynb"
        nbformat.write(made, path)
        print(f"{path.name}: {len(made.cells)} cells, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
