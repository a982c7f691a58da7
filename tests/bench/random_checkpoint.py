"""Write a Llama checkpoint of real shape with random weights, for measuring time and memory.

    python tests/bench/random_checkpoint.py --shape 1.1b [--tokenizer MODEL] --output DIR

A shape is a name or six numbers: hidden, layers, intermediate, heads, kv heads, vocabulary.
"""
import argparse
import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file

# hidden, layers, intermediate, heads, kv heads, vocabulary
SHAPES = {"tiny": (64, 2, 128, 4, 2, 256), "small": (512, 8, 1536, 8, 4, 8192),
          "1.1b": (2048, 22, 5632, 32, 4, 32000),
          "8b": (4096, 32, 14336, 32, 8, 128256),
          "70b-4-layers": (8192, 4, 28672, 64, 8, 128256)}


def layer_shapes(hidden, intermediate, heads, kv_heads):
    """Name and shape of every tensor of a layer."""
    head = hidden // heads
    return {"self_attn.q_proj.weight": (hidden, hidden), "self_attn.k_proj.weight": (kv_heads * head, hidden),
            "self_attn.v_proj.weight": (kv_heads * head, hidden), "self_attn.o_proj.weight": (hidden, hidden),
            "mlp.gate_proj.weight": (intermediate, hidden), "mlp.up_proj.weight": (intermediate, hidden),
            "mlp.down_proj.weight": (hidden, intermediate), "input_layernorm.weight": (hidden,),
            "post_attention_layernorm.weight": (hidden,)}


def tensor_shapes(hidden, layers, intermediate, heads, kv_heads, vocabulary):
    """Name and shape of every tensor of the model, in order."""
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        for name, shape in layer_shapes(hidden, intermediate, heads, kv_heads).items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def split(shapes, limit):
    """Consecutive groups of at most `limit` bytes of bf16; a larger tensor is alone."""
    groups, size = [[]], 0
    for name, shape in shapes.items():
        bytes_ = 2 * torch.Size(shape).numel()
        if groups[-1] and size + bytes_ > limit:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += bytes_
    return groups


def random_tensor(shape, generator):
    """Norm weights are one, matrices keep the variance of what they multiply."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return (torch.randn(shape, generator=generator) / shape[1] ** 0.5).to(torch.bfloat16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="1.1b",
                        help=f"{', '.join(SHAPES)} or six numbers with commas between them")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="checkpoint that lends its tokenizer")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--shard-megabytes", type=int, default=500)
    arguments = parser.parse_args()
    shape = SHAPES.get(arguments.shape) or tuple(map(int, arguments.shape.split(",")))
    hidden, layers, intermediate, heads, kv_heads, vocabulary = shape
    if arguments.output.exists():
        sys.exit(f"error: {arguments.output} exists; name a new directory")
    arguments.output.mkdir(parents=True)
    shapes = tensor_shapes(*shape)
    groups = split(shapes, arguments.shard_megabytes * 1_000_000)
    generator = torch.Generator().manual_seed(0)
    weight_map = {}
    for i, names in enumerate(groups):
        file = f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors"
        save_file({name: random_tensor(shapes[name], generator) for name in names},
                  arguments.output / file, metadata={"format": "pt"})
        weight_map |= {name: file for name in names}
        print(f"{file}: {len(names)} tensors", flush=True)
    total = sum(2 * torch.Size(shape).numel() for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (arguments.output / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
              "num_hidden_layers": layers, "intermediate_size": intermediate, "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "vocab_size": vocabulary, "max_position_embeddings": 4096,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "dtype": "bfloat16",
              "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 1}
    (arguments.output / "config.json").write_text(json.dumps(config, indent=2))
    for name in ("tokenizer.json", "tokenizer_config.json") if arguments.tokenizer else ():
        shutil.copy(arguments.tokenizer / name, arguments.output / name)


if __name__ == "__main__":
    main()
