"""JSONL records: reading and validation.

A line of a file is one of
  {"prompt": str, "answer": str}                        optional "wrong_answers": [str, ...]
  {"question": str, "choices": [str, ...], "answer": int}
  {"messages": [{"role": str, "content": str}, ...]}    the last message is the answer
  {"text": str}
with an optional "id" (str), and in the first two an optional "paraphrase" (str, the answer in other
words). Other keys are ignored.
"""
import json
import re
from dataclasses import dataclass
from pathlib import Path

from cli import Failure

MAX_CHOICES = 26  # as many as there are letters
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Record:
    """One validated line. Fields that its kind lacks are empty."""
    where: str
    id: str
    prompt: str = ""
    answer: str = ""
    choices: tuple = ()
    answer_index: int = -1
    wrong_answers: tuple = ()
    paraphrase: str = ""
    messages: tuple = ()
    text: str = ""

    @property
    def candidates(self):
        """The answers to compare in the open form; the right one is `candidates[answer_index]`."""
        if self.wrong_answers:
            return (self.answer, *self.wrong_answers)
        return self.choices

    @property
    def content(self):
        """Everything the record says, for finding the same record in another set."""
        messages = " ".join(message["content"] for message in self.messages)
        return normalise(f"{self.prompt} {self.answer} {messages} {self.text}")


def normalise(text):
    """Casefold and collapse white space."""
    return " ".join(text.casefold().split())


def read_records(path, set_name):
    """Read and validate every line of a JSONL file."""
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise Failure(f"cannot read the data ({error.strerror})", path, "check the path") from error
    records, seen = [], {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record = parse_line(line, f"{path}:{number}", f"{set_name}:{number}")
        if record.id in seen:
            raise Failure(f'id "{record.id}" was used before in {seen[record.id]}', record.where,
                          "give every record its own id")
        seen[record.id] = record.where
        records.append(record)
    if not records:
        raise Failure("file holds no record", path, "write one JSON object a line")
    return records


def parse_line(line, where, default_id):
    """Turn one line into a Record."""
    try:
        fields = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Failure(f"line is not UTF-8 (byte {error.start + 1})", where,
                      "save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise Failure(f"line is not JSON ({error})", where,
                      "write one JSON object a line") from error
    if not isinstance(fields, dict):
        raise Failure("line is not a JSON object", where, "write one JSON object a line")
    return Reader(fields, where).record(default_id)


class Reader:
    """Typed access to the fields of one line."""

    def __init__(self, fields, where):
        self.fields, self.where = fields, where

    def fail(self, what, remedy):
        """An error at this line."""
        raise Failure(what, self.where, remedy)

    def record(self, default_id):
        """The validated record."""
        kinds = {"prompt": self.prompt_answer, "question": self.multiple_choice,
                 "messages": self.conversation, "text": self.plain_text}
        present = [kind for key, kind in kinds.items() if key in self.fields]
        if len(present) != 1:
            self.fail("record has an unknown shape (keys: " + ", ".join(self.fields) + ")",
                      "give it exactly one of the keys prompt or question or messages or text")
        identity = self.string("id") if "id" in self.fields else default_id
        record = present[0](identity)
        for name in ("wrong_answers", "paraphrase"):
            if name in self.fields and not getattr(record, name):
                self.fail(f'"{name}" does not belong to this shape of record', "remove it")
        return record

    def prompt_answer(self, identity):
        """{"prompt", "answer"}"""
        answer = self.string("answer")
        wrong = self.strings("wrong_answers") if "wrong_answers" in self.fields else ()
        if answer in wrong:
            self.fail('"wrong_answers" holds the answer', "remove it there")
        return Record(self.where, identity, prompt=self.string("prompt"), answer=answer,
                      wrong_answers=wrong, answer_index=0 if wrong else -1,
                      paraphrase=self.paraphrase())

    def multiple_choice(self, identity):
        """{"question", "choices", "answer"}"""
        choices, index = self.strings("choices"), self.field("answer")
        if not 2 <= len(choices) <= MAX_CHOICES:
            self.fail(f'"choices" holds {len(choices)} texts', f"give 2 to {MAX_CHOICES}")
        if isinstance(index, bool) or not isinstance(index, int):
            self.fail('"answer" is not an integer', "give the index of the right choice")
        if not 0 <= index < len(choices):
            self.fail(f'"answer" is {index}', f"give an index from 0 to {len(choices) - 1}")
        return Record(self.where, identity, prompt=self.string("question"), answer=choices[index],
                      choices=choices, answer_index=index, paraphrase=self.paraphrase())

    def conversation(self, identity):
        """{"messages"}"""
        messages = self.field("messages")
        if not isinstance(messages, list) or len(messages) < 2:
            self.fail('"messages" is not a list of two or more', "give a prompt and an answer")
        for message in messages:
            if not isinstance(message, dict) or message.get("role") not in ROLES:
                self.fail("a message has no known role", "use " + " or ".join(ROLES))
            Reader(message, self.where).string("content")
        if messages[-1]["role"] != "assistant":
            self.fail("the last message is not the assistant's", "end with the answer to learn")
        messages = tuple({key: message[key] for key in ("role", "content")} for message in messages)
        return Record(self.where, identity, messages=messages)

    def plain_text(self, identity):
        """{"text"}"""
        return Record(self.where, identity, text=self.string("text"))

    def paraphrase(self):
        """The optional paraphrase."""
        return self.string("paraphrase") if "paraphrase" in self.fields else ""

    def field(self, name):
        """A required field."""
        if name not in self.fields:
            self.fail(f'"{name}" is missing', "add it")
        return self.fields[name]

    def string(self, name):
        """A required string that is not blank."""
        return self.text_of(self.field(name), name)

    def strings(self, name):
        """A required list of different strings."""
        values = self.field(name)
        if not isinstance(values, list) or not values:
            self.fail(f'"{name}" is not a list of strings', "give a list of strings")
        for value in values:
            self.text_of(value, name)
        if len(set(values)) != len(values):
            self.fail(f'"{name}" holds the same text twice', "make them different")
        return tuple(values)

    def text_of(self, value, name):
        """`value`, if it is a string that is not blank and can be written as UTF-8."""
        if not isinstance(value, str) or not value.strip():
            self.fail(f'"{name}" is not a string with text', "give a string that is not blank")
        if re.search("[\ud800-\udfff]", value):
            self.fail(f'"{name}" holds half a surrogate pair', "correct the \\u escapes")
        return value
