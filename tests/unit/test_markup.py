"""HTML for notebooks: whatever the text, it stays text."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from engineroom import markup

#: The tags and attributes that the module writes.
TAGS = {"b", "span", "code", "pre", "div", "details", "summary", "progress"}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"style", "open", "value", "max"}


class Reader(HTMLParser):
    """Collects the tags and the text of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        assert {name for name, _ in attributes} <= ATTRIBUTES
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


@given(st.text() | st.sampled_from(["<script>", "'\"><img src=x onerror=y>", "<!--", "</pre></div>", "&lt;"]))
def test_no_text_becomes_a_tag(text: str):
    html = markup.block(
        markup.bold(text),
        markup.details(markup.quiet(text), markup.pre(text), markup.code(text), is_open=True),
        markup.table((text, "b"), [(text, text)]),
        markup.facts([("name", text), ("missing", None)]),
    )
    assert len(Reader(html).tags) == len(Reader(markup.block(
        markup.bold(""),
        markup.details(markup.quiet(""), markup.pre(""), markup.code(""), is_open=True),
        markup.table(("", "b"), [("", "")]),
        markup.facts([("name", ""), ("missing", None)]),
    )).tags)  # fmt: skip


def test_text_is_shown_without_codes_for_terminals():
    assert Reader(markup.text("\x1b[31mred\x1b[0m \x07bell")).words == ["red bell"]


def test_long_text_is_cut():
    assert len(markup.text("x" * 10**6)) < markup.MOST + 10
    assert len(Reader(markup.table((), [("x" * 10**4,)])).words[0]) < markup.MOST_IN_CELL + 10


def test_html_is_put_in_as_it_is_and_only_once_escaped():
    assert markup.text(markup.text("a < b")) == "a &lt; b"
    assert markup.join(markup.bold("x"), "<") == "<b>x</b>&lt;"


def test_words():
    assert markup.plural(1, "task") == "1 task"
    assert markup.plural(2000, "task") == "2,000 tasks"
    assert 'value="3" max="4"' in markup.bar(3, 4)
    assert 'max="1"' in markup.bar(0, 0)
