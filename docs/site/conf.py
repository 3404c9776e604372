"""How Sphinx builds the site: from the Markdown pages of docs/ and of the top folder, and from docstrings.

The sources' root is the top folder, so a link from one page to another is the same in the site and in the repository.
`docs/site/build.py` starts Sphinx with this file. Decision 043 says why Sphinx, and not another tool.
"""

from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

from engineroom import __version__

project = "Engineroom"
version = release = __version__
project_copyright = "the Engineroom authors"
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# ---------------------------------------------------------------------------------------------- which files are pages

root_doc = "docs/index"
include_patterns = ["docs/**", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = ["docs/site"]

# ---------------------------------------------------------------------------------------------- Markdown, docstrings

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # a link to `page.md#a-heading` is checked
highlight_language = "text"  # blocks that name no language are for a terminal
default_role = "code"  # docstrings write `name` in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
napoleon_google_docstring = False
napoleon_use_param = False  # types in docstrings are for people: "sequence of msg_id" is no link
napoleon_use_rtype = False
toc_object_entries_show_parents = "hide"

# ---------------------------------------------------------------------------------------------- the look

# The theme brings its scripts, styles and icons with it, and uses the fonts of the reader's system: a page of the site
# asks no other address. `tests/test_site.py` looks.
html_theme = "pydata_sphinx_theme"
html_title = "Engineroom"
html_static_path = ["static"]
html_css_files = ["engineroom.css"]
html_extra_path = ["root"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "Engineroom"},
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_sidebars = {"docs/index": []}

# ---------------------------------------------------------------------------------------------- links to folders


def _unlink_folders(app: Sphinx, doctree: nodes.document) -> None:
    """Links to folders of the repository become their text: a site has no page for a folder."""
    page = Path(app.env.doc2path(app.env.docname))
    for link in list(doctree.findall(pending_xref)):
        target = str(link.get("reftarget", ""))
        if target.endswith("/") and (page.parent / target).is_dir():
            link.parent.replace(link, link.children)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("doctree-read", _unlink_folders)
