"""What transformers computes on random tiny models: golden.py FOLDER writes FOLDER/shard/<case>.

A case is a checkpoint (config.json, *.safetensors) with golden.safetensors beside it in `expected`:
token sets, logits, loss, the states at every kind of site, and the metrics of evaluate.
"""
import pathlib
import sys
import warnings

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

LENGTHS = [9, 4, 17, 9, 2, 13, 17, 6]
CONTINUED = 12  # tokens of a continuation
LETTERS, OPTION_LIST, OPTION_OPEN, PARAPHRASE = 3, 0, 1, 2
MIN_K_SHARE = 0.4
REFERENCE = "tied"  # the case that KL is taken from

BASE = dict(vocab_size=67, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64,
            rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0,
              high_freq_factor=4.0, original_max_position_embeddings=64)
GROUPED = dict(num_key_value_heads=2, tie_word_embeddings=False,
               rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0))
ONE_KV_HEAD = dict(num_key_value_heads=1, head_dim=16, attention_bias=True, mlp_bias=True,
                   max_position_embeddings=128,
                   rope_parameters=LLAMA3)

# name: (config class, changed settings, type on disk, type of the products, bytes a shard)
CASES = {
    "tied": (LlamaConfig, dict(tie_word_embeddings=True), "float32", "float32", "1GB"),
    "grouped": (LlamaConfig, GROUPED, "float32", "float32", "20KB"),
    "one_kv_head": (LlamaConfig, ONE_KV_HEAD, "float32", "float32", "1GB"),
    "mistral": (MistralConfig, dict(num_key_value_heads=2, head_dim=12, sliding_window=32),
                "float32", "float32", "1GB"),
    "dynamic_gelu": (LlamaConfig, dict(hidden_act="gelu_pytorch_tanh", rope_parameters=dict(
        rope_type="dynamic", rope_theta=500000.0, factor=2.0)), "float32", "float32", "1GB"),
    "half_on_disk": (LlamaConfig, dict(hidden_act="gelu"), "float16", "float32", "1GB"),
    "grouped_bf16": (LlamaConfig, GROUPED, "bfloat16", "bfloat16", "10KB"),
    "one_kv_head_bf16": (LlamaConfig, ONE_KV_HEAD, "bfloat16", "bfloat16", "1GB"),
    "single_to_bf16": (LlamaConfig, dict(tie_word_embeddings=True), "float32", "bfloat16", "1GB"),
    # Weights large enough to be packed for inference.
    "wide_bf16": (LlamaConfig, GROUPED | dict(hidden_size=512, intermediate_size=2048),
                  "bfloat16", "bfloat16", "1GB"),
}
MODELS = {LlamaConfig: LlamaForCausalLM, MistralConfig: MistralForCausalLM}


def make_model(config):
    """Random weights in which no term is zero and no norm is one; of the same size on wide states."""
    model = MODELS[type(config)](config)
    scale = 0.15 * (BASE["hidden_size"] / config.hidden_size) ** 0.5
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape)
        parameter.data = 1 + 0.3 * noise if "norm" in name else scale * noise
    return model.eval()


def site_modules(model):
    """Site name: (module, whether its input is meant)."""
    sites = {}
    for i, layer in enumerate(model.model.layers):
        for module, side, target in (
                ("qkv", "input", layer.self_attn.q_proj), ("o_proj", "input", layer.self_attn.o_proj),
                ("o_proj", "output", layer.self_attn.o_proj), ("gate_up", "input", layer.mlp.gate_proj),
                ("down_proj", "input", layer.mlp.down_proj), ("down_proj", "output", layer.mlp.down_proj),
                ("stream", "output", layer)):
            sites[f"layers.{i}.{module}.{side}"] = (target, side == "input")
    return sites


def run(model, sequences, replace=()):
    """Logits and states of each sequence alone, so that padding plays no part. A replaced site gets
    half its states plus 0.1."""
    states, handles = {}, []

    def see(site, value):
        states.setdefault(site, []).append(value[0].float().clone())
        return value * 0.5 + 0.1 if site in replace else value

    for site, (module, is_input) in site_modules(model).items():
        if is_input:
            handles.append(module.register_forward_pre_hook(
                lambda _, args, site=site: (see(site, args[0]), *args[1:])))
        else:
            handles.append(module.register_forward_hook(
                lambda _, args, output, site=site: see(site, output)))
    with torch.no_grad():
        logits = [model(input_ids=ids[None], use_cache=False).logits[0].float() for ids in sequences]
    for handle in handles:
        handle.remove()
    return torch.cat(logits), {site: torch.cat(values) for site, values in states.items()}


