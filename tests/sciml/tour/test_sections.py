"""What the sections claim is true, and where a method loses the page says so; the page is well formed, needs nothing
else, and gives away nothing about the machine's folders."""

from __future__ import annotations

import base64
import getpass
import importlib.util
import io
import itertools
import math
import re
import socket
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from sciml.benchmarks.linear.peers import MULTIGRID_CG, RUGE_STUBEN, SCIPY_CG, SCIPY_DIRECT, SMOOTHED_AGGREGATION
from sciml.benchmarks.row import Row
from sciml.tour import SECTIONS, Chapter, hard_coefficients, learned_solvers, page, shapes, shock
from sciml.tour.chapter import Code, Outcome, Paragraph, Section, Table
from sciml.tour.comparison import _verdict

if TYPE_CHECKING:
    from conftest import Visit

NAMES = [section.name for section in SECTIONS]
VOID = {"meta", "img", "br", "hr", "link", "input"}
SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"


@pytest.mark.parametrize("name", NAMES)
def test_every_section_is_done_and_its_claims_hold(name: str, visit: Visit) -> None:
    outcome = visit.outcomes[NAMES.index(name)]
    assert (outcome.status, outcome.reason) == ("done", "")
    assert outcome.chapter.claims
    assert all(claim.holds for claim in outcome.chapter.claims)
    assert outcome.chapter.headline
    assert outcome.chapter.numbers


@pytest.mark.parametrize("name", NAMES)
def test_the_code_fits_on_the_page(name: str, visit: Visit) -> None:
    blocks = visit.outcomes[NAMES.index(name)].chapter.blocks
    lines = [line for block in blocks if isinstance(block, Code) for line in block.text.splitlines()]
    assert [line for line in lines if len(line) > 84] == []


def test_poisson(visit: Visit) -> None:
    numbers = visit.numbers("poisson")
    assert numbers["relative_residual"] <= 1e-8
    assert numbers["imbalance"] <= 1e-7
    assert 0 < numbers["maximum"] < 1


def test_jumping_coefficient(visit: Visit) -> None:
    numbers = visit.numbers("jumping-coefficient")
    assert numbers["iterations"]["multigrid"] <= 9
    assert numbers["iterations"]["Jacobi"] > 100
    assert numbers["imbalance"] <= 1e-6
    assert numbers["minimum"] > 0


def test_obstacles(visit: Visit) -> None:
    numbers = visit.numbers("obstacles")
    assert numbers["imbalance"] <= 1e-10
    assert 0 < numbers["inflow"] < 0.5  # what flows through the empty channel


def test_boundaries(visit: Visit) -> None:
    numbers = visit.numbers("boundaries")
    assert numbers["neumann_mean"] <= 1e-12
    assert "there is no solution" in numbers["refusal"]
    assert numbers["floor_imbalance"] <= 1e-10
    assert 0 < numbers["floor_loss"] < 0.5


def test_convergence(visit: Visit) -> None:
    orders = visit.numbers("convergence")["orders"]
    assert orders["2"] == pytest.approx(2, abs=0.1)
    assert orders["4"] == pytest.approx(4, abs=0.1)


def test_scan(visit: Visit) -> None:
    numbers = visit.numbers("scan")
    assert numbers["imbalance"] <= 1e-10
    assert 0.5 < numbers["share"] < 1  # of what flows through the empty channel
    assert abs(numbers["volume_errors"][-1]) <= 0.01
    # The body that is made: the area of its section, on average, times the length of its line.
    t = torch.linspace(0, 2 * math.pi, 20_001, dtype=torch.float64)[1:]
    reach = 1 + 0.5 * torch.cos(3 * t)
    length = (2.25 + (2 * reach) ** 2).sqrt().mean() * 2 * math.pi
    assert numbers["volume"] == pytest.approx(float(length) * math.pi * 0.27**2 * (1 + 0.12**2 / 2), rel=0.03)
    assert f"{numbers['open_edges']} are open" in numbers["refusals"][0]
    assert "flipped" in numbers["refusals"][1]
    assert 0 < numbers["wrong_by_winding"] <= 0.01


