"""A job on a random checkpoint and invented questions, for measuring how long its stages take.

Half of the texts are the forget set, the others the retain set; the last quarter of each text is the
answer. One word is one token, so that lengths are what they are said to be.
"""
import json
import pathlib
import random
import subprocess
import sys

import h5py
import tokenizers
import transformers

import benchmark

HERE = pathlib.Path(__file__).parent
LAYOUTS = {"1 rank": (1, 2, 1), "2 ranks tensor": (2, 1, 2), "2 ranks data": (2, 1, 1)}
THREADS = 2  # of each layout in all, (ranks, threads of each, tensor), and of each peer
LENGTHS = (20, 300)  # tokens of a text
FORM = ["<s>", "</s>", "Question:", "Answer:"]
WORDS = [f"word{i}" for i in range(200)]


def write_tokenizer(folder):
    """One token a word."""
    vocabulary = {word: i for i, word in enumerate(FORM + WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="</s>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>",
                                         eos_token="</s>").save_pretrained(folder)


def write_records(path, count, seed, wrong_answers):
    """Questions and answers of words at random; the form adds three tokens to each."""
    source = random.Random(seed)
    lines = []
    for _ in range(count):
        words = source.choices(WORDS, k=source.randint(*LENGTHS) - 3)
        prompt, answer = words[len(words) // 4:], words[:len(words) // 4]
        record = {"prompt": " ".join(prompt), "answer": " ".join(answer)}
        if wrong_answers > 0:
            record["wrong_answers"] = [" ".join(source.choices(WORDS, k=len(answer)))
                                       for _ in range(wrong_answers)]
        lines.append(json.dumps(record) + "\n")
    path.write_text("".join(lines))


class Job:
    """A folder in which stages can be run; `settings` are lines of the job file."""

    def __init__(self, folder, build, shape, texts, settings, wrong_answers=0):
        self.program, self.file = build / "mrp", folder / "job.yaml"
        self.model, self.work = folder / "model", folder / "work"
        write_tokenizer(folder / "tokenizer")
        subprocess.run([sys.executable, HERE / "random_checkpoint.py", "--shape", shape, "--tokenizer",
                        folder / "tokenizer", "--output", self.model],
                       check=True, stdout=subprocess.DEVNULL)
        for seed, name in enumerate(("forget", "retain")):
            write_records(folder / f"{name}.jsonl", texts // 2, seed, wrong_answers)
        self.file.write_text(settings + "model: model\noutput: output\nwork: work\ndevice: cpu\n"
                             "data: {forget: forget.jsonl, retain: retain.jsonl}\n")
        self.run("prepare")
        self.tokens = self.work / "tokens.h5"
        self.count = sum(len(ids) for texts in sequences(self.tokens).values() for ids, _ in texts)

    def run(self, stage, layout="1 rank"):
        """What the manifest says about a run of the stage; `timers` in seconds, of the slowest rank."""
        ranks, threads, tensor = LAYOUTS[layout]
        benchmark.mpirun(ranks, self.program, stage, self.file, "--force", "--set",
                         f"parallel.tensor={tensor}", threads=threads)
        record = json.loads((self.work / "manifest.json").read_text())["stages"][stage]
        return record | {"timers": {timer["name"]: timer["max"] for timer in record["timers"]}}


def sequences(tokens, of="items"):
    """{set: [(token ids, target mask)]} of a tokens.h5; of="options": every answer that an item could have."""
    def split(items):
        ids, mask, bounds = (items[name][:] for name in ("token_ids", "target_mask", "offsets"))
        return [(ids[begin:end], mask[begin:end] != 0) for begin, end in zip(bounds, bounds[1:])]
    with h5py.File(tokens) as file:
        return {name: split(file[name][of]) for name in file}


def peer(script, *arguments):
    """What a script of a peer prints, run as a process of its own with all threads."""
    done = subprocess.run(["env", f"OMP_NUM_THREADS={THREADS}", sys.executable, script,
                           *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {script.name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
