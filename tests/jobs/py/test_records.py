"""Reading and validation of JSONL records."""
import json

import pytest

from cli import INPUT, Failure
from records import read_records

QUESTION = {"question": "q", "choices": ["a", "b"], "answer": 1}


def failure_of(path):
    """The error that reading the file gives."""
    with pytest.raises(Failure) as caught:
        read_records(path, "forget")
    assert caught.value.code == INPUT
    assert str(caught.value).startswith("error: ") and "\n" not in str(caught.value)
    return str(caught.value)


def test_every_kind_is_read(write_jsonl):
    path = write_jsonl(
        "data.jsonl",
        {"prompt": "p", "answer": "a", "wrong_answers": ["b"], "paraphrase": "c", "other": 1},
        {**QUESTION, "id": "mine"},
        {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}]},
        {"text": "t"})
    answer, choice, conversation, text = read_records(path, "forget")
    assert (answer.prompt, answer.answer, answer.paraphrase) == ("p", "a", "c")
    assert answer.candidates == ("a", "b") and answer.answer_index == 0
    assert (choice.prompt, choice.answer, choice.answer_index) == ("q", "b", 1)
    assert choice.candidates == ("a", "b")
    assert conversation.messages[-1] == {"role": "assistant", "content": "v"}
    assert text.text == "t"
    assert [r.id for r in (answer, choice, text)] == ["forget:1", "mine", "forget:4"]


def test_a_prompt_without_wrong_answers_has_no_candidates(write_jsonl):
    record, = read_records(write_jsonl("data.jsonl", {"prompt": "p", "answer": "a"}), "forget")
    assert record.candidates == () and record.answer_index == -1


def test_blank_lines_are_skipped_but_counted(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\n{"text": "t"}\r\n\n{"text": "u"}')
    assert [record.id for record in read_records(path, "set")] == ["set:2", "set:4"]


def test_content_is_the_same_for_the_same_fact(write_jsonl):
    one, two = read_records(write_jsonl("data.jsonl", {"prompt": "The  Q\n", "answer": "STRASSE"},
                                        {"question": "the q", "choices": ["x", "straße"],
                                         "answer": 1}), "forget")
    assert one.content == two.content


MESSAGE = {"role": "user", "content": "u"}


@pytest.mark.parametrize(("line", "what"), [
    (b'{"text": "\xff"}', "not UTF-8 (byte 11)"),
    (b'{"text": ', "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"[1]", "not a JSON object"),
    ({}, "unknown shape"),
    ({"answer": "a", "query": "b"}, "unknown shape (keys: answer, query)"),
    ({"prompt": "p", "answer": "a", "text": "t"}, "unknown shape"),
    ({"prompt": "p"}, '"answer" is missing'),
    ({"prompt": 1, "answer": "a"}, '"prompt" is not a string'),
    ({"prompt": "p", "answer": " "}, '"answer" is not a string with text'),
    ({"prompt": "p", "answer": "\ud800"}, '"answer" holds half a surrogate pair'),
    ({"text": "t", "id": 7}, '"id" is not a string'),
    ({"text": "t", "paraphrase": "p"}, '"paraphrase" does not belong'),
    ({**QUESTION, "wrong_answers": ["x"]}, '"wrong_answers" does not belong'),
    ({"prompt": "p", "answer": "a", "wrong_answers": "b"}, '"wrong_answers" is not a list'),
    ({"prompt": "p", "answer": "a", "wrong_answers": [1]}, '"wrong_answers" is not a string'),
    ({"prompt": "p", "answer": "a", "wrong_answers": ["a"]}, '"wrong_answers" holds the answer'),
    ({"prompt": "p", "answer": "a", "paraphrase": 1}, '"paraphrase" is not a string'),
    ({"question": "q", "answer": 1}, '"choices" is missing'),
    ({**QUESTION, "choices": ["a"]}, '"choices" holds 1 texts'),
    ({**QUESTION, "choices": [str(i) for i in range(27)]}, '"choices" holds 27 texts'),
    ({**QUESTION, "choices": ["a", "a"]}, '"choices" holds the same text twice'),
    ({**QUESTION, "choices": ["a", 1]}, '"choices" is not a string'),
    ({**QUESTION, "answer": "b"}, '"answer" is not an integer'),
    ({**QUESTION, "answer": True}, '"answer" is not an integer'),
    ({**QUESTION, "answer": 2}, '"answer" is 2'),
    ({**QUESTION, "answer": -1}, '"answer" is -1'),
    ({"messages": [MESSAGE]}, '"messages" is not a list of two or more'),
    ({"messages": [MESSAGE, "x"]}, "a message has no known role"),
    ({"messages": [{"role": "tool", "content": "x"}, MESSAGE]}, "a message has no known role"),
    ({"messages": [{"role": "user"}, MESSAGE]}, '"content" is missing'),
    ({"messages": [MESSAGE, MESSAGE]}, "the last message is not the assistant's"),
])
def test_a_bad_line_is_named(tmp_path, line, what):
    path = tmp_path / "data.jsonl"
    line = line if isinstance(line, bytes) else json.dumps(line).encode()
    path.write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    message = failure_of(path)
    assert what in message and f", {path}:2, " in message


def test_an_id_is_used_once(write_jsonl):
    path = write_jsonl("data.jsonl", {"text": "t", "id": "x"}, {"text": "u", "id": "x"})
    assert f'id "x" was used before in {path}:1, {path}:2' in failure_of(path)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_an_error(tmp_path, content):
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    assert f"file holds no record, {path}" in failure_of(path)


def test_a_missing_file_is_an_error(tmp_path):
    assert "cannot read the data (No such file" in failure_of(tmp_path / "none.jsonl")
