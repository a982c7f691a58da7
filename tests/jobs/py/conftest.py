"""Shared: the programs under test, a small tokenizer, files of records."""
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "jobs" / "py"))

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

WORDS = ["Question: which Answer: ( A) B. C. user: assistant: word river Vel é 🙂\n"] * 3
CHAT_TEMPLATE = ("{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
                 "{{ raise_exception('no system role') }}{% endif %}<{{ m.role }}>{{ m.content }}\n"
                 "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}")


def byte_tokenizer(**special):
    """A byte-level BPE tokenizer with some merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(WORDS, trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def merging_tokenizer(vocabulary, merges):
    """A BPE tokenizer that knows nothing of words: any two neighbours may merge."""
    ids = {token: i for i, token in enumerate(["?", *vocabulary])}
    model = models.BPE(vocab=ids, merges=merges, unk_token="?")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer(bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def bare_tokenizer():
    """Without BOS."""
    return byte_tokenizer()


@pytest.fixture
def chat_tokenizer():
    return byte_tokenizer(bos_token="<s>", eos_token="</s>", chat_template=CHAT_TEMPLATE)


@pytest.fixture
def write_jsonl(tmp_path):
    """Write records to a file of the given name."""
    def write(name, *records):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path
    return write
