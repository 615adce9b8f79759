"""Results as labels, a table, JSON lines and CSV."""

import csv
import json

import pytest

from litelens.api.response_schemas import GroupConfidence, LabelConfidence, Model, Photo, Timing
from litelens_client.answers import Answer, Classified, Failed, Result
from litelens_client.output import (
    COLUMNS,
    csv_lines,
    failure_sentence,
    json_lines,
    label_lines,
    printable,
    table,
)

NOT_UTF8 = b"caf\xe9.jpg".decode(errors="surrogateescape")
FAILED = Failed("text.jpg", "not_an_image", "It is no image.", "request-1")


def classified(
    name: str = "rocket.jpg", *, uncertain: bool = False, label: str = "rocket", group: str = ""
) -> Classified:
    answer = Answer(
        model=Model("pets", "1.0.0"),
        image=Photo("JPEG", 640, 427),
        predictions=[LabelConfidence(label, 69, 0.875), LabelConfidence("pickup_truck", 58, 0.0625)],
        uncertain=uncertain,
        timing_ms=Timing(1.0, 2.0, 3.0),
        **({"group": GroupConfidence(group, 0.9)} if group else {}),
    )
    return Classified(name, answer)


def rows(*results: Result) -> list[dict[str, str]]:
    """Return the rows as a CSV reader sees them."""
    return list(csv.DictReader("".join(csv_lines(results)).splitlines(keepends=True)))


def test_each_label_of_an_image_is_a_line() -> None:
    assert "".join(label_lines([classified()])) == "rocket         87.5%\npickup_truck    6.2%\n"


def test_an_uncertain_image_gets_a_line_that_says_so() -> None:
    assert "Uncertain" in "".join(label_lines([classified(uncertain=True)]))


def test_the_table_has_a_row_for_each_image_and_a_line_for_each_problem() -> None:
    header, *lines, problem = "".join(table([classified(uncertain=True), FAILED, classified("b.jpg")])).splitlines()
    assert header.split() == ["image", "label", "confidence", "doubt"]
    assert [line.split() for line in lines] == [
        ["rocket.jpg", "rocket", "87.5%", "uncertain"],
        ["text.jpg", "failed"],
        ["b.jpg", "rocket", "87.5%"],
    ]
    assert problem == "text.jpg: It is no image. (request request-1)"


def test_a_narrow_terminal_does_not_fold_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("litelens_client.output.UNLIMITED_WIDTH", None)
    detail = "The bytes are not an image of a kind that is read here; send one."
    text = "".join(table([classified("a.jpg"), Failed("folder/b.jpg", "not_an_image", detail)]))
    assert text.splitlines()[-1] == f"folder/b.jpg: {detail}"
    assert max(len(line) for line in text.splitlines()[:-1]) <= 40


def test_a_table_without_results_is_empty() -> None:
    assert list(table([])) == []


def test_the_name_of_a_failed_image_is_not_repeated() -> None:
    assert (
        failure_sentence(Failed("a.jpg", "unreadable", "a.jpg cannot be read: Gone.")) == "a.jpg cannot be read: Gone."
    )
    assert failure_sentence(Failed("a.jpg", "not_an_image", "It is none.")) == "a.jpg: It is none."


def test_without_a_terminal_the_table_is_not_folded() -> None:
    name = "photos/" * 100 + "a.jpg"
    assert name in "".join(table([classified(name)]))


def test_names_in_the_table_are_not_markup() -> None:
    text = "".join(table([classified("[red]a[/red].jpg", label=":cat: [b]x")]))
    assert "[red]a[/red].jpg" in text
    assert ":cat: [b]x" in text


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\x1b[31mb.jpg", "a\rb.jpg", NOT_UTF8, "a\u202egpj.exe"])
def test_names_cannot_move_the_cursor(name: str) -> None:
    text = "".join(
        [*table([classified(name), Failed(name, "unreadable", name)]), *label_lines([classified(label=name)])]
    )
    assert not {"\x1b", "\r", "\u202e", "\udce9"} & set(text)
    assert len(text.splitlines()) == 4 + 2
    assert printable(name) in text


def test_letters_of_all_languages_are_printable() -> None:
    assert printable("Grüße 写真 🚀.jpg") == "Grüße 写真 🚀.jpg"


def test_a_json_line_is_the_answer_with_its_source() -> None:
    (line,) = json_lines([classified(group="vehicles")])
    document = json.loads(line)
    assert list(document)[:2] == ["source", "status"]
    assert (document["source"], document["status"]) == ("rocket.jpg", "done")
    assert document["model"] == {"name": "pets", "version": "1.0.0"}
    assert document["predictions"][0] == {"label": "rocket", "index": 69, "confidence": 0.875}
    assert document["group"] == {"label": "vehicles", "confidence": 0.9}


def test_a_json_line_is_the_problem_with_its_source() -> None:
    (line,) = json_lines([FAILED])
    problem = {"code": "not_an_image", "detail": "It is no image.", "request_id": "request-1"}
    assert json.loads(line) == {"source": "text.jpg", "status": "failed", "problem": problem}


@pytest.mark.parametrize("name", ["a\nb.jpg", NOT_UTF8, "写真.jpg", 'quote".jpg'])
def test_json_keeps_unusual_names_on_one_line_of_ascii(name: str) -> None:
    (line,) = json_lines([classified(name)])
    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line)["source"] == name


def test_lines_are_printed_as_results_arrive() -> None:
    def results() -> list[Result]:
        yield classified()
        raise AssertionError("the second result was requested")

    assert "rocket" in next(json_lines(results()))
    lines = csv_lines(results())
    assert next(lines) == ",".join(COLUMNS) + "\r\n"
    assert "rocket" in next(lines)


def test_csv_has_a_row_for_each_image_and_each_problem() -> None:
    done, failed = rows(classified(group="vehicles", uncertain=True), FAILED)
    assert tuple(done) == COLUMNS
    assert tuple(done.values()) == ("rocket.jpg", "rocket", "0.875", "true", "", "vehicles", "pets/1.0.0", "", "")
    assert tuple(failed.values()) == ("text.jpg", "", "", "", "", "", "", "not_an_image", "It is no image.")


@pytest.mark.parametrize("name", ["a,b.jpg", 'quote".jpg', "two\nlines.jpg", "two\rlines.jpg", " space.jpg", NOT_UTF8])
def test_csv_keeps_unusual_names(name: str) -> None:
    assert [row["image"] for row in rows(classified(name), classified("b.jpg"))] == [name, "b.jpg"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_csv_cell_is_a_formula(text: str) -> None:
    done, failed = rows(classified(text, label=text, group=text), Failed(text, "unreadable", text))
    assert {done["image"], done["label"], done["group"], failed["image"], failed["error"]} == {f"'{text}"}
