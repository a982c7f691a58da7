"""What the processor multiplies fastest."""
import torch

CPU = torch.cpu.get_capabilities()
# Elsewhere bf16 is emulated, a hundred times slower; Intel's AVX-512 has it at half the rate of
# fp32. The same rule as default_compute_dtype in shard/model.
FAST_BF16 = bool(CPU.get("amx_bf16") or CPU.get("bf16") or
                 CPU.get("avx512_bf16") and "Intel" not in CPU["cpu_name"])
