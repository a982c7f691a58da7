"""The base model and the controls that never saw what is to be forgotten, trained once and kept."""
import fcntl
import subprocess
import sys

from cli import Failure
from data import ROOT, write_lines

TRAIN_MODEL = ROOT / "jobs" / "py" / "train_model.py"


def train_arguments(data, folder, name):
    """The command line of train_model.py for one of the models."""
    files = data.base_files if name == "base" else data.control_files
    arguments = ["--data", *(folder / file for file in files), "--output", folder / name]
    if name != "base":
        arguments += ["--tokenizer", folder / "base"]
    if name == "control_questions":
        arguments += ["--questions", folder / data.forget_file]
    return [str(argument) for argument in [*arguments, *data.options]]


def prepare_models(data, folder, names):
    """Train those that are not there yet. One process at a time works in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, lines in data.files.items():
            write_lines(folder / name, lines)
        for name in sorted(names):  # the base comes first: it lends its tokenizer
            print(f"quality: {data.name}: model {name}", flush=True)
            arguments = train_arguments(data, folder, name)
            done = subprocess.run([sys.executable, TRAIN_MODEL, *arguments], check=False)
            if done.returncode:
                raise Failure(f"model {name} could not be trained", data.name,
                              "see the message above", done.returncode)