def random_sequences(generator, lengths, vocab):
    """Token sequences with a supervised tail: (ids, mask), where mask[t] asks for token t + 1."""
    sequences = []
    for length in lengths:
        ids = torch.randint(3, vocab, (length,), generator=generator)
        start = int(torch.randint(1, length, (1,), generator=generator))
        mask = torch.zeros(length, dtype=torch.uint8)
        mask[start - 1:length - 1] = 1
        sequences.append((ids, mask))
    return sequences


def pack(prefix, sequences):
    """The arrays of io::Sequences."""
    lengths = torch.tensor([len(ids) for ids, _ in sequences])
    return {f"{prefix}.token_ids": torch.cat([ids for ids, _ in sequences]),
            f"{prefix}.target_mask": torch.cat([mask for _, mask in sequences]),
            f"{prefix}.offsets": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])}


def scores(model, sequences):
    """Per sequence: sum of log-probabilities, target tokens, share of argmax hits; and the logits."""
    logits, _ = run(model, [ids for ids, _ in sequences])
    result, begin = [], 0
    for ids, mask in sequences:
        own = logits[begin:begin + len(ids)]
        begin += len(ids)
        at = mask.nonzero()[:, 0]
        targets = ids[at + 1]
        log_probs = own[at].log_softmax(-1)[torch.arange(len(at)), targets]
        result.append((log_probs.double().sum().item(), len(at),
                       (own[at].argmax(-1) == targets).double().mean().item(), own))
    return result


def lowest_mean(values):
    """Minus the mean of the lowest 40 %, at least of one."""
    count = max(int(MIN_K_SHARE * len(values)), 1)
    return -values.sort().values[:count].mean().item()


def token_metrics(sequences, logits, reference_logits):
    """Per sequence: extraction strength, Min-K, Min-K++ and KL, from the whole distributions."""
    result = {name: [] for name in ("extraction_strength", "min_k", "min_k_plus_plus", "kl")}
    for (ids, mask), own, base in zip(sequences, logits, reference_logits):
        at = mask.nonzero()[:, 0]
        targets = ids[at + 1]
        log_p, log_q = (part.double()[at].log_softmax(-1) for part in (own, base))
        hits = (own[at].argmax(-1) == targets).tolist()
        start = next((k for k in range(len(hits)) if all(hits[k:])), len(hits))
        result["extraction_strength"].append(1 - start / len(hits))
        chosen = log_p[torch.arange(len(at)), targets]
        mean = (log_p.exp() * log_p).sum(-1)
        variance = (log_p.exp() * (log_p - mean[:, None]) ** 2).sum(-1).clamp(min=1e-6)
        result["min_k"].append(lowest_mean(chosen))
        result["min_k_plus_plus"].append(lowest_mean((chosen - mean) / variance.sqrt()))
        result["kl"].append((log_q.exp() * (log_q - log_p)).sum(-1).mean().item())
    return result


def truth_ratios(right, wrong, paraphrases):
    """Geometric and arithmetic truth ratio, P(right) among the options; mean log-probabilities."""
    right, wrong = torch.tensor(right).double(), torch.tensor(wrong).double()
    reworded = torch.tensor(paraphrases or [right]).double().exp().mean()
    return ((wrong.mean().exp() / reworded).item(), (wrong.exp().mean() / reworded).item(),
            (right.exp() / (right.exp() + wrong.exp().sum())).item())


