"""What public projection tools do: load a shard, project, round, save it, the next.

    python tests/bench/merge/rewrite.py CHECKPOINT OUTPUT
"""
import os
import pathlib
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file

DIRECTIONS = 32
EDITED = ("o_proj.weight", "down_proj.weight")


def random_basis(width):
    basis = torch.linalg.qr(torch.randn(width, min(DIRECTIONS, width // 2)))[0]
    return basis


def main():
    source, target = map(pathlib.Path, sys.argv[1:])
    target.mkdir()
    with torch.inference_mode():
        for path in sorted(source.iterdir()):
            if path.suffix != ".safetensors":
                shutil.copy(path, target)
                continue
            tensors = load_file(path)
            for name, tensor in tensors.items():
                if name.endswith(EDITED):
                    basis = random_basis(tensor.shape[1])
                    wide = tensor.float()
                    tensors[name] = (wide - (wide @ basis) @ basis.T).to(tensor.dtype)
            save_file(tensors, target / path.name, metadata={"format": "pt"})
    os.sync()


if __name__ == "__main__":
    main()
