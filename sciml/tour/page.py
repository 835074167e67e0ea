"""The tour as one HTML page that needs nothing else: no scripts, no fonts, no files, no network."""

from __future__ import annotations

import base64
import io
import keyword
import re
import tokenize
from collections.abc import Mapping, Sequence
from functools import singledispatch
from html import escape
from importlib.resources import files

from .chapter import Block, Claim, Code, Facts, Formula, Outcome, Paragraph, Pictures, Table

_STATES = {"done": "", "failed": "failed", "left out": "left out"}


def render(outcomes: Sequence[Outcome], machine: Mapping[str, str], seconds: float) -> str:
    """The page.

    Args:
        outcomes: the sections in order.
        machine: facts about where it ran, label -> value.
        seconds: how long the whole tour took.
    """
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    claims = [claim for outcome in outcomes for claim in outcome.chapter.claims]
    held = sum(claim.holds for claim in claims)
    summary = {"sections": f"{sum(o.status == 'done' for o in outcomes)} of {len(outcomes)} done"}
    summary |= {"statements checked": f"{held} of {len(claims)} hold", "whole tour": _duration(seconds)}
    contents = "\n".join(_entry(number, outcome) for number, outcome in enumerate(outcomes, 1))
    sections = "\n".join(_section(number, outcome) for number, outcome in enumerate(outcomes, 1))
    alarm = f'<p class="alarm">Not everything went well: {_count(failed)} failed.</p>' if failed else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>A tour of sciml</title>
<style>
{_style()}
</style>
</head>
<body>
<header>
<p class="mark">sciml</p>
<h1>From an equation in text to its solution</h1>
<p class="lead"><code>sciml</code> takes a partial differential equation as text, a domain and boundary conditions, and
returns the solution as a tensor, on the CPU or the GPU, with a true residual, statistics and a gradient through the
solve. This page was written by one run of <code>sciml demo</code>: every picture, number and statement about a result
on it comes from that run, and the code shown is the code that ran.</p>
{alarm}
{_facts({**machine, **summary})}
</header>
<nav>
<h2>Contents</h2>
<ol>
{contents}
</ol>
</nav>
<main>
{sections}
</main>
<footer>
<p>The numbers of this page stand in <code>demo.json</code> beside it.</p>
</footer>
</body>
</html>
"""


def _entry(number: int, outcome: Outcome) -> str:
    section = outcome.section
    state = _STATES[outcome.status]
    remark = f'<em class="state">{state}</em>' if state else _inline(outcome.chapter.headline)
    return (
        f'<li><a href="#{section.name}"><span class="number">{number}</span><span class="title">'
        f'{escape(section.title)}</span></a><span class="remark">{remark}</span></li>'
    )


def _section(number: int, outcome: Outcome) -> str:
    section = outcome.section
    body = "\n".join(_blocks(outcome.chapter.blocks))
    if outcome.status != "done":
        word = "This section failed" if outcome.status == "failed" else "This section was left out"
        body += f'\n<p class="alarm">{word}: {_inline(outcome.reason)}</p>'
    return f"""<section id="{section.name}">
<h2><span class="number">{number}</span>{escape(section.title)}</h2>
{body}
<p class="time">Ran in {_duration(outcome.seconds)}.</p>
</section>"""


def _blocks(blocks: Sequence[Block]) -> list[str]:
    """Every block as HTML; claims that follow one another are one list."""
    parts: list[str] = []
    for index, block in enumerate(blocks):
        text = to_html(block)
        if isinstance(block, Claim):
            if index == 0 or not isinstance(blocks[index - 1], Claim):
                text = f'<ul class="claims">\n{text}'
            if index + 1 == len(blocks) or not isinstance(blocks[index + 1], Claim):
                text += "\n</ul>"
        parts.append(text)
    return parts


@singledispatch
def to_html(block: Block) -> str:
    """A block as HTML."""
    raise TypeError(f"no HTML for a {type(block).__name__}")


@to_html.register
def _(block: Paragraph) -> str:
    return f"<p>{_inline(block.text)}</p>"


@to_html.register
def _(block: Formula) -> str:
    lines = "\n".join(_image(drawing, latex) for latex, drawing in block.lines)
    return f'<div class="formula">\n<div class="set">{lines}</div>\n<code>{escape(block.text)}</code>\n</div>'


@to_html.register
def _(block: Code) -> str:
    return f"<pre><code>{_highlight(block.text)}</code></pre>"


@to_html.register
def _(block: Facts) -> str:
    return _facts(dict(block.entries))


@to_html.register
def _(block: Claim) -> str:
    return f'<li class="{"holds" if block.holds else "fails"}">{_inline(block.text)}</li>'


@to_html.register
def _(block: Pictures) -> str:
    kind = {1: "one", 2: "two"}.get(len(block.panels), "three") + (" broad" if block.broad else "")
    panels = "\n".join(_image(drawing, words) for drawing, words in block.panels)
    return (
        f'<figure>\n<div class="panels {kind}">\n{panels}\n</div>\n'
        f"<figcaption>{_inline(block.caption)}</figcaption>\n</figure>"
    )


@to_html.register
def _(block: Table) -> str:
    head = "".join(f'<th scope="col">{_inline(cell)}</th>' for cell in block.head)
    rows = []
    for index, row in enumerate(block.rows):
        cells = f'<th scope="row">{_inline(row[0])}</th>' + "".join(f"<td>{_inline(cell)}</td>" for cell in row[1:])
        mark = ' class="strong"' if index in block.strong else ""
        rows.append(f"<tr{mark}>{cells}</tr>")
    body = "\n".join(rows)
    kind = "table wide" if len(block.head) > 6 else "table"
    return (
        f'<figure class="{kind}">\n<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n'
        f"</tbody>\n</table></div>\n<figcaption>{_inline(block.caption)}</figcaption>\n</figure>"
    )


def _facts(entries: Mapping[str, str]) -> str:
    items = "\n".join(
        f"<div><dt>{escape(label)}</dt><dd>{_inline(value)}</dd></div>" for label, value in entries.items()
    )
    return f'<dl class="facts">\n{items}\n</dl>'


def _image(drawing: bytes, words: str) -> str:
    """An SVG inside the page; it cannot reach anything outside, being an image."""
    data = base64.b64encode(drawing).decode()
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(words)}">'


def _inline(text: str) -> str:
    """Escaped text; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


_CLASSES = {tokenize.COMMENT: "c", tokenize.STRING: "s", tokenize.NUMBER: "n"}
for _name in ("FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END"):  # Python 3.12 and later
    if hasattr(tokenize, _name):
        _CLASSES[getattr(tokenize, _name)] = "s"


def _highlight(source: str) -> str:
    """Python source with its keywords, strings, numbers and comments marked."""
    lines = source.splitlines(keepends=True)
    parts, line, column = [], 1, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        (first, start), (last, stop) = token.start, token.end
        while line < first:
            parts.append(escape(lines[line - 1][column:]))
            line, column = line + 1, 0
        if line <= len(lines):
            parts.append(escape(lines[line - 1][column:start]))
        text = escape(token.string)
        kind = "k" if token.type == tokenize.NAME and keyword.iskeyword(token.string) else _CLASSES.get(token.type)
        parts.append(f'<i class="{kind}">{text}</i>' if kind else text)
        line, column = last, stop
    return "".join(parts).rstrip()


def _count(outcomes: Sequence[Outcome]) -> str:
    return "one section" if len(outcomes) == 1 else f"{len(outcomes)} sections"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


def _style() -> str:
    return (files(__package__) / "page.css").read_text(encoding="utf-8").strip()
