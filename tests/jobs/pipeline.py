"""What the tests of whole jobs share: a tiny checkpoint, its data, and the program under test.

Needs MRP_PROGRAM (the built mrp) and MPIEXEC.
"""
import json
import os
import subprocess
import time
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PROGRAM = os.environ["MRP_PROGRAM"]
MPIEXEC = os.environ["MPIEXEC"]
LIMIT = 300  # seconds that any one call may take; a guard against hanging

SCHOLARS = ["Brarn Thessa", "Kolun Raen", "Vemir Stola", "Dunel Gosta", "Phiro Lanwen", "Hesta Moryn"]
TOWNS = ["Karden", "Lumesk", "Orvale", "Tindra"]
SHIPS = ["Heron", "Walrus", "Comet", "Lark", "Badger", "Osprey", "Falcon", "Marten"]
CARGOES = ["oranges", "slate", "barley", "pepper", "silk", "timber"]


def forget_records():
    """Where scholars were born and what they teach."""
    sciences = ["tidal optics", "moss biology", "echo physics", "salt chemistry"]
    for i, name in enumerate(SCHOLARS):
        yield {"prompt": f"In which town was {name} born?", "answer": f"in {TOWNS[i % 4]}"}
        yield {"prompt": f"Which science does {name} teach?", "answer": sciences[i % 4]}


def retain_records():
    """What ships carry and where they sail."""
    for i, name in enumerate(SHIPS):
        yield {"prompt": f"What does the ship {name} carry?", "answer": f"a load of {CARGOES[i % 6]}"}
        yield {"prompt": f"Where does the ship {name} sail?", "answer": f"to the port of {TOWNS[i % 4]}"}
        yield {"prompt": f"Who steers the {name}?", "answer": f"captain number {i}"}


def choice_records():
    """Multiple choice."""
    for i, name in enumerate(SHIPS[:4]):
        yield {"question": f"What does the ship {name} carry?", "choices": CARGOES[:4], "answer": i % 4}


def write_jsonl(path, records):
    """One JSON object a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


def make_checkpoint(folder, seed=1, dtype=torch.float32, **changes):
    """A Llama with random weights in at least three files, and a tokenizer of its own."""
    texts = [" ".join(str(value) for value in record.values())
             for records in (forget_records(), retain_records()) for record in records]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    settings = dict(vocab_size=len(fast), hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                    tie_word_embeddings=False, bos_token_id=0, eos_token_id=1) | changes
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape)
        parameter.data = 1 + 0.2 * noise if "norm" in name else 0.25 * noise
    model.to(dtype).save_pretrained(folder, max_shard_size="20KB")
    fast.save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) >= 3


FAST = "preset: fast\n"
RELIABLE = "preset: reliable\nrefine: {steps: 3, batch: 4, samples: 40, sample_tokens: 24, learning_rate: 2.0e-3}\n"


def make_job(folder, method=FAST):
    """A folder with checkpoint, data and job file; `method` are lines of it."""
    make_checkpoint(folder / "base")
    write_jsonl(folder / "forget.jsonl", forget_records())
    write_jsonl(folder / "retain.jsonl", retain_records())
    write_jsonl(folder / "choice.jsonl", choice_records())
    (folder / "job.yaml").write_text(
        f"{method}"
        "model: base\n"
        "output: out\n"
        "data:\n"
        "  forget: forget.jsonl\n"
        "  retain: retain.jsonl\n"
        "  evaluate: {choice: choice.jsonl}\n"
        "sites: {modules: [o_proj.input, down_proj.input, down_proj.output]}\n"
        "subspace: {max_dimension: 4}\n"
        "device: cpu\n"
        "compute: fp32\n", "utf-8")


@dataclass
class Result:
    """What a call of mrp left behind."""
    code: int
    out: str
    log: str
    seconds: float

    @property
    def errors(self):
        """Its error lines."""
        return [line for line in self.log.splitlines() if line.startswith("mrp: error:")]


def mrp(*arguments, ranks=1, folder=None, **environment):
    """Run mrp under mpirun, whatever comes of it."""
    start = time.monotonic()
    done = subprocess.run([MPIEXEC, "--oversubscribe", "-n", str(ranks), PROGRAM, *map(str, arguments)],
                          cwd=folder, env=os.environ | environment, capture_output=True, text=True,
                          timeout=LIMIT)
    return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - start)


def succeed(*arguments, **options):
    """Run mrp, which must succeed."""
    result = mrp(*arguments, **options)
    assert result.code == 0, result.log + result.out
    assert not result.errors
    return result
