"""The page is well formed, needs nothing else, and gives away nothing about the machine's folders."""

from __future__ import annotations

import base64
import getpass
import io
import re
import socket
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from PIL import Image

from sciml.tour import page
from sciml.tour.chapter import Chapter, Code, Outcome, Section

pytestmark = pytest.mark.xdist_group("tour")  # one process makes what all of these look at

if TYPE_CHECKING:
    from conftest import Visit

VOID = {"meta", "img", "br", "hr", "link", "input"}
SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"


class Reader(HTMLParser):
    """Checks that tags are closed in the order they were opened, and gathers what the page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def drawings(reader: Reader) -> list[bytes]:
    prefix = "data:image/svg+xml;base64,"
    sources = [image["src"] or "" for image in reader.all("img")]
    assert all(source.startswith(prefix) for source in sources)
    return [base64.b64decode(source[len(prefix) :], validate=True) for source in sources]


@pytest.fixture(scope="module")
def reader(visit: Visit) -> Reader:
    return read(visit.page)


def test_the_page_is_well_formed(reader: Reader) -> None:
    assert [tag for tag, _ in reader.tags][:2] == ["html", "head"]
    assert len(reader.all("h1")) == 1
    identifiers = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)


def test_the_contents_lead_to_the_sections(reader: Reader, visit: Visit) -> None:
    targets = [link["href"] for link in reader.all("a")]
    assert targets == [f"#{outcome.section.name}" for outcome in visit.outcomes]
    assert [section["id"] for section in reader.all("section")] == [target[1:] for target in targets if target]


def test_the_page_needs_nothing_else(reader: Reader, visit: Visit) -> None:
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in reader.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), f"<{tag} {name}={value[:80]}>"
        assert not [name for name in attributes if name.startswith("on")]
    without_images = re.sub(r"data:[^\"]*", "", visit.page)
    assert not re.search(r"https?:|@import|url\(", without_images)


def test_every_picture_can_be_decoded_and_is_described(reader: Reader) -> None:
    rasters = 0
    assert all(image["alt"] for image in reader.all("img"))
    for drawing in drawings(reader):
        root = ElementTree.fromstring(drawing)
        assert root.tag == f"{SVG}svg"
        for element in root.iter():
            target = element.get(LINK) or element.get("href")
            assert target is None or target.startswith(("#", "data:image/png;base64,"))
            if element.tag == f"{SVG}image" and target:
                with Image.open(io.BytesIO(base64.b64decode(target.partition(",")[2]))) as raster:
                    raster.load()
                    assert min(raster.size) > 1
                rasters += 1
        assert not re.search(rb"url\((?!#)|<script|@import", drawing)
    assert rasters >= 10


def test_pictures_follow_the_colour_scheme(reader: Reader) -> None:
    for drawing in drawings(reader):
        assert b"prefers-color-scheme:dark" in drawing
        defined = set(re.findall(rb"(--c\w+):", drawing))
        used = set(re.findall(rb"var\((--c\w+)\)", drawing))
        assert used
        assert used <= defined


def test_nothing_tells_of_the_machines_folders(reader: Reader, visit: Visit) -> None:
    texts = [re.sub(r"data:[^\"]*", "", visit.page), (visit.folder / "demo.json").read_text(encoding="utf-8")]
    texts += [re.sub(rb"data:[^\"]*", b"", drawing).decode() for drawing in drawings(reader)]
    root = Path(__file__).resolve().parents[3]
    places = {str(Path.home()), str(root), str(visit.folder), tempfile.gettempdir(), "site-packages"} - {"/"}
    for text in texts:
        assert not [place for place in places if re.search(rf"{re.escape(place)}(/|\b)", text)]
    names = {socket.gethostname()} - {"localhost"}
    if getpass.getuser() != "root":
        names.add(getpass.getuser())
    for name in names:
        assert not re.search(rf"\b{re.escape(name)}\b", texts[0] + texts[1])


def test_the_page_says_what_every_claim_says(reader: Reader, visit: Visit) -> None:
    text = " ".join("".join(reader.text).split())
    for outcome in visit.outcomes:
        for claim in outcome.chapter.claims:
            assert claim.text.replace("`", "") in text


def render(*chapters: tuple[Section, Chapter]) -> str:
    return page.render([Outcome(section, chapter) for section, chapter in chapters], {"threads": "2"}, 1.0)


def test_text_is_escaped() -> None:
    chapter = Chapter()
    chapter.say("a < b & `c > d` <script>alert(1)</script>")
    chapter.facts({"<i>": "x & y"})
    chapter.claim("1 < 2", 1 < 2)
    chapter.table(["<b>", "n"], [["<u>", "1"]], "caption <p>")
    chapter.headline = "<h1>"
    reader = read(render((Section("x", "A <title>", lambda chapter, quick: None), chapter)))
    assert not {tag for tag, _ in reader.tags} & {"script", "i", "b", "u"}
    assert "a < b & c > d <script>alert(1)</script>" in "".join(reader.text).replace("\n", " ")


def test_code_keeps_its_text_and_shows_its_parts() -> None:
    source = 'def f(x: int) -> str:\n    # a < b\n    text = f"{x:.2f} & more"\n\n    return text + "é" * 2'
    html = page.to_html(Code(source))
    assert "".join(read(html).text) == source
    assert '<i class="k">return</i>' in html
    assert '<i class="c"># a &lt; b</i>' in html


def test_claims_that_follow_one_another_are_one_list() -> None:
    chapter = Chapter()
    for holds in (True, False, True):
        chapter.claim("this holds", holds)
    chapter.say("text")
    chapter.claim("that too", True)
    html = render((Section("x", "X", lambda chapter, quick: None), chapter))
    read(html)
    assert html.count('<ul class="claims">') == 2
    assert html.count('<li class="fails">') == 1
    assert "4 of 5" not in html
    assert "3 of 4 hold" in html
