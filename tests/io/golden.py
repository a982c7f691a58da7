"""Files from the Python packages that mrp must agree with: golden.py FOLDER writes FOLDER/io."""

import hashlib
import json
import pathlib
import sys

import torch
from safetensors.torch import save
from transformers import LlamaConfig, MistralConfig

# Every type that the Python package can write; F6_E2M3 and F6_E3M2 are in the format only.
DTYPES = (
    "bool uint8 int8 float8_e5m2 float8_e4m3fn float8_e8m0fnu float8_e4m3fnuz float8_e5m2fnuz "
    "int16 uint16 float16 bfloat16 int32 uint32 float32 complex64 float64 int64 uint64 float4_e2m1fn_x2"
).split()


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    result = {}
    for name in DTYPES:
        dtype = getattr(torch, name)
        size = torch.empty(0, dtype=dtype).element_size()
        for suffix, shape in (("z", (2, 3)), ("a", (5,))):
            count = torch.Size(shape).numel() * size
            high = 2 if name == "bool" else 256
            data = torch.randint(high, (count,), dtype=torch.uint8, generator=generator)
            result[f"{name}.{suffix}"] = data.view(dtype).reshape(shape)
    result["scalar"] = torch.tensor(2.5)
    result["empty"] = torch.empty((4, 0, 3), dtype=torch.bfloat16)
    result['name "quoted" \\ é 语'] = torch.arange(3)
    return result


def main() -> None:
    folder = pathlib.Path(sys.argv[1]) / "io"
    folder.mkdir(parents=True, exist_ok=True)
    data = tensors()
    (folder / "all_types.safetensors").write_bytes(save(data, metadata={"format": "pt"}))
    facts = {}
    for name, tensor in data.items():
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        facts[name] = hashlib.sha256(raw).hexdigest()
    (folder / "all_types.json").write_text(json.dumps(facts))

    llama = LlamaConfig(
        hidden_size=96, intermediate_size=200, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, head_dim=32, vocab_size=777, max_position_embeddings=4096,
        tie_word_embeddings=True, attention_bias=True, rms_norm_eps=2e-5, eos_token_id=[5, 9],
        dtype="bfloat16",
        rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0,
                         "low_freq_factor": 1.5, "high_freq_factor": 4.5,
                         "original_max_position_embeddings": 1024})
    llama.save_pretrained(folder / "llama")
    mistral = MistralConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, vocab_size=100, max_position_embeddings=512, sliding_window=64,
        dtype="float32")
    mistral.save_pretrained(folder / "mistral")


if __name__ == "__main__":
    main()
