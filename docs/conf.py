"""The site of the documentation, made by Sphinx of the pages as they are: `make docs` writes it to build/site.

Sources are all Markdown pages of the repository, at their paths, so that links lead the same way here and on a code
host. What the site adds is made here: the navigation (the order of docs/README.md), a page of docstrings for each file
that holds public names, and the tutorials as notebooks.
"""

import ast
import re
import shutil
import sys
from pathlib import Path

import nbformat
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "docs"), str(ROOT / "src")]

import pages  # noqa: E402

project = "msm"
copyright = "the msm maintainers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "README"
AROUND = ["CONTRIBUTING", "CHANGELOG", "SECURITY", "benchmarks/README", "src/msm/assets/README"]
API = "docs/reference/api"  # an ignored folder
include_patterns = [f"{name}.md" for name in (root_doc, *AROUND)] + ["docs/**.md", f"{API}/*.rst"]
exclude_patterns = [".*", "build", "runs", "tests"]

html_theme = "furo"
html_title = "msm"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
pygments_style, pygments_dark_style = "tango", "monokai"
highlight_language = "none"  # of indented blocks: commands and formulas

myst_heading_anchors = 4  # as GitHub makes them
default_role = "py:obj"  # docstrings have names in single backticks: a link where the name is public
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
napoleon_custom_sections = ["Source"]
napoleon_use_rtype = False


def write_api(app: Sphinx) -> None:
    """A page for each file whose names `msm/__init__.pyi` makes public, and a list of them all."""
    stub = ast.parse((ROOT / "src/msm/__init__.pyi").read_text())
    names: dict[str, list[str]] = {}
    for line in stub.body:
        names.setdefault(f"msm.{line.module}", []).extend(alias.name for alias in line.names)
    found, rows = {}, []
    for module, public in sorted(names.items()):
        text = [module, "=" * len(module), "", f".. automodule:: {module}", ""]
        for name in public:
            described = (
                f".. autoclass:: msm.{name}\n   :members:" if name[0].isupper() else f".. autofunction:: msm.{name}"
            )
            text += [described, ""]
        found[f"{module}.rst"] = "\n".join(text)
        rows.append(f"* :doc:`{module}`: {', '.join(f':py:obj:`~msm.{name}`' for name in public)}")
    entries = [f"   {module}" for module in sorted(names)]
    index = ["Public names", "============", "", *rows, "", ".. toctree::", "   :hidden:", "", *entries, ""]
    found["index.rst"] = "\n".join(index)
    folder = ROOT / API
    folder.mkdir(exist_ok=True)
    for file in set(folder.iterdir()) - {folder / name for name in found}:
        file.unlink()
    for name, written in found.items():
        if not (folder / name).exists() or (folder / name).read_text() != written:
            (folder / name).write_text(written)


def plain_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text with names in backticks: signs are not markup, what is set off keeps its lines."""
    found: list[str] = []
    formula = False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not formula and len(found) > 1 and not found[-1] and not found[-2].startswith(" "):
            formula = True
            found += ["::", ""]
        formula = formula and (indented or not line)
        found.append(line if formula else re.sub(r"`[^`]*`|[*|_\\]", lambda sign: escaped(sign[0]), line))
    lines[:] = found


def escaped(sign: str) -> str:
    """The same for reStructuredText, if it is not code."""
    return sign if sign.startswith("`") else f"\\{sign}"


def adapt_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """What a code host shows by itself: folders, the file of public names; and the navigation."""
    here = (ROOT / docname).parent
    if docname.startswith(API):
        return

    def link(match: re.Match[str]) -> str:
        target = here / match[2]
        if target.name == "__init__.pyi":
            return f"[{match[1]}](/{API}/index.rst)"
        return match[1] if target.is_dir() else match[0]

    source[0] = re.sub(r"\[([^\]]*)\]\(([^)\s:#]+)\)", link, source[0])
    if docname == root_doc:
        source[0] += navigation()
    if here == pages.TUTORIALS[0].parent:
        name = Path(docname).name
        title, _, rest = source[0].partition("\n")
        source[0] = f'{title}\n\n<a href="{name}.ipynb" download>As a notebook</a>\n{rest}'


def navigation() -> str:
    """Tables of contents that are not shown on the page itself."""
    parts = {"": ["docs/README"]}
    parts |= {title: [f"docs/{page}" for page in found] for title, found in pages.sections().items()}
    parts["Reference"].append(f"{API}/index")
    parts["Project"] = AROUND
    blocks = []
    for title, names in parts.items():
        caption = [f":caption: {title}"] if title else []
        blocks.append("\n".join(["```{toctree}", ":hidden:", *caption, "", *(f"/{name}" for name in names), "```"]))
    return "\n\n" + "\n\n".join(blocks) + "\n"


def finish(app: Sphinx, exception: Exception | None) -> None:
    """The first page under the name that browsers and servers look for; the notebooks."""
    if exception is None:
        shutil.copy(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))
        for page in pages.TUTORIALS:
            nbformat.write(pages.notebook(page), Path(app.outdir, "docs/tutorials", f"{page.stem}.ipynb"))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_api)
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)  # before napoleon
    app.connect("source-read", adapt_page)
    app.connect("build-finished", finish)
