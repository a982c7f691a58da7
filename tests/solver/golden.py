"""Subspaces by scipy, straight from the definitions with dense width × width matrices in fp64.

Usage: golden.py DIRECTORY. Writes DIRECTORY/solver/<case>/, raw little-endian arrays in row-major order:
sizes.txt (width, forget rows, retain rows, k), forget.f32, retain.f32 and for each rule
<rule>.values.f64 [k], <rule>.kernel.f64 [width × k], <rule>.<projector>.f64 [width × width] (P itself) and
<rule>.<projector>.numbers.f64 [retain distortion, forget removed].
"""

import sys
from pathlib import Path

import numpy as np
from scipy.linalg import eigh, inv, orth

RIDGE, ALPHA, ENERGY = 1e-2, 1.25, 0.9


def to_bf16(x):
    """Values rounded to bf16 (ties to even), as fp32."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


def make_states(rng, width, forget_rows, retain_rows, massive):
    """Common spectrum ~ 1/i, five forget-specific directions, possibly a massive channel."""
    scale = 1 / np.sqrt(np.arange(1, width + 1))
    mixing = np.linalg.qr(rng.normal(size=(width, width)))[0]
    mean = 0.3 * rng.normal(size=width)
    own = np.linalg.qr(rng.normal(size=(width, 5)))[0] * [1.5, 1.2, 1.0, 0.8, 0.6]
    forget = rng.normal(size=(forget_rows, width)) * scale @ mixing + mean
    forget += rng.normal(size=(forget_rows, 5)) @ own.T
    retain = rng.normal(size=(retain_rows, width)) * scale @ mixing + mean
    if massive:
        forget[:, 7] += 300
        retain[:, 7] += 300
    return to_bf16(forget), to_bf16(retain)


def top(matrix, k, other=None):
    n = len(matrix)
    values, vectors = eigh(matrix, other, subset_by_index=[n - k, n - 1])
    return values[::-1], vectors[:, ::-1]


def solve(rule, cf, regularised, cr, k):
    if rule == "gevp":
        values, filters = top(cf, k, regularised)
        return values, regularised @ filters
    if rule == "cpca":
        return top(cf - ALPHA * cr, k)
    if rule == "forget_complement":
        return solve("retain_complement", cr, None, cf, k)
    if rule == "retain_complement":
        values, vectors = eigh(cr)
        values, vectors = values[::-1], vectors[:, ::-1]
        r = int(np.searchsorted(np.cumsum(values), ENERGY * values.sum())) + 1
        outside = np.eye(len(cr)) - vectors[:, :r] @ vectors[:, :r].T
        return top(outside @ cf @ outside, k)
    return top(cf, k)


def write_case(folder, seed, width, forget_rows, retain_rows, k, massive=False):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    forget, retain = make_states(rng, width, forget_rows, retain_rows, massive)
    (folder / "sizes.txt").write_text(f"{width} {forget_rows} {retain_rows} {k}\n")
    forget.astype("<f4").tofile(folder / "forget.f32")
    retain.astype("<f4").tofile(folder / "retain.f32")

    xf, xr = forget.astype(np.float64), retain.astype(np.float64)
    cf, cr = xf.T @ xf / forget_rows, xr.T @ xr / retain_rows
    regularised = cr + RIDGE * np.trace(cr) / width * np.eye(width)
    for rule in ("gevp", "cpca", "retain_complement", "forget_complement", "forget_pca"):
        values, kernel = solve(rule, cf, regularised, cr, k)
        values.astype("<f8").tofile(folder / f"{rule}.values.f64")
        kernel.astype("<f8").tofile(folder / f"{rule}.kernel.f64")
        weight = inv(regularised)
        q = orth(kernel)
        projectors = {
            "oblique": np.eye(width) - q @ inv(q.T @ weight @ q) @ q.T @ weight,
            "orthogonal": np.eye(width) - q @ q.T,
        }
        for kind, p in projectors.items():
            change = np.eye(width) - p
            numbers = [np.trace(change @ c @ change.T) / np.trace(c) for c in (cr, cf)]
            p.astype("<f8").tofile(folder / f"{rule}.{kind}.f64")
            np.array(numbers, "<f8").tofile(folder / f"{rule}.{kind}.numbers.f64")


def main():
    root = Path(sys.argv[1]) / "solver"
    write_case(root / "tall", 1, width=70, forget_rows=81, retain_rows=142, k=5)
    write_case(root / "wide", 2, width=131, forget_rows=31, retain_rows=47, k=4)
    write_case(root / "massive", 3, width=66, forget_rows=80, retain_rows=130, k=5, massive=True)


if __name__ == "__main__":
    main()
