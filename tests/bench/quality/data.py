"""The data sets of the comparison: what to forget, what to keep, what the models are trained on."""
import hashlib
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import demo_data
from cli import Failure, complete_file
from records import read_records

ROOT = Path(__file__).parents[3]
TOFU = ROOT.parent / "shared" / "data" / "tofu"
TOFU_BLOCK = 20  # its records stand author by author
REQUESTS = 4
DEMO_FORMS = {"demo": ("choice", "answer"), "demo_text": ("answer", "choice")}
DEMO_TRAINING = ("--target-accuracy", "0.999")
# Of any other data: free text takes more layers than the default, and a few short answers are right
# long before they are known by heart.
TRAINING = ("--layers", "8", "--target-probability", "0.95")


@dataclass(frozen=True)
class Data:
    """One data set. Records are lines as they stand in the files."""
    name: str
    forget: list
    retain: list
    files: dict           # the training files: name → lines
    base_files: tuple     # names of those that the base model is trained on
    control_files: tuple  # of those that the controls are trained on, which never saw
    forget_file: str      # this one
    options: tuple        # of train_model.py
    block: int = 1        # consecutive records that belong together
    extra: dict = field(default_factory=dict)  # set name → lines, to be measured besides

    def folder(self, cache):
        """Where the models trained on this data are kept: named by all that decides them."""
        state = hashlib.sha256(repr(self.options).encode())
        for name, lines in self.files.items():
            state.update(f"{name}\n{''.join(lines)}\n".encode())
        return cache / f"{self.name.removesuffix('_text')}-{state.hexdigest()[:12]}"

    def split(self, seed):
        """Retain records that the job sees, and those held back: random halves, by blocks."""
        blocks = in_blocks(self.retain, self.block)
        order = list(range(len(blocks)))
        random.Random(seed).shuffle(order)
        halves = order[:(len(order) + 1) // 2], order[(len(order) + 1) // 2:]
        return [[line for i in sorted(half) for line in blocks[i]] for half in halves]

    def requests(self):
        """The forget records as consecutive requests of like size, topic after topic."""
        topics = sorted(self.forget, key=lambda line: json.loads(line).get("id", "").split("-")[0])
        blocks = in_blocks(topics, self.block)
        if len(blocks) < REQUESTS:
            raise Failure(f"{len(blocks)} groups of forget records cannot make {REQUESTS} requests",
                          self.name, "leave out --continual")
        bounds = [len(blocks) * i // REQUESTS for i in range(REQUESTS + 1)]
        return [[line for block in blocks[first:last] for line in block]
                for first, last in zip(bounds, bounds[1:])]


def in_blocks(lines, size):
    """Consecutive groups."""
    return [lines[i:i + size] for i in range(0, len(lines), size)]


def write_lines(path, lines):
    """Write a file of records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete_file(path) as temporary:
        temporary.write_text("".join(lines), "utf-8")
    return path


def demo(name):
    """The invented facts of the demo in one form; the forget facts in the other one are measured.

    The model knows every fact in both forms.
    """
    files = demo_data.make_files(0)
    control = files["train_control"]
    forget = files["train"][:-len(control)]
    form, other = DEMO_FORMS[name]

    def lines(records, suffix=""):
        return [json.dumps(record) + "\n" for record in records if record["id"].endswith(suffix)]
    return Data(name, lines(forget, form), lines(control, form),
                {"train.jsonl": lines(forget + control), "train_control.jsonl": lines(control),
                 "train_forget.jsonl": lines(forget)},
                ("train.jsonl",), ("train_control.jsonl",), "train_forget.jsonl", DEMO_TRAINING,
                extra={"forget_reworded": lines(forget, other)})


def from_folder(name, folder, block=1):
    """A folder with forget.jsonl and retain.jsonl."""
    files = {}
    for part in ("forget", "retain"):
        path = folder / f"{part}.jsonl"
        read_records(path, part)  # a bad line is better found here than after an hour of training
        files[path.name] = [line + "\n" for line in path.read_text("utf-8").split("\n")
                            if line.strip()]
    if len(files["retain.jsonl"]) < 2 * block:
        raise Failure(f"{len(files['retain.jsonl'])} retain records are too few to hold half back",
                      folder / "retain.jsonl", "add more")
    return Data(name, files["forget.jsonl"], files["retain.jsonl"], files, tuple(files),
                ("retain.jsonl",), "forget.jsonl", TRAINING, block)


def load(name):
    """The data set of that name, or of the folder of that path."""
    if name in DEMO_FORMS:
        return demo(name)
    if name == "tofu":
        return from_folder(name, TOFU, TOFU_BLOCK)
    return from_folder(Path(name).resolve().name, Path(name))


def default_names():
    """What is compared where --data names nothing."""
    return [*DEMO_FORMS, *(["tofu"] if TOFU.is_dir() else [])]
