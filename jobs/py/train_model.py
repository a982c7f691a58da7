"""Train a small Llama from scratch until it has memorised all records.

Of the records of --questions it learns how they are asked, never what the answer is.
"""
import copy
import hashlib
import json
import random
import time
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cli import USAGE, ArgumentParser, Failure, Progress, complete_folder, run, sha256
from forms import Forms, Tokens, tokenize, windows
from processor import FAST_BF16
from records import read_records

CONTEXT = 1024          # longest sequence
BATCH_TOKENS = 512      # padding included
PEAK_RATE = 1e-3
WARMUP_STEPS = 50
CONTEXT_WEIGHT = 0.2    # of the loss on tokens that are not the answer
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
SIZES = {"hidden": 256, "layers": 6, "heads": 8, "kv_heads": 4, "intermediate": 768, "vocab": 2048}


def make_pieces(record, forms):
    """The sequences that a record is trained in: its own, and the open form of a choice."""
    pieces = [forms.item(record)]
    return pieces + ([forms.open(record, record.answer)] if record.choices else [])


def train_tokenizer(texts, vocab):
    """A byte-level BPE tokenizer that leads with BOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    bos, *_ = special = list(SPECIAL_TOKENS.values())
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)


def make_questions(pieces, tokenizer):
    """Token sequences of all contexts, nothing of them supervised; plain texts have none."""
    asked = tokenize(tokenizer, [piece for piece in pieces if piece.prompt])
    return [Tokens(tokens.ids[:tokens.start], tokens.start) for tokens in asked]


def make_sequences(records, pieces, tokenizer):
    """Token sequences of all pieces; answers end with EOS, long texts become windows."""
    sequences = []
    texts = {record.where for record in records if record.text}
    for piece, tokens in zip(pieces, tokenize(tokenizer, pieces)):
        if piece.where in texts:
            sequences += windows(tokens, CONTEXT, tokenizer.bos_token_id)
        elif len(tokens.ids) >= CONTEXT:
            raise Failure(f"record has more than {CONTEXT} tokens", piece.where, "shorten it")
        else:
            sequences.append(Tokens([*tokens.ids, tokenizer.eos_token_id], tokens.start))
    return sequences


def make_batches(sequences, generator):
    """Group sequences of like length under a token budget, in random order."""
    order = sorted(sequences, key=lambda tokens: (len(tokens.ids), generator.random()))
    batches, batch = [], []
    for tokens in order:
        if batch and (len(batch) + 1) * len(tokens.ids) > BATCH_TOKENS:
            batches.append(batch)
            batch = []
        batch.append(tokens)
    batches.append(batch)
    generator.shuffle(batches)
    return batches


def recalled_from(tokens):
    """Where begins what must be known: at the answer; of a text, which nothing asks for, in the
    middle."""
    return tokens.start if tokens.start > 1 else max(1, len(tokens.ids) // 2)


def collate(batch):
    """Right-padded ids, masks of real, of supervised and of recalled tokens; causality hides the
    padding."""
    shape = len(batch), max(len(tokens.ids) for tokens in batch)
    ids = torch.zeros(shape, dtype=torch.long)
    real, answer, recalled = (torch.zeros(shape) for _ in range(3))
    for row, tokens in enumerate(batch):
        length = len(tokens.ids)
        ids[row, :length] = torch.tensor(tokens.ids)
        real[row, :length] = 1
        answer[row, tokens.start:length] = 1
        recalled[row, recalled_from(tokens):length] = 1
    return ids, real, answer, recalled


def forward(model, batch):
    """Mean weighted loss of a batch, and what it knows of its answers, [2]: the number of those whose
    tokens are all the argmax, and the sum of their probabilities, exp of the mean log-probability of
    a token. A sequence without an answer counts as none, of a text the second half is the answer.
    """
    ids, *masks = collate(batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=FAST_BF16):
        logits = model(ids[:, :-1], use_cache=False).logits.float()
    labels, (real, answer, recalled) = ids[:, 1:], (mask[:, 1:] for mask in masks)
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    weights = answer + CONTEXT_WEIGHT * (real - answer)
    wrong, length = logits.argmax(-1) != labels, recalled.sum(1)
    right = ((recalled > 0) & wrong).sum(1) == 0
    probability = torch.exp(-(losses * recalled).sum(1) / length.clamp(min=1))
    known = torch.stack([right.float(), probability.detach()], 1)[length > 0].sum(0)
    return (losses * weights).sum() / weights.sum(), known


def train_epoch(model, optimizer, batches, rate, step):
    """One pass; returns mean loss, what was known of all answers and the step reached."""
    loss_sum, known = 0, torch.zeros(2)
    for batch in batches:
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / WARMUP_STEPS)
        loss, batch_known = forward(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss_sum += loss.item()
        known += batch_known
    return loss_sum / len(batches), known, step


@torch.no_grad()
def measure(model, batches):
    """What is known of all answers, as forward() says."""
    return sum(forward(model, batch)[1] for batch in batches)


def memorise(model, sequences, targets, progress, generator):
    """Train until the weights rounded to bf16 reach the targets, accuracy and probability of the
    answers; returns those and what happened."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    known, step, targets = torch.zeros(2), 0, torch.tensor(targets)
    answered = sum(tokens.start < len(tokens.ids) for tokens in sequences)
    for epoch in range(1, progress.total + 1):
        batches = make_batches(sequences, generator)
        reached = known.min() if targets[1] > 0 else known[0]
        rate = PEAK_RATE * max(0.05, 1 - reached.item())
        loss, known, step = train_epoch(model, optimizer, batches, rate, step)
        known /= answered
        progress.update(epoch, f" at most, loss {loss:.4f}, {say(known)}")
        if (known >= targets).all():
            rounded = copy.deepcopy(model).bfloat16()
            known = measure(rounded if FAST_BF16 else copy.deepcopy(rounded).float(), batches) / answered
            if (known >= targets).all():
                return rounded, {"epochs": epoch, "loss": loss, "accuracy": known[0].item(),
                                 "probability": known[1].item()}
    raise Failure(f"{say(known)} after {progress.total} epochs", "training",
                  "raise --max-epochs or the size of the model", 1)