def test_part(visit: Visit) -> None:
    numbers = visit.numbers("part")
    assert numbers["smallest_angle"] > 20
    assert numbers["imbalance"] <= 1e-10
    heat = numbers["heat"]
    assert heat["shaft"] == pytest.approx(20e3 * 2 * math.pi * 0.016, rel=0.01)  # a polygon in the place of a circle
    assert heat["pin"] < 0
    assert heat["rim"] < 0
    assert 35 < numbers["coldest"] < 40  # the rim behind the pin, between pin and air
    assert numbers["hottest"] > 100
    assert numbers["stored_alike"]
    body = numbers["body"]
    assert body["imbalance"] <= 1e-6
    assert body["heat"]["shaft"] == pytest.approx(heat["shaft"] * 0.012, rel=1e-9)  # 12 mm thick
    assert body["heat"]["faces"] < body["heat"]["rim"] < 0
    assert 40 < body["hottest"] < numbers["hottest"]
    for kind in ("triangles", "tetrahedra"):
        assert numbers["orders"][kind]["L2"] == pytest.approx(2, abs=0.1)
        assert numbers["orders"][kind]["H1"] == pytest.approx(1, abs=0.1)


def test_neural_equations(visit: Visit) -> None:
    numbers = visit.numbers("neural-equations")
    vanilla, cheap = (numbers["evaluations"][name] for name in ("vanilla", "errors in the loss"))
    assert cheap[0] == vanilla[0]  # before the first epoch they are the same
    assert cheap[-1] < vanilla[-1]
    assert numbers["to_1e-6"]["errors in the loss"] < numbers["to_1e-6"]["vanilla"]
    for accuracy in numbers["accuracy"].values():
        assert len(accuracy) == numbers["epochs"] + 1
        assert accuracy[0] < 30
        assert accuracy[-1] > 93


def test_the_link_is_as_large_flat_and_thick_as_it_is_drawn() -> None:
    flat = shapes.make_link(0.003)
    body = shapes.thicken(flat, 0.012, 3)
    (_, large), (apart, small) = shapes.ENDS
    lean = math.acos((large - small) / apart)
    discs = large**2 * (math.pi - lean) + small**2 * lean + apart * math.sin(lean) * (large + small)
    bores = math.pi * (shapes.SHAFT[1] ** 2 + shapes.PIN[1] ** 2)
    assert float(flat.volume) == pytest.approx(discs - bores, rel=0.01)  # chords in the place of arcs
    assert float(body.volume) == pytest.approx(0.012 * float(flat.volume), rel=1e-12)
    areas = {name: float(body.facet_areas[part].sum()) for name, part in body.boundaries.items()}
    for name in ("shaft", "pin", "rim"):
        length = float(flat.facet_areas[flat.boundary(name)].sum())
        assert areas[name] == pytest.approx(0.012 * length, rel=1e-12)
    assert areas["faces"] == pytest.approx(2 * float(flat.volume), rel=1e-12)
    assert sum(areas.values()) == pytest.approx(2 * areas["exterior"], rel=1e-12)
    for name in ("bush", "steel"):
        inside = float(flat.volumes[flat.region(name)].sum())
        assert float(body.volumes[body.region(name)].sum()) == pytest.approx(0.012 * inside, rel=1e-12)


def test_hard_coefficients(visit: Visit) -> None:
    numbers = visit.numbers("hard-coefficients")
    counts = numbers["iterations"]
    assert numbers["residual"] <= 1.01e-8
    assert numbers["imbalance"] <= 1e-6
    assert numbers["lengths"][0] > 3 * numbers["lengths"][1]
    assert min(count["Jacobi"] for count in counts.values()) >= 300
    for name in (
        "jumps by 1e6, two values",
        "spacings 2 to 1",
        "spacings 8 to 1",
        "spacings 32 to 1",
        "fibres along x",
    ):
        assert counts[name]["multigrid"] <= 12
    if numbers["compared_with_pyamg"]:
        assert all(count["multigrid"] <= 2 * count["Ruge-Stuben"] for count in counts.values())


