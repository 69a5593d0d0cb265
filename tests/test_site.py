"""The site of the documentation: builds without warnings, its links lead somewhere, it fits a phone."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from filelock import FileLock
from sphinx.util.inventory import InventoryFile

import msm

ROOT = Path(__file__).parents[1]
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"


@pytest.fixture(scope="module")
def site(tmp_path_factory, worker_id) -> Path:
    """The site, built once for all processes that run tests; warnings are errors."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "site"
    with FileLock(f"{folder}.lock"):
        if not (folder / "index.html").exists():
            command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", ".", folder]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    return folder


class Page(HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.anchors.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag != "link" or not {"prev", "next", "index", "search", "genindex"} & set(given["rel"].split()):
            self.loads += [given[key] for key in ("href", "src", "srcset", "data") if given.get(key)]


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_is_there(site):
    sources = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    missing = [path for path in sources if not (site / path.relative_to(ROOT)).with_suffix(".html").exists()]
    assert not missing


def test_every_public_name_is_described(site):
    described = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    names = {name for kind in described.values() for name in kind}
    assert {f"msm.{name}" for name in msm.__all__} <= names


def test_links_and_anchors_lead_somewhere(pages):
    for path, page in pages.items():
        for link in (*page.links, *page.loads):
            target = urlsplit(link)
            if target.scheme:
                continue
            file = (path.parent / unquote(target.path)).resolve() if target.path else path
            assert file.is_file(), f"{path.name}: {link}"
            if target.fragment and file in pages:
                assert unquote(target.fragment) in pages[file].anchors, f"{path.name}: {link}"


def test_nothing_comes_from_elsewhere(site, pages):
    for path, page in pages.items():
        assert not [each for each in page.loads if urlsplit(each).scheme not in ("", "data")], path.name
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text()), style.name


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_no_page_scrolls_sideways(site, pages, width, scheme):
    """Wide tables and code scroll in their box; and no page asks the network, or has an error."""
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.exists():
        pytest.skip(f"the site is not opened in a browser: {CHROMIUM} is missing (apt-get install chromium)")
    asked, errors = [], []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS.split(), timeout=180_000)
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: errors.append(message.text))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        for path in pages:
            tab.goto(path.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, path.relative_to(site)
        browser.close()
    assert not [url for url in asked if not url.startswith(("file:", "data:"))] and not errors
