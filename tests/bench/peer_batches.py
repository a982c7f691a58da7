"""Batches as the peers in Python make them, and the type in which they compute."""
import pathlib
import sys

import numpy
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "jobs" / "py"))
from processor import FAST_BF16  # noqa: E402

COMPUTE = torch.bfloat16 if FAST_BF16 else torch.float32  # of the products of both sides


def by_length(texts, batch_tokens=4096):
    """Lists of indices in ascending order of length; padded, none has more than `batch_tokens`."""
    lengths = [len(ids) for ids, _ in texts]
    batches = [[]]
    for i in sorted(range(len(texts)), key=lambda i: (lengths[i], i)):
        if batches[-1] and (len(batches[-1]) + 1) * lengths[i] > batch_tokens:
            batches.append([])
        batches[-1].append(i)
    return batches


def pad(texts, members, length=0):
    """Token ids and target mask [members × longest], or `length` if that is more; on the right."""
    length = max(length, *(len(texts[i][0]) for i in members))
    ids = torch.zeros((len(members), length), dtype=torch.int64)
    mask = torch.zeros((len(members), length), dtype=torch.bool)
    for row, i in enumerate(members):
        ids[row, :len(texts[i][0])] = torch.from_numpy(texts[i][0].astype(numpy.int64))
        mask[row, :len(texts[i][1])] = torch.from_numpy(texts[i][1])
    return ids, mask
