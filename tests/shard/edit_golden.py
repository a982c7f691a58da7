"""Merged checkpoints against transformers.

edit_golden.py FOLDER        writes random tiny models to FOLDER/edit/<case>/model
edit_golden.py FOLDER check  loads what MergeGoldenTest made of them, <case>/ranks_N/<sites>, and
                             compares it with the original, its weights changed as deltas.h5 says,
                             under hooks that apply P at the sites
"""
import pathlib
import sys

import h5py
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers import MistralConfig, MistralForCausalLM

BASE = dict(vocab_size=90, hidden_size=64, intermediate_size=112, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, head_dim=20, max_position_embeddings=64,
            bos_token_id=1, eos_token_id=2)
# name: (model class, config class, changed settings, type on disk)
CASES = {
    "biased_f32": (LlamaForCausalLM, LlamaConfig, dict(attention_bias=True, mlp_bias=True),
                   "float32"),
    "tied_f32": (MistralForCausalLM, MistralConfig, dict(tie_word_embeddings=True), "float32"),
    "biased_bf16": (LlamaForCausalLM, LlamaConfig, dict(attention_bias=True, mlp_bias=True),
                    "bfloat16"),
    "plain_f16": (LlamaForCausalLM, LlamaConfig, {}, "float16"),
}


def make(folder):
    for seed, (name, (model_class, config_class, changes, dtype)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        config = config_class(**(BASE | dict(tie_word_embeddings=False) | changes))
        model = model_class(config)
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            parameter.data = 1 + 0.3 * noise if "norm" in key else 0.2 * noise
        model.to(getattr(torch, dtype)).save_pretrained(folder / name / "model",
                                                        max_shard_size="60KB")


def load(directory):
    """Products in fp32: only the weights may differ."""
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def targets(model, site):
    """The modules at a site and whether P acts on what they read."""
    _, layer, module, side = site.split(".")
    decoder = model.model.layers[int(layer)]
    attention, mlp = decoder.self_attn, decoder.mlp
    if module == "stream":
        writers = [model.model.embed_tokens]
        for block in model.model.layers:
            writers += [block.self_attn.o_proj, block.mlp.down_proj]
        return writers, False
    modules = dict(qkv=[attention.q_proj, attention.k_proj, attention.v_proj],
                   o_proj=[attention.o_proj], gate_up=[mlp.gate_proj, mlp.up_proj],
                   down_proj=[mlp.down_proj])
    return modules[module], side == "input"


def read_sites(path):
    with h5py.File(path) as file:
        return {site: [torch.tensor(file[site][key][()]) for key in "AB"] for site in file}


def add(model, path):
    """Adds trained changes to the weights."""
    if not path.exists():
        return
    with h5py.File(path) as file:
        for name in file:
            model.get_parameter(name).data += torch.tensor(file[name][()])


def hook(model, sites):
    """Applies P to the states."""
    for site, (a, b) in sites.items():
        def project(states, a=a.float(), b=b.float()):
            return states - (states @ b) @ a.T

        modules, reads = targets(model, site)
        for module in modules:
            if reads:
                module.register_forward_pre_hook(lambda m, args, p=project: (p(args[0]),))
            else:
                module.register_forward_hook(lambda m, args, out, p=project: p(out))


def fold(model, sites, dtype):
    """Applies P to the weights in fp64 and rounds all to nearest."""
    for site, (a, b) in sites.items():
        modules, reads = targets(model, site)
        for module in modules:
            for key, parameter in module.named_parameters():
                w = parameter.data.double()
                if reads:
                    if key == "bias":
                        continue
                    w = w - (w @ a) @ b.T
                elif isinstance(module, torch.nn.Embedding):
                    w = w - (w @ b) @ a.T
                else:
                    w = w - a @ (b.T @ w)
                parameter.data = w
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype).float()


def difference(x, reference):
    return float((x - reference).norm() / reference.norm())


def check(folder):
    """fp32 within 1e-5; 16-bit types within twice the error of a plain fold rounded to nearest."""
    tokens = torch.randint(3, 90, (4, 24), generator=torch.Generator().manual_seed(0))
    failures, compared = [], 0
    for name, (*_, dtype) in CASES.items():
        with torch.no_grad():
            original = load(folder / name / "model")(tokens).logits
            for merged in sorted((folder / name).glob("ranks_*/*/config.json")):
                sites = read_sites(merged.parent.with_suffix(".h5"))
                hooked, rounded = load(folder / name / "model"), load(folder / name / "model")
                for model in (hooked, rounded):
                    add(model, merged.parent.with_suffix(".deltas.h5"))
                hook(hooked, sites)
                fold(rounded, sites, getattr(torch, dtype))
                expected = hooked(tokens).logits
                error = difference(load(merged.parent)(tokens).logits, expected)
                rounding = difference(rounded(tokens).logits, expected)
                effect = difference(original, expected)
                bound = 1e-5 if dtype == "float32" else 2 * rounding
                label = f"{name} {merged.parent.parent.name} {merged.parent.name}"
                print(f"{label}: error {error:.1e}, of rounding to nearest {rounding:.1e}, "
                      f"effect of the edits {effect:.1e}")
                compared += 1
                if not error <= bound or not effect > 10 * bound:
                    failures.append(label)
    if failures or compared == 0:
        sys.exit(f"compared {compared}, failed: {failures}")


if __name__ == "__main__":
    (check if sys.argv[2:] == ["check"] else make)(pathlib.Path(sys.argv[1]) / "edit")