def test_without_pyamg_the_section_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pyamg" else find(name))
    monkeypatch.setattr(hard_coefficients, "_ruge_stuben", None)
    chapter = Chapter()
    rocks = {"two values": hard_coefficients._two_values(24), "blocks": hard_coefficients._blocks(24)}
    hard_coefficients._compare(chapter, rocks, 24, 300)
    text = " ".join(block.text for block in chapter.blocks if isinstance(block, Paragraph))
    assert "pyamg is left out, since it is not installed here" in text
    (table,) = (block for block in chapter.blocks if isinstance(block, Table))
    assert table.head == ("problem", "multigrid", "Jacobi", "unknowns")
    assert all(len(line) == 4 for line in table.rows)
    assert all(claim.holds for claim in chapter.claims)


def test_nonlinear(visit: Visit) -> None:
    numbers = visit.numbers("nonlinear")
    assert numbers["steps"]["Newton"] <= 9
    assert numbers["steps"]["Picard"] > 2 * numbers["steps"]["Newton"]
    assert numbers["exponent"] == pytest.approx(2, abs=0.3)
    assert numbers["spread"] <= 1e-8
    assert numbers["gradient_agreement"] <= 1e-6
    assert numbers["steps_on_triangles"] <= 9
    assert numbers["triangles_apart"] <= 5e-3
    assert numbers["least_sensitivity"] > 0  # heat nowhere cools
    tops = dict(zip(numbers["branch"]["lambda"], numbers["branch"]["maximum"], strict=True))
    rises = [later - earlier for earlier, later in itertools.pairwise(tops.values())]
    assert rises == sorted(rises)  # the branch is convex
    assert numbers["reached"] == pytest.approx(6.808, rel=0.01)
    assert numbers["status"] == "STAGNATED"


def test_recovery(visit: Visit) -> None:
    numbers = visit.numbers("recovery")
    assert numbers["error"] < 0.5
    assert numbers["correlation"] > 0.9
    assert numbers["losses"][-1] < numbers["losses"][0] / 10
    assert numbers["gradient_agreement"] <= 1e-5


def test_batch(visit: Visit) -> None:
    numbers = visit.numbers("batch")
    assert len(numbers["iterations"]) == numbers["rows"] == 16
    assert numbers["difference"] <= 1e-6
    assert max(numbers["contrast"]) > 100


def test_warming(visit: Visit) -> None:
    numbers = visit.numbers("warming")
    assert numbers["imbalance"] <= 1e-10
    assert numbers["steady_difference"] <= 1e-6
    bush, neck, rim = zip(*numbers["probes"], strict=True)
    for curve in (bush, neck, rim):
        assert curve[0] == pytest.approx(20)
        assert min(curve) > 20 - 1e-2
        warmest = curve.index(max(curve)) * 2400.0 / (len(curve) - 1)
        assert 840 <= warmest <= 1200  # about when the shaft stops, and later far from it
    assert max(neck) < max(bush)
    assert neck.index(max(neck)) > bush.index(max(bush))


def test_ring(visit: Visit) -> None:
    numbers = visit.numbers("ring")
    growth = numbers["growth"]
    assert growth["measured"] == pytest.approx([k**2 - k**4 for k in growth["wavenumber"]], abs=1e-8)
    assert max(growth["measured"]) == pytest.approx(0.25, abs=0.01)
    assert numbers["mean"] <= 1e-13
    assert 0.038 <= numbers["exponent"] <= 0.053


def test_turbulence(visit: Visit) -> None:
    numbers = visit.numbers("turbulence")
    for falling in (numbers["energy"], numbers["enstrophy"]):
        assert falling == sorted(falling, reverse=True)
    shares = [numbers[name][-1] / numbers[name][0] for name in ("energy", "enstrophy")]
    assert shares[1] < shares[0] < 1
    assert numbers["budget"] <= 1e-10
    assert abs(numbers["spent"]) <= 1e-5
    assert numbers["taylor_green"] <= 1e-12
    assert max(numbers["inviscid"]) <= 1e-7


