"""The peers of capture in transformers, and the peak of its matrix products. Prints JSON.

    python tests/bench/capture/peers.py padded|hooks|peak MODEL TOKENS OUTPUT

Seconds are those of forward passes and of writing what was kept, one file a set into the page cache;
loading and a first pass over eight tokens do not count.
"""
import json
import pathlib
import sys
import time

import torch
import transformers
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import peer_batches  # noqa: E402
import random_job  # noqa: E402

FIXED_LENGTH = 160
FIXED_BATCH = 16
BATCH_TOKENS = 1024  # faster here than 4096, as for us
PEAK_ROWS = 1024  # products of 4096 rows are slower
PEAK_PASSES = 4


def padded(model, texts):
    """The published way: a fixed length, all layers' states at all positions, and all logits."""
    kept = {}
    for begin in range(0, len(texts), FIXED_BATCH):
        members = range(begin, min(begin + FIXED_BATCH, len(texts)))
        ids, mask = peer_batches.pad(texts, members, FIXED_LENGTH)
        lengths = torch.tensor([[len(texts[i][0])] for i in members])
        attended = (torch.arange(ids.shape[1]) < lengths).long()
        states = model(ids, attention_mask=attended, output_hidden_states=True).hidden_states
        for layer, of_layer in enumerate(states):
            kept.setdefault(f"layers.{layer}", []).append(of_layer[mask])
    return kept


class Enough(Exception):
    """Nothing after the last site is computed."""


def hooks(model, texts):
    """Length-sorted batches through the model without its head; hooks keep target rows alone."""
    kept, targets = {}, None

    def keep(name, last):
        def hook(_, inputs):
            kept.setdefault(name, []).append(inputs[0][targets])
            if last:
                raise Enough
        return hook

    handles = []
    for i, layer in enumerate(model.model.layers):
        last = i + 1 == len(model.model.layers)
        attention, mlp = keep(f"layers.{i}.o_proj.input", False), keep(f"layers.{i}.down_proj.input", last)
        handles.append(layer.self_attn.o_proj.register_forward_pre_hook(attention))
        handles.append(layer.mlp.down_proj.register_forward_pre_hook(mlp))
    for members in peer_batches.by_length(texts, BATCH_TOKENS):
        ids, targets = peer_batches.pad(texts, members)
        try:  # on the right, padding changes nothing of what comes before: no mask is needed
            model.model(ids, use_cache=False)
        except Enough:
            rows = targets.nonzero()
            rows[:, 0] = torch.tensor(members)[rows[:, 0]]
            kept.setdefault("positions", []).append(rows)
    for handle in handles:
        handle.remove()
    return kept


def capture(way, model, tokens, output):
    """Seconds of a way."""
    sets = random_job.sequences(tokens)
    model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=peer_batches.COMPUTE)
    model(torch.arange(8)[None])
    start = time.perf_counter()
    for name, texts in sets.items():
        kept = way(model, texts)
        save_file({site: torch.cat(kept.pop(site)) for site in list(kept)}, f"{output}/{name}.safetensors")
    return {"seconds": time.perf_counter() - start}


def products(config):
    """A pass of a batch through the matrix products before the last site, as a function for each way
    of keeping the weights: as they are, and laid out for the product by oneDNN."""
    hidden, wide = config.hidden_size, config.intermediate_size
    rows = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    shapes = ([(rows, hidden), (hidden, hidden), (2 * wide, hidden), (hidden, wide)]
              * config.num_hidden_layers)[:-1]
    states = {width: torch.randn(PEAK_ROWS, width, dtype=peer_batches.COMPUTE) for width in (hidden, wide)}
    weights = [torch.randn(shape, dtype=peer_batches.COMPUTE) for shape in shapes]
    packed = [torch.ops.mkldnn._reorder_linear_weight(weight, PEAK_ROWS) for weight in weights]

    def plain():
        for weight, (_, width) in zip(weights, shapes):
            torch.nn.functional.linear(states[width], weight)

    def laid_out():
        for weight, (_, width) in zip(packed, shapes):
            torch.ops.mkldnn._linear_pointwise(states[width], weight, None, "none", [], "")
    return plain, laid_out


def peak(model):
    """Tokens/s if nothing took time but the matrix products: the best of some passes."""
    def seconds(run):
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    ways = products(transformers.AutoConfig.from_pretrained(model))
    return {"speed": PEAK_ROWS / min(seconds(run) for _ in range(PEAK_PASSES) for run in ways)}


def main():
    way, model, tokens, output = sys.argv[1:]
    torch.set_num_threads(random_job.THREADS)
    with torch.inference_mode():
        ways = {"padded": padded, "hooks": hooks}
        found = peak(model) if way == "peak" else capture(ways[way], model, tokens, output)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
