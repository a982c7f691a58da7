"""Records as text (prompt and supervised answer), and text as tokens."""
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import string
from dataclasses import dataclass
from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer

from cli import Failure

LETTERS = string.ascii_uppercase
FORM_NAMES = ["list", "open", "paraphrase"]
LIST, OPEN, PARAPHRASE = range(3)


@dataclass(frozen=True)
class Piece:
    """Text of one sequence: `prompt` is context, `answer` is supervised."""
    where: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class Tokens:
    """One token sequence; the tokens from `start` (at least 1) are supervised."""
    ids: list
    start: int


@dataclass(frozen=True)
class Option:
    """One candidate answer of a record, in one form."""
    choice: int
    form: int
    piece: Piece


class Forms:
    """Writes records as text: with the tokenizer's chat template, or plainly.

    A tokenizer of None is one that is yet to be trained.
    """

    def __init__(self, tokenizer, template="auto"):
        self.tokenizer = tokenizer
        self.has_chat = tokenizer is not None and tokenizer.chat_template is not None
        self.chat = self.has_chat and template == "auto"

    @property
    def name(self):
        """The template of prompts and questions."""
        return "chat" if self.chat else "plain"

    def item(self, record):
        """The sequence that stands for the record."""
        if record.text:
            return Piece(record.where, "", record.text)
        if record.messages:
            return self.conversation(record.where, record.messages)
        if record.choices:
            return self.listed(record, record.answer_index)
        return self.open(record, record.answer)

    def options(self, record):
        """Every candidate answer, after its own letter, without letters, and the paraphrase."""
        listed = [Option(i, LIST, self.after_letter(record, i)) for i in range(len(record.choices))]
        opened = [Option(i, OPEN, self.open(record, text))
                  for i, text in enumerate(record.candidates)]
        reworded = [Option(-1, PARAPHRASE, self.open(record, text))
                    for text in [record.paraphrase] if text]
        return listed + opened + reworded

    def open(self, record, answer):
        """Question, then the answer's text."""
        if self.chat:
            return Piece(record.where, self.chat_prompt(record.where, record.prompt), answer)
        return Piece(record.where, f"Question: {record.prompt}\nAnswer:", f" {answer}")

    def listed(self, record, index):
        """Question and choices, then the letter and the text of one choice."""
        lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, record.choices)]
        question = "\n".join([record.prompt, *lines])
        answer = f"{LETTERS[index]}) {record.choices[index]}"
        if self.chat:
            return Piece(record.where, self.chat_prompt(record.where, question), answer)
        return Piece(record.where, f"Question: {question}\nAnswer: (", answer)

    def after_letter(self, record, index):
        """The list form with the letter in the prompt."""
        piece = self.listed(record, index)
        return Piece(piece.where, piece.prompt + piece.answer[:2], piece.answer[2:])

    def conversation(self, where, messages):
        """Everything before the last message, then its content."""
        *before, last = messages
        if self.has_chat:
            return Piece(where, self.render(where, before), last["content"])
        lines = [f"{message['role']}: {message['content']}" for message in before]
        return Piece(where, "\n".join([*lines, f"{last['role']}:"]), f" {last['content']}")

    def chat_prompt(self, where, text):
        """One user message in the chat template."""
        return self.render(where, [{"role": "user", "content": text}])

    def render(self, where, messages):
        """The chat template up to where the assistant starts."""
        try:
            return self.tokenizer.apply_chat_template(list(messages), tokenize=False,
                                                      add_generation_prompt=True)
        except TemplateError as error:
            raise Failure(f"chat template refuses the record ({error})", where,
                          "change its roles or use --template plain") from error


def tokenize(tokenizer, pieces):
    """Tokenise each piece as one text; a token across the boundary belongs to the answer."""
    if not pieces:
        return []
    encoded = tokenizer([piece.prompt + piece.answer for piece in pieces], verbose=False,
                        add_special_tokens=False, return_offsets_mapping=True)
    return [supervised(tokenizer, piece, ids, offsets) for piece, ids, offsets
            in zip(pieces, encoded["input_ids"], encoded["offset_mapping"])]


def supervised(tokenizer, piece, ids, offsets):
    """Find the first token that reaches into the answer, and lead with BOS."""
    boundary = len(piece.prompt)
    start = next((i for i, (_, end) in enumerate(offsets) if end > boundary), len(ids))
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:1] != [bos]:
        ids, start = [bos, *ids], start + 1
    start = max(start, 1)
    if start >= len(ids):
        raise Failure("answer has no token to predict", piece.where,
                      "lengthen or remove the record")
    return Tokens(ids, start)


def windows(tokens, max_tokens, bos):
    """Cut a text into consecutive windows, each led by BOS or by the token before it.

    Every token but the very first is thus supervised exactly once.
    """
    step = max_tokens - 1
    for begin in range(1, len(tokens.ids), step):
        lead = tokens.ids[begin - 1] if bos is None else bos
        yield Tokens([lead, *tokens.ids[begin:begin + step]], 1)


def load_tokenizer(directory):
    """The fast tokenizer of a model directory; no file outside the directory is read."""
    directory = Path(directory)
    if not (directory / "tokenizer.json").is_file():
        raise Failure("tokenizer.json is missing", directory,
                      "give a model directory in the Hugging Face layout")
    root = directory.resolve()
    for path in directory.rglob("*"):
        if path.suffix != ".safetensors" and not path.resolve().is_relative_to(root):
            raise Failure("file leads outside the model directory", path, "copy the file into it")
    try:
        tokenizer = AutoTokenizer.from_pretrained(root, local_files_only=True,
                                                  trust_remote_code=False)
    except Exception as error:  # a damaged file raises anything, even a bare Exception
        raise Failure(f"cannot load the tokenizer ({error})", directory,
                      "check tokenizer.json and tokenizer_config.json") from error
    if not tokenizer.is_fast:
        raise Failure("tokenizer is not a fast one", directory, "convert it to tokenizer.json")
    return tokenizer