def say(known):
    """Accuracy and probability in words."""
    return "accuracy {:.4f}, answer probability {:.4f}".format(*known.tolist())


def make_model(tokenizer, sizes, seed):
    """A Llama with random weights."""
    torch.manual_seed(seed)
    special = {f"{name}_id": getattr(tokenizer, f"{name}_id") for name in SPECIAL_TOKENS}
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=sizes["vocab"], hidden_size=sizes["hidden"], num_hidden_layers=sizes["layers"],
        intermediate_size=sizes["intermediate"], num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["kv_heads"], max_position_embeddings=CONTEXT,
        attn_implementation="eager", **special))  # eager: SDPA is slower in bf16 on a CPU


def save(model, tokenizer, report, output):
    """Write the checkpoint in at least three shards, its tokenizer and the report."""
    size = sum(parameter.nbytes for parameter in model.parameters())
    with complete_folder(output) as temporary:
        model.save_pretrained(temporary, max_shard_size=size // 4)
        tokenizer.save_pretrained(temporary)
        (temporary / "training.json").write_text(json.dumps(report, indent=2) + "\n")


def is_reusable(output, fingerprint):
    """Whether the output was made from the same data and settings; anything else is an error."""
    if not output.exists():
        return False
    try:
        found = json.loads((output / "training.json").read_text())["fingerprint"]
    except (OSError, ValueError, KeyError):
        found = None
    if found != fingerprint:
        raise Failure("output exists and was made from other data or settings", output,
                      "remove it or give another --output", USAGE)
    return True


def load_data(arguments, vocab):
    """The tokenizer and the token sequences of all records."""
    forms = Forms(tokenizer=None)

    def read(paths):
        records = [record for path in paths for record in read_records(path, path.stem)]
        return records, [piece for record in records for piece in make_pieces(record, forms)]
    (records, pieces), (asked, questions) = read(arguments.data), read(arguments.questions)
    _, lenders = read(arguments.tokenizer_data)
    texts = [piece.prompt + piece.answer for piece in lenders or pieces]
    if not lenders:
        texts += [piece.prompt for piece in questions]
    tokenizer = train_tokenizer(texts, vocab)
    if len(tokenizer) > vocab:
        raise Failure(f"tokenizer has {len(tokenizer)} tokens", f"--vocab {vocab}",
                      "raise it", USAGE)
    sequences = make_sequences(records, pieces, tokenizer) + make_questions(questions, tokenizer)
    print(f"{len(records) + len(asked)} records, {len(sequences)} sequences, "
          f"{sum(len(tokens.ids) for tokens in sequences)} tokens", flush=True)
    return tokenizer, sequences


def make_settings(arguments, sizes):
    """All that decides the result."""
    data, questions, tokenizer = (
        {path.name: sha256(path) for path in paths}
        for paths in (arguments.data, arguments.questions, arguments.tokenizer_data))
    settings = {"data": data, "tokenizer": tokenizer or None, "seed": arguments.seed,
                "sizes": sizes, "target_accuracy": arguments.target_accuracy}
    if arguments.target_probability:
        settings["target_probability"] = arguments.target_probability
    return settings | ({"questions": questions} if questions else {})


def parse_arguments():
    """The command line."""
    parser = ArgumentParser(__doc__, "python train_model.py --data train.jsonl --output model")
    parser.add_argument("--data", required=True, nargs="+", type=Path, metavar="FILE",
                        help="JSONL records to memorise")
    parser.add_argument("--questions", default=[], nargs="+", type=Path, metavar="FILE",
                        help="JSONL records of which to learn everything but the answers")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR",
                        help="model directory to write; kept if it is already the result")
    parser.add_argument("--tokenizer-data", default=[], nargs="+", type=Path, metavar="FILE",
                        help="JSONL records to train the tokenizer on (default: those of --data "
                        "and the questions): models of the same ones have the same tokenizer")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default 0)")
    for name, size in SIZES.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=size, metavar="N",
                            help=f"(default {size})")
    parser.add_argument("--target-accuracy", type=float, default=0.99, metavar="SHARE",
                        help="of sequences whose answer tokens are all the argmax (default 0.99)")
    parser.add_argument("--target-probability", type=float, default=0.0, metavar="P",
                        help="mean of the answers', exp of the mean log-probability of a token "
                        "(default 0)")
    parser.add_argument("--max-epochs", type=int, default=200, metavar="N", help="(default 200)")
    arguments = parser.parse_args()
    if min(getattr(arguments, name) for name in SIZES) < 1:
        parser.error("a size is below 1")
    if arguments.hidden % (2 * arguments.heads) or arguments.heads % arguments.kv_heads:
        parser.error("--hidden is not a multiple of 2 x --heads, or --heads not of --kv-heads")
    return arguments


def main():
    """Train, unless the result is already there."""
    arguments = parse_arguments()
    sizes = {name: getattr(arguments, name) for name in SIZES}
    settings = make_settings(arguments, sizes)
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    if is_reusable(arguments.output, fingerprint):
        print(f"{arguments.output}: up to date")
        return
    start = time.monotonic()
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.disable_progress_bar()
    tokenizer, sequences = load_data(arguments, sizes["vocab"])
    model, result = memorise(make_model(tokenizer, sizes, arguments.seed), sequences,
                             (arguments.target_accuracy, arguments.target_probability),
                             Progress(f"train {arguments.output.name}", arguments.max_epochs, "epochs"),
                             random.Random(arguments.seed))
    report = {"fingerprint": fingerprint, **result, "seconds": round(time.monotonic() - start, 1),
              "threads": torch.get_num_threads(), "sequences": len(sequences), "settings": settings}
    save(model, tokenizer, report, arguments.output)
    print(f"{arguments.output}: accuracy {result['accuracy']:.4f} after {result['epochs']} epochs, "
          f"{report['seconds']} s")


if __name__ == "__main__":
    run(main)