def test_patterns(visit: Visit) -> None:
    numbers = visit.numbers("patterns")
    growth = numbers["growth"]
    assert growth["measured"] == pytest.approx(growth["exact"], rel=1e-4)
    assert min(growth["measured"]) < 0 < max(growth["measured"]) < 0.005
    assert numbers["budget"] <= 1e-12
    assert numbers["least"] > 0
    assert all(0.1 < covered < 0.9 for covered in numbers["covered"])


def test_shock(visit: Visit) -> None:
    numbers = visit.numbers("shock")
    assert numbers["exact_front"] == pytest.approx(0.1 + math.sqrt(0.54))
    assert abs(numbers["front"] - numbers["exact_front"]) * numbers["cells"] <= 1
    assert numbers["overshoot"] <= 1e-6
    assert numbers["overshoot_without_limiter"] > 0.2
    assert numbers["mass"] <= 1e-14
    assert numbers["orders"]["smooth, t = 0.1"] == pytest.approx(2, abs=0.2)
    assert numbers["orders"]["a shock, t = 0.4"] == pytest.approx(1, abs=0.15)
    assert numbers["orders"]["a block, t = 0.5"] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("t", [0.0, 0.1, 0.3, 0.6, 0.8])
def test_the_exact_waves_satisfy_the_conservation_law(t: float) -> None:
    """The mean of the sine stays 1/2 and of the block 0.3; between shocks u is what it was at x - u t."""
    x = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    assert float(shock.sine(x, t).mean()) == pytest.approx(0.5, abs=1e-4)
    assert float(shock.block(x, t).mean()) == pytest.approx(0.3, abs=1e-4)
    u = shock.sine(x, t)
    back = 0.5 + torch.sin(2 * math.pi * (x - u * t))
    torch.testing.assert_close(back, u, rtol=0, atol=1e-9)


def test_sensitivity(visit: Visit) -> None:
    numbers = visit.numbers("sensitivity")
    assert numbers["forward_error"] <= 1e-7
    assert numbers["adjoint_error"] <= 1e-10
    assert numbers["checkpointed_error"] <= 1e-13
    assert numbers["exact_error"] <= 1e-9


def test_learning(visit: Visit) -> None:
    numbers = visit.numbers("learning")
    errors = list(numbers["errors"].values())
    nothing, coarse, fine = (entry["L2"] for entry in errors)
    assert coarse < 0.7 * nothing
    assert fine < 1.5 * coarse
    assert all(entry["L2"] < entry["H1"] for entry in errors)
    assert coarse < numbers["worst"]
    assert len(numbers["loss"]) == numbers["steps"]
    assert numbers["loss"][-1] < numbers["loss"][0] / 3
    counts = numbers["iterations"]
    assert counts["CG + Jacobi from operator"] < counts["CG + Jacobi from zero"]
    assert counts["CG + Multigrid from operator"] <= counts["CG + Multigrid from zero"]
    assert numbers["apart"] <= 1e-2  # of the solver from the operator's answer, whose own error is ten times as large


def test_learned_solvers(visit: Visit) -> None:
    numbers = visit.numbers("learned-solvers")
    counts = numbers["iterations"]
    learned = counts["CG + LearnedMultigrid"]
    assert 3 * learned <= counts["CG"]
    assert learned < counts["CG + IC(0)"]
    assert learned < counts["the same, random weights"]
    assert numbers["residuals"]["CG + LearnedMultigrid"] <= 1.01e-8
    assert numbers["direct"] <= 1e-5
    assert numbers["spread"] <= 1e-5
    assert len(numbers["random"]) == 5
    for family in numbers["families"].values():
        assert 3 * family["CG + LearnedMultigrid"] <= family["CG"]
        assert family["CG + LearnedMultigrid"] < family["CG + IC(0)"]
    assert 4 * numbers["directions"]["deep"] <= numbers["directions"]["CG"]


