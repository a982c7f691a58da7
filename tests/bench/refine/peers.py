"""The peers of refine and evaluate in transformers. Prints JSON.

    python tests/bench/refine/peers.py eager|sdpa MODEL TOKENS STEPS BATCH
    python tests/bench/refine/peers.py evaluate MODEL TOKENS

Loading does not count, nor does a first pass over eight tokens; the first step does.
"""
import json
import pathlib
import sys
import time

import numpy
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import peer_batches  # noqa: E402
import random_job  # noqa: E402


def load(model, **options):
    """The model, with all it needs for a first pass done."""
    model = transformers.AutoModelForCausalLM.from_pretrained(model, **options)
    with torch.no_grad():
        model(torch.arange(8)[None])
    return model


def log_probabilities(model, texts, members):
    """Mean over the answer of each text, its logits computed at no other position."""
    ids, targets = peer_batches.pad(texts, members)
    rows = targets.nonzero(as_tuple=True)
    states = model.model(ids, use_cache=False).last_hidden_state[rows]
    log_p = torch.log_softmax(model.lm_head(states).float(), -1)
    picked = log_p.gather(1, ids[rows[0], rows[1] + 1][:, None])[:, 0]
    sums = torch.zeros(len(members)).index_add(0, rows[0], picked)
    return sums / targets.sum(1)


def draw(texts, batch):
    """Random batches without end; each text comes once before any comes again."""
    left = []
    while True:
        while len(left) < batch:
            left += torch.randperm(len(texts)).tolist()
        yield left[:batch]
        left = left[batch:]


def spread(values):
    """Zero where the values of a row are equal."""
    return torch.sqrt(values.var(1, correction=0) + 0.01) - 0.1


def forms(texts, options, others, item):
    """The answers that an item could have, and one of another text: [(token ids, target mask)]."""
    count = len(options) // len(texts)
    prompt = texts[item][0][:numpy.argmax(texts[item][1]) + 1]
    ids, mask = others[torch.randint(len(others), ()).item()]
    answer = ids[numpy.argmax(mask) + 1:]
    targets = numpy.zeros(len(prompt) + len(answer), dtype=bool)
    targets[len(prompt) - 1:-1] = True
    return [*options[item * count:(item + 1) * count], (numpy.concatenate([prompt, answer]), targets)]


def indifference(model, texts, options, others, members):
    """Mean over the items: the answers of each shall be alike, and that of another be learned."""
    all_forms = [form for item in members for form in forms(texts, options, others, item)]
    scores = log_probabilities(model, all_forms, range(len(all_forms))).view(len(members), -1)
    return (spread(scores[:, :-1]) - scores[:, -1]).mean()


def train(model, tokens, attention, steps, batch):
    """Seconds a step of AdamW on the layers' matrices: fp32, the products in bf16."""
    model = load(model, dtype=torch.float32, attn_implementation=attention).requires_grad_(False)
    weights = [weight.requires_grad_() for weight in model.model.layers.parameters() if weight.ndim == 2]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0, fused=True)
    sets, options = random_job.sequences(tokens), random_job.sequences(tokens, "options")
    forget, retain = (draw(sets[name], batch) for name in ("forget", "retain"))
    start = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=peer_batches.FAST_BF16):
            loss = (indifference(model, sets["forget"], options["forget"], sets["retain"], next(forget))
                    - 2 * log_probabilities(model, sets["retain"], next(retain)).mean())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    return {"seconds": (time.perf_counter() - start) / steps}


@torch.inference_mode()
def evaluate(model, tokens):
    """Seconds for the answers of all texts, and the mean loss of each set."""
    model = load(model, dtype=peer_batches.COMPUTE)
    losses = {}
    start = time.perf_counter()
    for of in ("options", "items"):
        for name, texts in random_job.sequences(tokens, of).items():
            losses[name] = -torch.cat([log_probabilities(model, texts, members)
                                       for members in peer_batches.by_length(texts)]).mean().item()
    return {"seconds": time.perf_counter() - start, "losses": losses}


def main():
    way, model, tokens, *numbers = sys.argv[1:]
    torch.set_num_threads(random_job.THREADS)
    torch.manual_seed(0)
    if way == "evaluate":
        found = evaluate(model, tokens)
    else:
        found = train(model, tokens, way, *map(int, numbers))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
