"""What tasks display, seen in the cell that asked: HTML, pictures, plots; from cells and from functions."""

from __future__ import annotations

import base64

from support.notebooks import Notebook

PNG = b"\x89PNG\r\n"


def is_picture(bundle: dict[str, str]) -> bool:
    """Whether a mime bundle has a PNG picture."""
    return base64.b64decode(bundle.get("image/png", "")).startswith(PNG)


def test_what_a_function_displays_is_shown(notebook: Notebook):
    cell = notebook.run(
        "def f(text):\n"
        "    from IPython.display import HTML, display\n"
        "    display(HTML(f'<b>{text}</b>'), metadata={'text/html': {'isolated': True}})\n"
        "    return len(text)\n"
        "ar = rc[:].apply_async(f, 'from a function')\n"
        "ar.display_outputs()\n"
        "ar.get()"
    )
    assert [bundle.get("text/html") for bundle in cell.bundles] == ["<b>from a function</b>"] * 2 + [None]
    assert cell.outputs[1].metadata == {"text/html": {"isolated": True}}
    assert "[output:0]" in cell.text
    assert notebook.value("[len(each) for each in ar.outputs]") == "[1, 1]"
    assert "[output:" not in notebook.run("single = rc[0].apply_async(f, 'x'); single.display_outputs()").text


def test_display_that_travels_with_the_function_works(notebook: Notebook):
    """`display` is a name of the notebook's own namespace: it comes along."""
    cell = notebook.run(
        "from IPython.display import Markdown\n"
        "ar = rc.load_balanced_view().map_async(lambda i: display(Markdown(f'**{i}**')), range(3))\n"
        "ar.display_outputs(groupby='order')"
    )
    assert [bundle["text/markdown"] for bundle in cell.bundles] == ["**0**", "**1**", "**2**"]


def test_what_is_displayed_anew_replaces_what_was(notebook: Notebook):
    cell = notebook.run(
        "def f():\n"
        "    from IPython.display import HTML, clear_output, display\n"
        "    display(HTML('gone'))\n"
        "    clear_output()\n"
        "    handle = display(HTML('step 1'), display_id=True)\n"
        "    display(HTML('beside'))\n"
        "    handle.update(HTML('step 2'))\n"
        "rc[0].apply_async(f).display_outputs()"
    )
    assert [bundle["text/html"] for bundle in cell.bundles] == ["step 2", "beside"]


def test_outputs_of_a_task_that_failed_are_kept(notebook: Notebook):
    cell = notebook.run(
        "def f():\n"
        "    from IPython.display import HTML, display\n"
        "    display(HTML('<b>so far</b>'))\n"
        "    1 / 0\n"
        "failed = rc[0].apply_async(f); failed.wait(); failed.display_outputs(); failed.get()"
    )
    assert cell.bundles[0]["text/html"] == "<b>so far</b>"
    assert "ZeroDivisionError" in cell.error.ename


def test_plots_of_cells_are_shown_with_the_magic_and_without(notebook: Notebook):
    assert notebook.run("%px %matplotlib inline").error is None
    cell = notebook.run("%%px\nimport matplotlib.pyplot as plt\n_ = plt.plot([1, 3, 2])")
    assert list(map(is_picture, cell.bundles)) == [True, True]
    assert all("Figure" in bundle["text/plain"] for bundle in cell.bundles)


def test_plots_of_functions_are_shown(notebook: Notebook):
    cell = notebook.run(
        "def f():\n"
        "    import matplotlib.pyplot as plt\n"
        "    plt.figure(); plt.plot([1, 2]); plt.show()\n"
        "    plt.figure(); plt.plot([2, 1]); plt.show()\n"
        "ar = rc[0].apply_async(f); ar.wait()\n"
        "with ar.stream_output(): ar.wait()"
    )
    assert cell.error is None, cell
    assert list(map(is_picture, cell.bundles)) == [True, True]


def test_an_image_is_shown_and_is_in_the_record(notebook: Notebook):
    cell = notebook.run(
        "def f():\n"
        "    from IPython.display import Image, display\n"
        f"    display(Image(data={PNG + b'rest'!r}, format='png', width=40))\n"
        "ar = rc[0].apply_async(f); ar.display_outputs()\n"
        "[record] = rc.db_query({'msg_id': ar.msg_ids[0]}, keys=['result_content'])\n"
        "again = er.Client(rc.connection).get_result(ar.msg_ids[0])\n"
        "again.display_outputs()\n"
        "sorted(record['result_content']['outputs'][0]['data'])"
    )
    assert list(map(is_picture, cell.bundles)) == [True, True, False]
    assert [o.metadata for o in cell.outputs if "image/png" in o.get("data", {})] == [{"image/png": {"width": 40}}] * 2
    assert cell.bundles[-1]["text/plain"] == "['image/png', 'text/plain']"


def test_a_window_system_is_refused_with_a_word(notebook: Notebook):
    cell = notebook.run("%%px --targets 0\n%gui qt")
    assert "no windows" in cell.stderr