def test_the_page_says_where_a_learned_preconditioner_loses() -> None:
    worse = {"CG + Multigrid": 5, "CG + LearnedMultigrid": 9, "the same, untrained": 30}
    assert learned_solvers._verdict(worse).startswith("Geometric multigrid takes fewer iterations here, 5 against 9")
    idle = {"CG + Multigrid": 9, "CG + LearnedMultigrid": 6, "the same, untrained": 7}
    assert "without any training it takes 7 iterations, and what it learned spares 1" in learned_solvers._verdict(idle)
    assert learned_solvers._verdict({**idle, "the same, untrained": 30}) == ""


def test_tuned_solvers(visit: Visit) -> None:
    numbers = visit.numbers("tuned-solvers")
    counts = numbers["iterations"]
    fixed = [count for name, count in counts.items() if name.startswith("relaxation")]
    assert len(fixed) in (5, 6)  # and the best in hindsight
    assert counts["tuned, a second time"] < counts["tuned"] < min(fixed)
    assert counts[numbers["best_fixed"]] == min(fixed)
    assert numbers["best_of_every_step"] < counts["tuned"]
    assert numbers["apart"] <= 1e-6
    assert numbers["resumed"]
    assert len(numbers["relaxations"]) == numbers["steps"]
    assert 1 <= min(numbers["relaxations"]) < max(numbers["relaxations"]) <= 1.95


def test_comparison(visit: Visit) -> None:
    rows = [Row.from_json(row) for row in visit.numbers("comparison")["rows"]]
    assert len({row.case for row in rows}) == 2
    for case in {row.case for row in rows}:
        methods = {row.method for row in rows if row.case == case}
        assert {MULTIGRID_CG, "CG", "Direct", SCIPY_CG, SCIPY_DIRECT, RUGE_STUBEN, SMOOTHED_AGGREGATION} <= methods
    for row in rows:
        assert row.relative_residual is not None
        assert row.relative_residual <= 1.01e-8
        assert row.version
        assert row.total_seconds


def row(method: str, seconds: float, library: str = "pyamg", missed: bool = False) -> Row:
    extra = {"total_seconds": seconds, "missed": missed}
    return Row("tour", "case", method, library, "1.0", unknowns=100, extra=extra)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([row("A", 5.0)], "CG + Multigrid is quickest, 2.5 times as quick as A of pyamg"),
        ([row("CG", 3.0, "sciml"), row("A", 5.0)], "CG + Multigrid is quickest, 2.5 times as quick as A of pyamg"),
        (
            [row("A", 0.5), row("B", 1.0)],
            "A of pyamg is quickest; CG + Multigrid is number 3 and takes 4.0 times as long",
        ),
        ([row("A", 0.5, missed=True)], "CG + Multigrid is quickest, no other finished"),
    ],
    ids=["won", "won against our own", "lost", "alone"],
)
def test_the_verdict_names_the_winner(rows: list[Row], verdict: str) -> None:
    assert _verdict([row(MULTIGRID_CG, 2.0, "sciml"), *rows]) == f"on 100 unknowns {verdict}"


def test_the_verdict_of_a_method_that_missed_the_tolerance() -> None:
    missed = _verdict([row(MULTIGRID_CG, 0.1, "sciml", missed=True), row("A", 5.0)])
    assert missed == "on 100 unknowns A of pyamg is quickest; CG + Multigrid missed the tolerance"


def test_names_and_titles_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert len({section.title for section in SECTIONS}) == len(NAMES)
    assert all(name.replace("-", "").isalnum() and name == name.lower() for name in NAMES)


def test_numbers_are_plain(visit: Visit) -> None:
    def check(item: object) -> None:
        if isinstance(item, dict):
            for value in item.values():
                check(value)
        elif isinstance(item, list):
            for value in item:
                check(value)
        else:
            assert item is None or isinstance(item, str | bool | int | float)
            assert not isinstance(item, float) or math.isfinite(item)

    check(visit.content)
    assert visit.content["quick"] is True
    assert [section["name"] for section in visit.content["sections"]] == NAMES


# The page


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
