"""Tokenise record sets into tokens.h5, the input of every other stage."""
import re
import zlib
from array import array
from pathlib import Path

import h5py
import numpy as np

from cli import USAGE, ArgumentParser, Failure, Progress, complete_file, run, sha256
from forms import FORM_NAMES, Forms, load_tokenizer, tokenize, windows
from records import read_records

BATCH = 256


def fixed(texts):
    """Texts of fixed length: damaged variable-length ones can crash the readers of HDF5."""
    encoded = np.char.encode(np.asarray(texts, str), "utf-8")
    return encoded.astype(h5py.string_dtype("utf-8", max(1, encoded.itemsize)))


class Sequences:
    """Concatenated token sequences with their target mask."""

    def __init__(self):
        self.token_ids, self.target_mask, self.offsets = array("i"), array("B"), array("q", [0])

    def __len__(self):
        return len(self.offsets) - 1

    def append(self, tokens):
        """Add one sequence; position t is a target if token t + 1 is supervised."""
        length = len(tokens.ids)
        self.token_ids.extend(tokens.ids)
        self.target_mask.extend([0] * (tokens.start - 1) + [1] * (length - tokens.start) + [0])
        self.offsets.append(len(self.token_ids))

    def write(self, group):
        """Store the sequences in an HDF5 group."""
        group["token_ids"] = np.asarray(self.token_ids, np.int32)
        group["offsets"] = np.asarray(self.offsets, np.int64)
        group["target_mask"] = np.asarray(self.target_mask, np.uint8)


class TokenSet:
    """One named set of records as token sequences."""

    def __init__(self, name, records):
        self.name, self.records, self.dropped = name, records, 0
        self.items, self.options = Sequences(), Sequences()
        self.ids, self.zlib_bytes, self.answer_index, self.letter_position = [], [], [], []
        self.letter_tokens, self.letter_offsets = [], [0]
        self.option_labels = []  # (item, choice, form)

    def add(self, record, item, text, letters, options, option_tokens):
        """Add a record: its sequence, the text of that, the same with each letter, its options."""
        position, letter_tokens = find_letters(record, item, letters)
        for option, tokens in zip(options, option_tokens):
            self.option_labels.append((len(self.items), option.choice, option.form))
            self.options.append(tokens)
        self.items.append(item)
        self.ids.append(record.id)
        self.zlib_bytes.append(len(zlib.compress(text.encode())))
        self.answer_index.append(record.answer_index)
        self.letter_position.append(position)
        self.letter_tokens.extend(letter_tokens)
        self.letter_offsets.append(len(self.letter_tokens))

    def write(self, group, path):
        """Store the set in an HDF5 group."""
        group.attrs["source"] = fixed(path.name)
        group.attrs["sha256"] = fixed(sha256(path))
        group.attrs["records"] = np.int64(len(self.records))
        group.attrs["dropped_too_long"] = np.int64(self.dropped)
        self.items.write(group.create_group("items"))
        group["ids"] = fixed(self.ids)
        group["zlib_bytes"] = np.asarray(self.zlib_bytes, np.int64)
        group["answer_index"] = np.asarray(self.answer_index, np.int32)
        group["letter_position"] = np.asarray(self.letter_position, np.int64)
        letters = group.create_group("letters")  # made implicitly, it would carry the time of day
        letters["token_ids"] = np.asarray(self.letter_tokens, np.int32)
        letters["offsets"] = np.asarray(self.letter_offsets, np.int64)
        options = group.create_group("options")
        options.attrs["forms"] = fixed(FORM_NAMES)
        self.options.write(options)
        labels = np.asarray(self.option_labels, np.int64).reshape(-1, 3)
        options["item"] = labels[:, 0]
        options["choice"] = labels[:, 1].astype(np.int32)
        options["form"] = labels[:, 2].astype(np.uint8)

    def summary(self):
        """One line for the log."""
        return (f"{self.name}: {len(self.records)} records, {len(self.items)} sequences, "
                f"{len(self.items.token_ids)} tokens, {sum(self.items.target_mask)} target "
                f"positions, {self.dropped} dropped (longer than the token limit)")


def find_letters(record, item, letters):
    """Where the letter of a multiple-choice item is predicted, and the token of each letter."""
    if not letters:
        return -1, []
    tokens = [sequence.ids[sequence.start] for sequence in letters]
    before = {tuple(sequence.ids[:sequence.start]) for sequence in letters}
    if len(before) > 1 or len(set(tokens)) < len(tokens):
        raise Failure("tokenizer gives the answer letters no tokens of their own", record.where,
                      "use --template plain or ask with prompt and answer")
    return item.start - 1, tokens


def tokenize_set(name, records, tokenizer, forms, max_tokens):
    """Tokenise all records of a set."""
    token_set = TokenSet(name, records)
    progress = Progress(f"tokenize {name}", len(records), "records")
    for begin in range(0, len(records), BATCH):
        progress.update(begin)
        tokenize_batch(token_set, records[begin:begin + BATCH], tokenizer, forms, max_tokens)
    if not len(token_set.items):
        raise Failure(f"every record is longer than {max_tokens} tokens", records[0].where,
                      "raise --max-tokens")
    return token_set


