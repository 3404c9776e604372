"""`engineroom completion`: a script with which a shell completes every command, its options and their values.

The script asks no Python when a key is pressed: that would take as long as a command takes to start.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any, ClassVar

from traitlets import Enum
from traitlets.utils.importstring import import_item

from ...records.fields import DEFAULT_KEYS
from ...records.states import STATES
from ..base import METAVARS, EngineroomApp, UsageError
from ..launcher_options import LAUNCHERS

SHELLS = ("bash", "zsh")

#: What stands behind an option: words, or what the script looks for itself.
FILES, FOLDERS, PROFILES = "@files", "@folders", "@profiles"
#: tool/option → its values, as far as they are known, besides those of traits that list theirs.
VALUES = {
    "ipcluster/engines": LAUNCHERS.replace(",", ""),
    "*/scheme": "leastload lru plainrandom twobin weighted pure",
    "*/state": " ".join(STATES),
    "*/sort": " ".join([*DEFAULT_KEYS, *(f"-{key}" for key in ("submitted", "completed", "started", "duration"))]),
    "*/keys": " ".join(DEFAULT_KEYS),
    "*/log-level": "DEBUG INFO WARN ERROR",
    "*/session": "last",
    "*/profile": PROFILES,
    "*/db-url": FILES,
}
_KINDS = {"FILE": FILES, "FOLDER": FOLDERS}

_SCRIPT = r"""# Completion of engineroom, ipcluster, ipcontroller and ipengine for bash and zsh.
# bash: eval "$(engineroom completion bash)"      zsh: eval "$(engineroom completion zsh)"
if [ -n "${ZSH_VERSION-}" ]; then
    autoload -Uz +X compinit && compinit -u
    autoload -Uz +X bashcompinit && bashcompinit
fi

_engineroom_values() {  # tool/option → its values
    case "$1" in
@VALUES@
    esac
}

_engineroom_options() {  # "tool command" → options; then what may stand in other places
    case "$1" in
@OPTIONS@
    esac
}

_engineroom_words() {
    case "$1" in
@WORDS@
    esac
}

_engineroom_complete() {
    local line tool command place current option values word path
    COMPREPLY=()
    # Words as the user typed them: bash takes --name=value for three words.
    line="${COMP_LINE:0:$COMP_POINT}"
    current="${line##*[[:space:]]}"
    tool="${line%%[[:space:]]*}"
    tool="${tool##*/}"
    command=""
    place=0  # how many words that are no options stand before this one
    word="${line%"$current"}"
    for word in ${word#"${line%%[[:space:]]*}"}; do
        case "$word" in -*) ;; *) [ -n "$command" ] || command="$word"; place=$((place + 1)) ;; esac
    done
    path="$tool"
    [ -n "$(_engineroom_options "$tool $command")" ] && path="$tool $command"
    option=""
    case "$current" in
        -*=*) option="${current%%=*}"; current="${current#*=}" ;;
        -*) ;;
        *) word="${line%"$current"}"; word="${word%"${word##*[![:space:]]}"}"; word="${word##*[[:space:]]}"
           case "$(_engineroom_options "$path")" in *"$word="*) option="$word" ;; esac ;;  # else it is a flag
    esac
    if [ -n "$option" ]; then
        values="${option#-}"; values="$(_engineroom_values "$tool/${values#-}")"
        [ -n "$values" ] || return 0  # nobody knows its values
    fi
    case "${values-}" in
        "") case "$current" in
                -*) values="$(_engineroom_options "$path")" ;;
                *) values="$(_engineroom_words "$path")"
                   case "$path" in *" "*) [ "$place" -gt 1 ] && values="@files" ;; esac ;;
            esac
            [ "$values" = "@files" ] && values="" && COMPREPLY=($(compgen -f -- "$current")) ;;
        @files) values=""; COMPREPLY=($(compgen -f -- "$current")) ;;
        @folders) values=""; COMPREPLY=($(compgen -d -- "$current")) ;;
        @profiles) values="$(cd "${IPYTHONDIR:-$HOME/.ipython}" 2>/dev/null && printf '%s ' profile_*)"
            values="${values//profile_/}"; values="${values//\*/}" ;;
    esac
    case "$current" in  # of a list, the last one
        *,*) case "$option" in --keys) word="${current%,*},"; current="${current##*,}"
             COMPREPLY=($(compgen -P "$word" -W "$values" -- "$current")); values="" ;; esac ;;
    esac
    [ -n "$values" ] && COMPREPLY=($(compgen -W "$values" -- "$current"))
    # A space follows a whole word, but not an option that wants a value.
    case "${COMPREPLY[0]-}" in --*=) compopt -o nospace 2>/dev/null ;; esac
    # zsh replaces the whole word, bash what stands behind the "=".
    if [ -n "${ZSH_VERSION-}" ] && [ -n "$option" ] && [ -z "${line##*"$option="*}" ]; then
        COMPREPLY=("${COMPREPLY[@]/#/$option=}")
    fi
    return 0
}

