"""Results as text."""

import csv
import json

import pytest

from client.output import COLUMNS, csv_lines, json_lines, labels, named, printable, table
from client.results import Answer, Failed, Labelled, Result
from handlers.answers import GroupConfidence, LabelConfidence, Model, Photo, Timing

NOT_UTF8 = b"caf\xe9.jpg".decode(errors="surrogateescape")
FAILED = Failed("text.jpg", "not_an_image", "It is no image.", "request-1")


def labelled(name: str = "rocket.jpg", *, uncertain: bool = False, label: str = "rocket", group: str = "") -> Labelled:
    answer = Answer(
        model=Model("pets", "1.0.0"),
        image=Photo("JPEG", 640, 427),
        predictions=[LabelConfidence(label, 69, 0.875), LabelConfidence("pickup_truck", 58, 0.0625)],
        uncertain=uncertain,
        timing_ms=Timing(1.0, 2.0, 3.0),
        **({"group": GroupConfidence(group, 0.9)} if group else {}),
    )
    return Labelled(name, answer)


def rows(*results: Result) -> list[dict[str, str]]:
    """What a reader of CSV makes of it."""
    return list(csv.DictReader("".join(csv_lines(results)).splitlines(keepends=True)))


def test_one_image_gets_a_line_for_each_label() -> None:
    assert "".join(labels([labelled()])) == "rocket         87.5%\npickup_truck    6.2%\n"


def test_one_image_is_said_to_be_uncertain() -> None:
    assert "".join(labels([labelled(uncertain=True)])).endswith("uncertain.\n")


def test_the_table_has_a_row_for_each_image_or_its_problem() -> None:
    header, *lines, problem = "".join(table([labelled(uncertain=True), FAILED, labelled("b.jpg")])).splitlines()
    assert header.split() == ["image", "label", "confidence", "uncertain"]
    assert [line.split() for line in lines] == [
        ["rocket.jpg", "rocket", "87.5%", "uncertain"],
        ["text.jpg", "failed"],
        ["b.jpg", "rocket", "87.5%"],
    ]
    assert problem == "text.jpg: It is no image. (request request-1)"


def test_a_narrow_terminal_does_not_fold_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("client.output.UNLIMITED_WIDTH", None)
    detail = "The bytes are not an image of a kind that is read here; send one."
    text = "".join(table([labelled("a.jpg"), Failed("folder/b.jpg", "not_an_image", detail)]))
    assert text.splitlines()[-1] == f"folder/b.jpg: {detail}"
    assert max(len(line) for line in text.splitlines()[:-1]) <= 40


def test_a_table_of_nothing_is_nothing() -> None:
    assert list(table([])) == []


def test_a_problem_that_begins_with_its_name_is_not_named_twice() -> None:
    assert named(Failed("a.jpg", "unreadable", "a.jpg cannot be read: Gone.")) == "a.jpg cannot be read: Gone."
    assert named(Failed("a.jpg", "not_an_image", "It is none.")) == "a.jpg: It is none."


def test_the_table_is_not_folded_where_there_is_no_terminal() -> None:
    name = "photos/" * 100 + "a.jpg"
    assert name in "".join(table([labelled(name)]))


def test_the_table_takes_no_name_for_markup() -> None:
    text = "".join(table([labelled("[red]a[/red].jpg", label=":cat: [b]x")]))
    assert "[red]a[/red].jpg" in text
    assert ":cat: [b]x" in text


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\x1b[31mb.jpg", "a\rb.jpg", NOT_UTF8, "a\u202egpj.exe"])
def test_no_name_moves_the_cursor(name: str) -> None:
    text = "".join([*table([labelled(name), Failed(name, "unreadable", name)]), *labels([labelled(label=name)])])
    assert not {"\x1b", "\r", "\u202e", "\udce9"} & set(text)
    assert len(text.splitlines()) == 4 + 2
    assert printable(name) in text


def test_letters_of_all_languages_are_shown_as_they_are() -> None:
    assert printable("Grüße 写真 🚀.jpg") == "Grüße 写真 🚀.jpg"


def test_a_line_of_json_is_the_answer_with_its_source() -> None:
    (line,) = json_lines([labelled(group="vehicles")])
    document = json.loads(line)
    assert list(document)[:2] == ["source", "status"]
    assert (document["source"], document["status"]) == ("rocket.jpg", "done")
    assert document["model"] == {"name": "pets", "version": "1.0.0"}
    assert document["predictions"][0] == {"label": "rocket", "index": 69, "confidence": 0.875}
    assert document["group"] == {"label": "vehicles", "confidence": 0.9}


def test_a_line_of_json_is_the_problem_with_its_source() -> None:
    (line,) = json_lines([FAILED])
    problem = {"code": "not_an_image", "detail": "It is no image.", "request_id": "request-1"}
    assert json.loads(line) == {"source": "text.jpg", "status": "failed", "problem": problem}


@pytest.mark.parametrize("name", ["a\nb.jpg", NOT_UTF8, "写真.jpg", 'quote".jpg'])
def test_json_keeps_every_name_in_one_line_of_ascii(name: str) -> None:
    (line,) = json_lines([labelled(name)])
    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line)["source"] == name


def test_lines_come_as_the_results_do() -> None:
    def results() -> list[Result]:
        yield labelled()
        raise AssertionError("this one was not asked for")

    assert "rocket" in next(json_lines(results()))
    lines = csv_lines(results())
    assert next(lines) == ",".join(COLUMNS) + "\r\n"
    assert "rocket" in next(lines)


def test_csv_has_a_row_for_each_image_or_its_problem() -> None:
    done, failed = rows(labelled(group="vehicles", uncertain=True), FAILED)
    assert tuple(done) == ("image", "label", "confidence", "uncertain", "group", "error_code", "error")
    assert tuple(done.values()) == ("rocket.jpg", "rocket", "0.875", "true", "vehicles", "", "")
    assert tuple(failed.values()) == ("text.jpg", "", "", "", "", "not_an_image", "It is no image.")


@pytest.mark.parametrize("name", ["a,b.jpg", 'quote".jpg', "two\nlines.jpg", "two\rlines.jpg", " space.jpg", NOT_UTF8])
def test_csv_keeps_every_name(name: str) -> None:
    assert [row["image"] for row in rows(labelled(name), labelled("b.jpg"))] == [name, "b.jpg"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    done, failed = rows(labelled(text, label=text, group=text), Failed(text, "unreadable", text))
    assert {done["image"], done["label"], done["group"], failed["image"], failed["error"]} == {f"'{text}"}