def evaluation(model, reference, generator, sequences):
    """Letters and options of the items with what evaluate must say about them."""
    vocab = model.config.vocab_size
    n = len(sequences)
    asks = [i % 2 == 0 for i in range(n)]
    answers = [int(torch.randint(LETTERS, (1,), generator=generator)) if ask else -1 for ask in asks]
    letters = [torch.randperm(vocab, generator=generator)[:LETTERS] if ask else
               torch.empty(0, dtype=torch.int64) for ask in asks]
    item_scores = scores(model, sequences)
    labels = [(i, choice, form) for i in range(n) if asks[i]
              for form in (OPTION_LIST, OPTION_OPEN) for choice in range(LETTERS)]
    labels += [(i, -1, PARAPHRASE) for i in (1, 2, 2, 6)]
    options = random_sequences(generator, [5 + i % 7 for i in range(len(labels))], vocab)
    means = [score[0] / score[1] for score in scores(model, options)]

    def correct(form):
        return [float(max((means[j], -c) for j, (item, c, f) in enumerate(labels)
                          if item == i and f == form)[1] == -answers[i]) if asks[i] else -1.0
                for i in range(n)]

    positions = [len(ids) - 2 if ask else -1 for (ids, _), ask in zip(sequences, asks)]
    chosen = [item_scores[i][3][positions[i]][letters[i]] if asks[i] else None for i in range(n)]
    paraphrase = [[means[j] for j, (item, _, f) in enumerate(labels) if item == i and f == PARAPHRASE]
                  for i in range(n)]
    opened = [{c: means[j] for j, (item, c, f) in enumerate(labels)
               if item == i and f == OPTION_OPEN} for i in range(n)]
    ratios = [truth_ratios(opened[i].pop(answers[i]), list(opened[i].values()), paraphrase[i])
              if asks[i] else (-1.0, -1.0, -1.0) for i in range(n)]
    of_tokens = token_metrics(sequences, [score[3] for score in item_scores],
                              [score[3] for score in scores(reference, sequences)])
    double = lambda values: torch.tensor(values, dtype=torch.float64)
    return {
        **pack("options", options),
        "options.labels": torch.tensor(labels),
        "answer_index": torch.tensor(answers), "letter_position": torch.tensor(positions),
        "letter_token_ids": torch.cat(letters),
        "letter_offsets": torch.tensor([0] + [len(part) for part in letters]).cumsum(0),
        "expected.nll": double([-score[0] for score in item_scores]),
        "expected.tokens": torch.tensor([score[1] for score in item_scores]),
        "expected.exact_memorization": double([score[2] for score in item_scores]),
        "expected.letter_correct": double([
            float(int(chosen[i].argmax()) == answers[i]) if asks[i] else -1.0 for i in range(n)]),
        "expected.letter_probability": double([
            chosen[i].softmax(0)[answers[i]].item() if asks[i] else -1.0 for i in range(n)]),
        **{f"expected.{name}": double(values) for name, values in of_tokens.items()},
        "expected.truth_ratio": double([ratio[0] for ratio in ratios]),
        "expected.truth_ratio_arithmetic": double([ratio[1] for ratio in ratios]),
        "expected.option_probability": double([ratio[2] for ratio in ratios]),
        "expected.text_correct": double(correct(OPTION_LIST)),
        "expected.open_correct": double(correct(OPTION_OPEN)),
        "expected.paraphrase_probability": double([
            double(values).exp().mean().item() if values else -1.0 for values in paraphrase]),
    }


def continuations(model, sequences):
    """The likeliest token again and again, after each sequence: [sequences, CONTINUED]."""
    model.generation_config.eos_token_id = None
    return torch.cat([model.generate(ids[None], max_new_tokens=CONTINUED, do_sample=False,
                                     pad_token_id=0)[:, len(ids):] for ids in sequences])


def make_case(folder, seed, config_class, settings, stored, compute, shard):
    """Write one checkpoint and what is expected of it."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    config = config_class(**{**BASE, **settings})
    model = make_model(config).to(getattr(torch, stored))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, max_shard_size=shard)
    # Read back as a user would: .to() would round the rotary frequencies as well.
    model = type(model).from_pretrained(folder, dtype=getattr(torch, compute)).eval()
    sequences = random_sequences(generator, LENGTHS, config.vocab_size)
    ids = [ids for ids, _ in sequences]
    logits, states = run(model, ids)
    replaced, _ = run(model, ids, replace=("layers.0.o_proj.output", "layers.1.down_proj.input"))
    reference = LlamaForCausalLM.from_pretrained(folder.parent / REFERENCE).eval()
    golden = {**pack("items", sequences), **evaluation(model, reference, generator, sequences),
              "logits": logits, "replaced_logits": replaced, **states,
              "continuations": continuations(model, ids)}
    (folder / "expected").mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in golden.items()},
              folder / "expected" / "golden.safetensors")


def main():
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    root = pathlib.Path(sys.argv[1]) / "shard"
    for seed, (name, case) in enumerate(CASES.items()):
        make_case(root / name, seed, *case)


if __name__ == "__main__":
    main()
