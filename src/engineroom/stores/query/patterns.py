"""Regular expressions in queries: their dialect is MongoDB's, and each search can be given a timeout."""

from __future__ import annotations

import functools
import re
from typing import Any

from ...errors import QueryError

#: Characters of a pattern at most.
MAX_PATTERN = 1000

#: flags of `re` that flags of `regex` stand for; the numbers differ
_FLAGS = "IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE", "ASCII"

LETTERS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE, "u": re.UNICODE}


#: Parts of a pattern at most, once the repetitions with a number are written out: so the library compiles them.
MAX_PARTS = 20_000

_RECURSION = re.compile(r"\(\?(?:R|[+-]?\d|&|P>|P&)")
#: an escape, a class in brackets, a repetition with a number, or anything else
_PARTS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}|.", re.DOTALL)


def _parts(pattern: str) -> int:
    """How many parts a pattern has, once the repetitions with a number are written out."""
    groups = [0]  # parts of each group that is open so far
    last = 0  # parts of what a repetition would repeat
    for part in _PARTS.finditer(pattern):
        if part[0] == "(":
            groups.append(0)
        elif part[0] == ")" and len(groups) > 1:
            last = groups.pop() + 1
            groups[-1] += last
        elif part[1] or part[2]:
            times = max(int(number or 0) for number in part.groups())
            groups[-1] += last * max(times - 1, 0)
            last *= max(times, 1)
        else:
            last = 1
            groups[-1] += 1
    return sum(groups)


def is_tame(pattern: str) -> bool:
    """Whether a search surely takes no more than quadratic time: the pattern has one repetition and no groups."""
    return "(" not in pattern and sum(map(pattern.count, "*+{")) <= 1


#: an escape, or a class in brackets
_TOKENS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_ASCII = {"w": "A-Za-z0-9_", "d": "0-9"}


def _in_ascii(token: re.Match[str]) -> str:
    r"""`\w` and `\d` as MongoDB has them: ASCII only, though letters fold their case in all scripts."""
    text = token[0]
    if text[0] == "[":
        return re.sub(r"\\([wd])|\\.", lambda m: _ASCII[m[1]] if m[1] else m[0], text, flags=re.DOTALL)
    if text[1].lower() not in _ASCII:
        return text
    return f"[{'^' if text[1].isupper() else ''}{_ASCII[text[1].lower()]}]"


@functools.lru_cache(64)
def compiled(pattern: str, flags: int) -> Any:
    """A compiled regular expression, of the module `regex`: its searches can be given a timeout.

    ValueError for a pattern that would take much memory: `(?:a{1000}){1000}` takes 270 MB, and recursion has no limit.
    """
    if (parts := _parts(pattern)) > MAX_PARTS:
        raise ValueError(f"with its repetitions written out it has {parts:,} parts; at most {MAX_PARTS:,} are allowed")
    if _RECURSION.search(_TOKENS.sub("", pattern)):
        raise ValueError("a pattern cannot refer to itself here")
    pattern = _TOKENS.sub(_in_ascii, pattern)
    import regex  # it takes long to import, and few questions have a pattern

    try:
        return regex.compile(pattern, sum(getattr(regex, name) for name in _FLAGS if flags & getattr(re, name)))
    except regex.error as error:
        raise ValueError(str(error)) from None


def pattern_of(pattern: re.Pattern[str] | str, options: str | None) -> tuple[str, str]:
    """A regular expression as MongoDB has it: its text, and the letters of its options."""
    if isinstance(pattern, re.Pattern):
        return pattern.pattern, "".join(letter for letter in "imsx" if pattern.flags & LETTERS[letter])
    return pattern, (options or "").replace("u", "")


def check_length(where: str, pattern: str) -> None:
    if len(pattern) > MAX_PATTERN:
        raise QueryError(f"{where}: the pattern has {len(pattern)} characters; at most {MAX_PATTERN} are allowed")


def glob_regex(glob: str, end: str = r"\Z") -> str:
    """A shell pattern as a regular expression; `end` is how the wanted dialect writes the end of a text."""
    made, rest = [], glob
    while rest:
        letter, rest = rest[0], rest[1:]
        closed = rest.find("]", 2 if rest[:1] == "!" else 1) if letter == "[" else -1
        if letter == "*":
            rest = rest.lstrip("*")
            made.append(".*")
        elif letter == "?":
            made.append(".")
        elif closed > 0:
            inside = rest[:closed].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
            made.append(f"[{'^' + inside[1:] if inside[0] == '!' else inside.replace('^', chr(92) + '^')}]")
            rest = rest[closed + 1 :]
        else:
            made.append(re.escape(letter))
    return f"^(?s:{''.join(made)}){end}"


#: Characters that mean themselves in a regular expression, wherever they stand outside of a class.
_LITERAL = re.compile(r"[^\\^$.|?*+()\[\]{}]|\\[^\w\s]")
_REPEATED = ("?", "*", "+", "{")


def literal_prefix(pattern: str, flags: int) -> str:
    """What each text in which a pattern is found begins with; "" if that is not known."""
    if flags & (re.IGNORECASE | re.MULTILINE | re.VERBOSE) or not pattern.startswith("^"):
        return ""
    if "|" in pattern or "(?" in pattern:  # another alternative, or flags that hold for all of the pattern
        return ""
    found, place = "", 1
    while letter := _LITERAL.match(pattern, place):
        place = letter.end()
        if pattern.startswith(_REPEATED, place):
            break
        found += letter[0][-1]
    return found


def glob_prefix(glob: str) -> tuple[str, bool]:
    """What each text that matches a shell pattern begins with; and whether all such texts match."""
    found = re.match(r"[^*?\[]*", glob)
    prefix = found[0] if found else ""
    rest = glob[len(prefix) :]
    return prefix, bool(rest) and not rest.strip("*")


def behind_prefix(prefix: str) -> str | None:
    """The first text, by code points, after all those that begin with a prefix; None: there is none."""
    for end in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[end]) + 1
        if code <= 0x10FFFF:
            return prefix[:end] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
    return None