def tokenize_batch(token_set, records, tokenizer, forms, max_tokens):
    """Tokenise some records in one call of the tokenizer; keep those whose sequences all fit."""
    items = [forms.item(record) for record in records]
    texts = [item.prompt + item.answer for item in items]
    letters = [[forms.listed(record, i) for i in range(len(record.choices))] for record in records]
    options = [forms.options(record) for record in records]
    pieces = items + [piece for listed in letters for piece in listed]
    pieces += [option.piece for candidates in options for option in candidates]
    tokens = iter(tokenize(tokenizer, pieces))
    items = take(tokens, items)
    letters = [take(tokens, listed) for listed in letters]
    for record, item, text, listed, candidates in zip(records, items, texts, letters, options):
        candidate_tokens = take(tokens, candidates)
        if record.text:
            for window in windows(item, max_tokens, tokenizer.bos_token_id):
                part = tokenizer.decode(window.ids, skip_special_tokens=True)
                token_set.add(record, window, part, [], [], [])
        elif max(len(sequence.ids) for sequence in [item, *candidate_tokens]) > max_tokens:
            token_set.dropped += 1
        else:
            token_set.add(record, item, text, listed, candidates, candidate_tokens)


def take(iterator, like):
    """The next values of an iterator, as many as `like` has."""
    return [next(iterator) for _ in like]


def check_overlap(forget, retain, limit):
    """Refuse sets that ask to forget and to retain the same records."""
    retained = {record.content: record for record in reversed(retain)}
    shared = [(record, retained[record.content]) for record in forget if record.content in retained]
    if not shared:
        return
    what = (f"{len(shared)} of {len(forget)} forget records are also in the retain set "
            f"(first: {shared[0][0].where} = {shared[0][1].where})")
    if len(shared) > limit * len(forget):
        raise Failure(what, f"limit {limit:g}",
                      "remove them from one set or raise --overlap-limit")
    print(f"warning: {what}")


def named_path(argument):
    """NAME=PATH of the command line."""
    name, _, path = argument.partition("=")
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or not path:
        raise Failure(f'"{argument}" is not NAME=PATH', "--set",
                      "write --set forget=forget.jsonl", USAGE)
    return name, Path(path)


def parse_arguments():
    """The command line."""
    parser = ArgumentParser(__doc__, "python prepare.py --model base --set forget=forget.jsonl "
                                     "--set retain=retain.jsonl --output tokens.h5")
    parser.add_argument("--model", required=True, metavar="DIR",
                        help="directory with tokenizer.json")
    parser.add_argument("--set", required=True, action="append", type=named_path, dest="sets",
                        metavar="NAME=PATH", help="a named JSONL file; repeat for each set")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE",
                        help="tokens.h5 to write")
    parser.add_argument("--max-tokens", type=int, default=1024, metavar="N",
                        help="drop longer records, cut longer texts (default 1024)")
    parser.add_argument("--template", choices=["auto", "plain"], default="auto",
                        help="auto: the tokenizer's chat template if it has one")
    parser.add_argument("--overlap-limit", type=float, default=0.01, metavar="SHARE",
                        help="accepted share of forget records in the retain set (default 0.01)")
    parser.add_argument("--fingerprint", default="", metavar="HEX", help="stored with the result")
    arguments = parser.parse_args()
    names = [name for name, _ in arguments.sets]
    if len(set(names)) < len(names):
        parser.error("a name of --set is used twice")
    if arguments.max_tokens < 2:
        parser.error("--max-tokens is below 2")
    if not 0 <= arguments.overlap_limit <= 1:
        parser.error("--overlap-limit is not between 0 and 1")
    return arguments


def main():
    """Read, check, tokenise, write."""
    arguments = parse_arguments()
    sets = dict(arguments.sets)
    records = {name: read_records(path, name) for name, path in sets.items()}
    if "forget" in records and "retain" in records:
        check_overlap(records["forget"], records["retain"], arguments.overlap_limit)
    tokenizer = load_tokenizer(arguments.model)
    forms = Forms(tokenizer, arguments.template)
    version = ("v110", "v110")  # metadata with checksums
    with (complete_file(arguments.output) as temporary,
          h5py.File(temporary, "w", libver=version) as file):
        file.attrs["format"] = fixed("mrp.tokens")
        file.attrs["version"] = np.int64(1)
        file.attrs["fingerprint"] = fixed(arguments.fingerprint)
        file.attrs["tokenizer_sha256"] = fixed(sha256(Path(arguments.model, "tokenizer.json")))
        file.attrs["template"] = fixed(forms.name)
        file.attrs["max_tokens"] = np.int64(arguments.max_tokens)
        file.attrs["vocab_size"] = np.int64(max(tokenizer.get_vocab().values()) + 1)
        for name, path in sets.items():
            token_set = tokenize_set(name, records[name], tokenizer, forms, arguments.max_tokens)
            token_set.write(file.create_group(name), path)
            print(token_set.summary(), flush=True)


if __name__ == "__main__":
    run(main)
