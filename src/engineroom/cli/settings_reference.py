"""docs/settings.md, made from the tools' settings: `python -m engineroom.cli.settings_reference > docs/settings.md`.

It is not the page of flags (`reference.py`): it lists what a configuration file can hold.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from .base import EngineroomApp
from .ipcluster import IPClusterEngines, IPClusterStart, IPClusterStop
from .ipcontroller import IPController
from .ipengine import IPEngine

#: file → the commands that read it
_FILES: dict[str, tuple[type[EngineroomApp], ...]] = {
    "ipcontroller_config.py": (IPController,),
    "ipengine_config.py": (IPEngine,),
    "ipcluster_config.py": (IPClusterStart, IPClusterEngines, IPClusterStop),
}
_TITLE = "All settings"


def reference() -> str:
    """The whole page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield f"# {_TITLE}"
    yield ""
    yield "<!-- Made by `python -m engineroom.cli.settings_reference > docs/settings.md`; a test compares. -->"
    yield ""
    yield "What the configuration files of a profile can hold. In the file `c.Class.name = value`; as an option"
    yield "`--Class.name=value`, or the flag. [Configuration](configuration.md) says which wins, and what a profile is."
    for file, tools in _FILES.items():
        seen: set[type] = set()
        yield ""
        yield f"## {file}"
        yield ""
        yield f"Read by {', '.join(f'`{_command(tool)}`' for tool in tools)}."
        for tool in tools:
            app = tool()
            for cls in [tool, *app.classes]:
                if cls not in seen:
                    seen.add(cls)
                    yield from _section(cls, cls.__name__, app)
    yield ""
    yield "## Every command"
    yield from _section(EngineroomApp, "Profile and log", IPController())


def _command(tool: type[EngineroomApp]) -> str:
    below = tool.__name__.removeprefix("IPCluster")
    return str(tool.name) if below == tool.__name__ else f"ipcluster {below.lower()}"


def _section(cls: Any, title: str, app: EngineroomApp) -> Iterator[str]:
    """A table of a class's own settings. A class without any has none."""
    traits = cls.class_own_traits(config=True)
    if not traits:
        return
    yield ""
    yield f"### {title}"
    yield ""
    if not issubclass(cls, EngineroomApp):
        yield inspect.cleandoc(cls.__doc__ or "").splitlines()[0]
        yield ""
    yield "| setting | flag | default | meaning |"
    yield "|---|---|---|---|"
    for name, trait in sorted(traits.items()):
        setting = f"{cls.__name__}.{name}"
        flags = ", ".join(f"`{flag}`" for flag in _flags(app, cls.__name__, name))
        yield f"| `{setting}` | {flags} | {_default(trait)} | {_meaning(trait)} |"


def _flags(app: EngineroomApp, owner: str, name: str) -> Iterator[str]:
    for flag, target in app.aliases.items():
        if target == f"{owner}.{name}":
            yield f"-{flag}" if len(flag) == 1 else f"--{flag}="
    for flag, (values, _) in app.flags.items():
        if name in values.get(owner, {}):
            yield f"--{flag}"


def _default(trait: Any) -> str:
    """The default, if it is a value: empty texts, lists and None stand for what the help says."""
    value = trait.default_value
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`" if isinstance(value, int) or (isinstance(value, str) and value) else ""


def _meaning(trait: Any) -> str:
    """The help, as a cell of a Markdown table."""
    text = re.sub(r"([*<>|])", r"\\\1", " ".join(trait.help.split()))
    choices = getattr(trait, "values", None)
    return f"{text} One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else text


if __name__ == "__main__":
    print(reference())
