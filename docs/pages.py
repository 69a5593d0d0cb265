"""What the pages of this folder hold: their order; what a tutorial does, part by part, and how that is run."""

import io
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import nbformat

DOCS = Path(__file__).parent
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
PART = re.compile(
    r"^```(?P<language>\w+)\n(?P<block>.*?)^```$\n?"
    r"|^(?P<commands>    msm [^\n]*\n(?:    [^\n]*\n)*)"
    r"|^!\[[^\]]*\]\(images/(?P<picture>[^)]*)\)\n",
    re.DOTALL | re.MULTILINE,
)
SAVED = re.compile(r"^Save this as `(.*)`", re.MULTILINE)


class Part(NamedTuple):
    """A part of a tutorial: prose, or what the reader does.

    `kind` is prose, python, text (what the Python before prints), file (`name` and `text`), commands or picture
    (`name`: the file that the tutorial made, from the folder it runs in).
    """

    kind: str
    text: str
    name: str = ""


def sections() -> dict[str, list[str]]:
    """Pages of each part of docs/README.md, in its order: paths from this folder, without suffix."""
    text = (DOCS / "README.md").read_text()
    found = re.split(r"^\*\*(\w[\w ]*)\*\*", text, flags=re.MULTILINE)[1:]
    titles = zip(found[::2], found[1::2], strict=True)
    return {title: list(dict.fromkeys(re.findall(r"\]\(([\w/-]+)\.md\)", part))) for title, part in titles}


def parts(page: Path) -> Iterator[Part]:
    """A tutorial in the order of its page."""
    text, at = page.read_text(), 0
    for match in PART.finditer(text):
        before = text[at : match.start()]
        if before.strip():
            yield Part("prose", before.strip("\n"))
        at = match.end()
        if match["commands"]:
            yield Part("commands", re.sub("^    ", "", match["commands"], flags=re.MULTILINE))
        elif match["picture"]:
            yield Part("picture", match[0], match["picture"].removeprefix(f"{page.stem}/"))
        elif match["language"] == "yaml":
            yield Part("file", match["block"], SAVED.findall(before)[-1])
        else:
            yield Part(match["language"], match["block"])
    yield Part("prose", text[at:].strip("\n"))


def run(page: Path, msm: Callable[[list[str]], object]) -> None:
    """Do what a tutorial says, in the current folder: Python in one namespace, commands by `msm`, given their words.

    Raises:
        AssertionError: if Python prints something else than the page says, or a picture is not made.
    """
    namespace: dict[str, object] = {"__name__": "page"}
    printed = ""
    for part in parts(page):
        if part.kind == "python":
            out = io.StringIO()
            with redirect_stdout(out):
                exec(compile(part.text, page.name, "exec"), namespace)
            printed = out.getvalue()
        elif part.kind == "text":
            assert printed == part.text, f"{page.name}: the block above prints {printed!r}"
        elif part.kind == "file":
            Path(part.name).write_text(part.text)
        elif part.kind == "commands":
            for command in part.text.replace("\\\n", "").splitlines():
                msm(shlex.split(command)[1:])
        elif part.kind == "picture":
            assert Path(part.name).is_file(), f"{page.name}: {part.name} is not made"


def notebook(page: Path) -> nbformat.NotebookNode:
    """The tutorial as a notebook; links to other pages, which are not beside it, become text."""
    cells = []
    for part in parts(page):
        if part.kind == "prose":
            cells.append(nbformat.v4.new_markdown_cell(re.sub(r"(?<!!)\[([^\]]*)\]\([^)\s:]+\)", r"\1", part.text)))
        elif part.kind != "text":
            cells.append(nbformat.v4.new_code_cell(as_code(part)))
    for number, cell in enumerate(cells):
        cell["id"] = f"{page.stem}-{number}"  # the same at every build
    found = nbformat.v4.new_notebook(cells=cells)
    found.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.validate(found)
    return found


def as_code(part: Part) -> str:
    """What a notebook runs."""
    if part.kind == "file":
        return f"%%writefile {part.name}\n{part.text}".rstrip()
    if part.kind == "commands":
        return re.sub("^msm ", "!msm ", part.text, flags=re.MULTILINE).rstrip()
    if part.kind == "picture":
        return f'from IPython.display import Image\n\nImage("{part.name}")'
    return part.text.rstrip()