if [ -n "${ZSH_VERSION-}" ]; then  # it cannot say for each word whether a space follows
    complete -o nospace -F _engineroom_complete @TOOLS@
else
    complete -F _engineroom_complete @TOOLS@
fi
"""


def script(tools: list[Any]) -> str:
    """The script for bash and zsh.

    Parameters
    ----------
    tools : list of classes
        The tools, with their commands.
    """
    options: dict[str, str] = {}
    words: dict[str, str] = {}
    values: dict[str, str] = dict(VALUES)
    for path, app in _commands(tools):
        names = [f"--{key}=" if len(key) > 1 else f"-{key}" for key in app.aliases]
        names += [f"--{key}" for key in (*app.flags, "help", "help-all", "version")]
        options[path] = " ".join(sorted(names))
        others = " ".join(app().subcommands) or " ".join(app.completes)
        words[path] = others or FILES
        for key, target in app.aliases.items():
            found = _values_of(app, key, target)
            if found:
                values.setdefault(f"*/{key}", found)
    made = _SCRIPT.replace("@VALUES@", _cases(values)).replace("@OPTIONS@", _cases(options))
    return made.replace("@WORDS@", _cases(words)).replace("@TOOLS@", " ".join(tool.name for tool in tools))


def _commands(tools: list[Any]) -> Iterator[tuple[str, Any]]:
    for tool in tools:
        yield tool.name, tool
        for name, (command, _) in tool().subcommands.items():
            yield f"{tool.name} {name}", import_item(command) if isinstance(command, str) else command


def _values_of(app: Any, key: str, target: str) -> str:
    owner, _, name = target.partition(".")
    for known in [app, *app.classes]:
        for cls in known.__mro__:
            if cls.__name__ == owner and isinstance(trait := getattr(cls, name, None), Enum):
                return " ".join(str(value) for value in trait.values or () if value)
    return _KINDS.get(METAVARS.get(key, ""), "")


def _cases(table: dict[str, str]) -> str:
    return "\n".join(
        f"        {name.replace(' ', chr(92) + ' ')}) echo {shlex.quote(text)} ;;" for name, text in table.items()
    )


class Completion(EngineroomApp):
    """Print a script with which a shell completes commands, options and their values when you press Tab.

    SHELL is bash or zsh. The script completes engineroom, ipcluster, ipcontroller and ipengine. It knows the options
    of this version: read it again after an upgrade, as a line in the shell's startup file does.
    """

    name = "engineroom"
    description = __doc__
    usage = "engineroom completion SHELL"
    positional: ClassVar[tuple[int, int, str]] = (1, 1, "SHELL")
    completes: ClassVar[tuple[str, ...]] = SHELLS
    aliases: Any = {}
    flags: Any = {}
    examples = """
eval "$(engineroom completion bash)"                       # in ~/.bashrc
eval "$(engineroom completion zsh)"                        # in ~/.zshrc
engineroom completion bash > ~/.local/share/bash-completion/completions/engineroom
"""

    def start(self) -> None:
        [shell] = self.extra_args
        if shell not in SHELLS:
            raise UsageError(f"there is no completion for {shell!r}; there is one for {' and '.join(SHELLS)}")
        from ..engineroom import Engineroom
        from ..ipcluster import IPCluster
        from ..ipcontroller import IPController
        from ..ipengine import IPEngine

        print(script([Engineroom, IPCluster, IPController, IPEngine]), end="")
