"""Sections that fail, that are left out, and what the program makes of them."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sciml import InputError, command_line, tour
from sciml.tour import Chapter, Section


def good(chapter: Chapter, quick: bool) -> None:
    chapter.say("It went well.")
    chapter.claim("One is one.", True)
    chapter.headline = f"quick: {quick}"
    chapter.numbers = {"value": torch.tensor([1.0, 2.0]), "bad": float("nan")}


def bad(chapter: Chapter, quick: bool) -> None:
    chapter.say("This was written before.")
    raise ValueError("a <number> went missing")


def wrong(chapter: Chapter, quick: bool) -> None:
    chapter.claim("Two is one.", False)


GOOD = Section("good", "A good one", good)
BAD = Section("bad", "A bad one", bad)
WRONG = Section("wrong", "A wrong one", wrong)
MISSING = Section("missing", "One that needs more", good, needs=("no_such_library",), extra="demo")


def test_a_section_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    outcomes = tour.run([BAD, GOOD], quick=True, say=lines.append)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert outcomes[0].reason == "ValueError: a <number> went missing"
    assert lines[0] == "[1/2] A bad one"
    assert "FAILED: ValueError" in lines[1]
    assert lines[3].endswith("quick: True")
    assert "Traceback" in capsys.readouterr().err


def test_a_false_claim_is_a_failure() -> None:
    (outcome,) = tour.run([WRONG])
    assert outcome.status == "failed"
    assert "Two is one." in outcome.reason


def test_a_section_whose_library_is_missing_says_so() -> None:
    (outcome,) = tour.run([MISSING])
    assert outcome.status == "left out"
    assert "no_such_library" in outcome.reason
    assert "pip install 'sciml-torch[demo]'" in outcome.reason
    assert outcome.chapter.blocks == []


def test_page_and_numbers_show_what_failed(tmp_path: Path) -> None:
    outcomes = tour.run([GOOD, BAD, WRONG, MISSING])
    html, numbers = tour.write(outcomes, tmp_path / "new" / "folder", quick=False, seconds=75.0)
    page = html.read_text(encoding="utf-8")
    assert "Not everything went well: 2 sections failed." in page
    assert "This was written before." in page
    assert "This section failed: ValueError: a &lt;number&gt; went missing" in page
    assert "This section was left out" in page
    assert "1 of 4 done" in page
    assert "1 min 15 s" in page
    content = json.loads(numbers.read_text(encoding="utf-8"))
    assert [section["status"] for section in content["sections"]] == ["done", "failed", "failed", "left out"]
    assert content["sections"][0]["numbers"] == {"value": [1.0, 2.0], "bad": None}
    assert content["sections"][2]["claims"] == [{"text": "Two is one.", "holds": False}]
    assert sorted(path.name for path in html.parent.iterdir()) == ["demo.html", "demo.json"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no folder"):
        tour.demo(tmp_path / "file", True)


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(command_line.app, ["demo", *(str(argument) for argument in arguments)])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("sections", "code"),
    [([GOOD], 0), ([GOOD, MISSING], 0), ([BAD, GOOD], 1), ([WRONG], 1)],
    ids=["good", "left out", "failed", "false claim"],
)
def test_the_program_says_by_its_exit_code_whether_all_went_well(
    sections: list[Section], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sciml.tour.program.SECTIONS", sections)
    found, output = invoke("--quick", "--output", tmp_path / "out")
    assert found == code
    assert (tmp_path / "out" / "demo.html").is_file()
    assert "demo.html" in output
    assert json.loads((tmp_path / "out" / "demo.json").read_text())["quick"] is True


def test_the_program_refuses_a_file_before_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciml.tour.program.SECTIONS", [BAD])
    (tmp_path / "file").write_text("")
    code, output = invoke("--output", tmp_path / "file")
    assert code == 2
    assert "is no folder" in output
    assert "A bad one" not in output


def test_a_full_disk_is_said_and_the_old_page_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciml.tour.program.SECTIONS", [GOOD])
    (tmp_path / "demo.html").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, output = invoke("--output", tmp_path)
    assert code == 1
    assert "No space left" in output
    assert (tmp_path / "demo.html").read_text() == "old"
