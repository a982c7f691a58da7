"""All sites of a states file by public means, one after the other. Prints the seconds of each way.

    python tests/bench/solve/peers.py numpy|scipy FILE DIMENSION FOLDER

Covariances are NumPy's products; then `numpy` whitens the pencil by Cholesky and takes all eigenpairs
of what results, `scipy` asks LAPACK's dsygvx for as many as are wanted. Leaves the kernel of a site
[width × k], row-major, in FOLDER/<way>.<site>.f64.
"""
import pathlib
import sys
import time

import h5py
import numpy
import scipy.linalg

RIDGE = 1e-2  # as in the solver


def covariance(states):
    states = states[:].astype(numpy.float64)
    return states.T @ states / len(states)


def whitened(forget, retain, k):
    lower = numpy.linalg.cholesky(retain)
    half = numpy.linalg.solve(lower, forget)
    vectors = numpy.linalg.eigh(numpy.linalg.solve(lower, half.T))[1][:, -k:]
    return numpy.linalg.solve(lower.T, vectors)


def generalised(forget, retain, k):
    width = len(forget)
    return scipy.linalg.eigh(forget, retain, subset_by_index=(width - k, width - 1))[1]


def kernel(forget, retain, way, k):
    """What the k leading filters of the pencil remove."""
    retain[numpy.diag_indices_from(retain)] += RIDGE * numpy.trace(retain) / len(retain)
    return retain @ (whitened if way == "numpy" else generalised)(forget, retain, k)


def main():
    way, file, dimension, folder = sys.argv[1:]
    kernels = {}
    start = time.perf_counter()
    with h5py.File(file) as states:
        for site in states["forget"]:
            if site != "positions":
                pair = (covariance(states[name][site]["hidden_states"]) for name in ("forget", "retain"))
                kernels[site] = kernel(*pair, way, int(dimension))
    print(time.perf_counter() - start)
    for site, values in kernels.items():
        values.tofile(pathlib.Path(folder) / f"{way}.{site}.f64")


if __name__ == "__main__":
    main()
