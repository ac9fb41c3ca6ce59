"""Matrix products and sums in the order of the original's BLAS."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from pspnet_repro import ops

pytestmark = pytest.mark.skipif(ops.USE_REFERENCE, reason="the reference has other orders of sums")
_ops = torch.ops.pspnet


def _normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _products():
    """[(a, b)] of many sizes, some with more terms and columns than a block."""
    draw = np.random.RandomState(3)
    # Numpy multiplies single rows and columns in other ways.
    sizes = [tuple(draw.randint(2, 140, 3)) for _ in range(60)]
    sizes += [(12, 2025, 27), (5, 144, 700), (20, 333, 1000), (64, 700, 330), (100, 8, 2025)]
    return [(draw.randn(m, k).astype(np.float32), draw.randn(k, n).astype(np.float32))
            for m, n, k in sizes]


# Numpy's OpenBLAS is told by the environment, before it is loaded, to run the kernels that the
# golden values were made with.
WITNESS = """
import sys
import numpy as np
factors = iter(np.load(sys.argv[1]).values())
results = []
for a, b in zip(factors, factors):
    rows, columns = np.ones(a.shape[1], np.float32), np.ones(a.shape[0], np.float32)
    results += [a @ b, a @ rows, columns @ a]
np.savez(sys.argv[2], *results)
"""


def _openblas_on_avx2():
    """Whether numpy multiplies with OpenBLAS on a processor that runs its kernels for AVX2."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    return "openblas" in blas and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


@pytest.mark.skipif(not _openblas_on_avx2(), reason="numpy has no OpenBLAS with kernels for AVX2")
def test_products_and_sums_are_those_of_openblas(tmp_path):
    environment = os.environ | {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1"}
    np.savez(tmp_path / "factors.npz", *[factor for pair in _products() for factor in pair])
    subprocess.run([sys.executable, "-c", WITNESS, "factors.npz", "results.npz"], cwd=tmp_path,
                   env=environment, check=True, timeout=120)
    with np.load(tmp_path / "results.npz") as saved:
        results = iter(list(saved.values()))
    for a, b in _products():
        a, b = torch.from_numpy(a), torch.from_numpy(b)
        for ours in (_ops.original_gemm(a, b), _ops.original_sum_rows(a),
                     _ops.original_sum_columns(a)):
            np.testing.assert_array_equal(ours.numpy(), next(results), f"{a.shape} {b.shape}")


def _survivors(row, column, terms, big):
    """Of `terms` ones, those added to the sum in [row, column] after 2^30 and -2^30, which stand at
    the two places `big`, have cancelled: a one added in between is lost."""
    a = torch.ones(12, terms)
    a[row, big[0]], a[row, big[1]] = 2.0 ** 30, -2.0 ** 30
    return int(_ops.original_gemm(a, torch.ones(terms, 64))[row, column])


def test_gemm_sums_in_one_row_or_in_halves():
    # Term 1 is lost in a single run of sums, and survives among the odd terms of two.
    assert _survivors(6, 0, 16, (0, 2)) == 13
    assert _survivors(0, 0, 16, (0, 2)) == 14
    # The ninth term onwards belong to no whole eight: they follow the even ones.
    assert _survivors(0, 0, 11, (8, 10)) == 11 - 2 - 5


def test_gemm_sums_blocks_of_terms_apart():
    # 640 terms are two blocks of 320: what cancels within the first leaves the second alone.
    assert _survivors(6, 0, 640, (0, 319)) == 640 - 320
    assert _survivors(6, 0, 640, (320, 322)) == 640 - 323 + 320


def test_gemm_matches_float64_and_goes_on_from_a_sum():
    a, b, start = _normal(1, 37, 500), _normal(2, 500, 91), _normal(3, 37, 91)
    wanted = start.double() + a.double() @ b.double()
    # 500 roundings of sums near 22: half a last place each, at most.
    for x, y in ((a, b), (a.t().contiguous().t(), b.t().contiguous().t()), (a[:], b)):
        torch.testing.assert_close(_ops.original_gemm(x, y, start).double(), wanted, rtol=0,
                                   atol=5e-4)
    assert torch.equal(start, _normal(3, 37, 91))


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (6, 5000), (7, 8201), (20, 33), (19, 3)])
def test_sums_match_float64(shape):
    a = _normal(1, *shape)
    rows, columns = _normal(2, shape[0]), _normal(3, shape[1])
    torch.testing.assert_close(_ops.original_sum_rows(a, 0.3, rows).double(),
                               rows + 0.3 * a.double().sum(1), rtol=0, atol=2e-4)
    torch.testing.assert_close(_ops.original_sum_columns(a, 0.3, columns).double(),
                               columns + 0.3 * a.double().sum(0), rtol=0, atol=2e-5)


def test_axpy_fuses_all_but_a_rest():
    # (1 + 2^-12)^2 - 1 has a last bit that a product rounded by itself loses.
    x = torch.full((40,), 1 + 2.0 ** -12)
    y = torch.full((40,), -1.0)
    _ops.original_axpy(y, x, 1 + 2.0 ** -12)
    assert (y[:32] == 2.0 ** -11 + 2.0 ** -24).all()
    assert (y[32:] == 2.0 ** -11).all()


def test_functions_match_float64():
    x = _normal(1, 1000) * 5
    for ours, wanted in ((_ops.original_exp(x), x.double().exp()),
                         (_ops.original_log(x.abs()), x.abs().double().log()),
                         (_ops.original_pow(x.abs(), -0.5), x.abs().double() ** -0.5)):
        # A last place of float32.
        torch.testing.assert_close(ours.double(), wanted, rtol=1.2e-7, atol=1e-9)


def test_original_arithmetic_opcheck():
    a, b = _normal(1, 5, 9), _normal(2, 9, 7)
    for op, arguments in ((_ops.original_gemm, (a, b)),
                          (_ops.original_gemm, (a, b, _normal(3, 5, 7))),
                          (_ops.original_sum_rows, (a, 0.5)),
                          (_ops.original_sum_columns, (a, 0.5)),
                          (_ops.original_axpy, (a, _normal(3, 5, 9), 0.5)),
                          (_ops.original_exp, (a,)), (_ops.original_log, (a.abs(),)),
                          (_ops.original_pow, (a.abs(), 2.0))):
        torch.library.opcheck(op.default, arguments)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: _ops.original_gemm(torch.ones(2, 3), torch.ones(2, 3)), "as many columns as b"),
    (lambda: _ops.original_gemm(torch.ones(2, 3).double(), torch.ones(3, 2)), "a must be float32"),
    (lambda: _ops.original_gemm(torch.ones(2), torch.ones(2, 2)), "a must be 2-D, got 1-D"),
    (lambda: _ops.original_gemm(torch.ones(2, 2), torch.ones(2, 2), torch.ones(4)),
     "sum must have shape"),
    (lambda: _ops.original_sum_rows(torch.ones(2, 3), 1, torch.ones(3)), "sum must have shape"),
    (lambda: _ops.original_axpy(torch.ones(2), torch.ones(3), 1), "x must have shape"),
    (lambda: _ops.original_exp(torch.ones(2).double()), "input must be float32")])
def test_original_arithmetic_rejects(call, message):
    with pytest.raises(RuntimeError, match=message):
        call()
