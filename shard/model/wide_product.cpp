#include "shard/model/wide_product.hpp"

#include <algorithm>

#include "dist/checked_cast.hpp"
#include "dist/error.hpp"

// Of MKL, which LibTorch for x86 contains without its headers; absent elsewhere.
extern "C" __attribute__((weak)) void cblas_gemm_bf16bf16f32(int layout, int trans_a, int trans_b,
                                                             int m, int n, int k, float alpha,
                                                             const void* a, int lda, const void* b,
                                                             int ldb, float beta, float* c,
                                                             int ldc);

namespace mrp::shard {

torch::Tensor wide_product(const torch::Tensor& x, const torch::Tensor& weight) {
  MRP_EXPECT(x.scalar_type() == torch::kBFloat16 && weight.scalar_type() == torch::kBFloat16);
  if (cblas_gemm_bf16bf16f32 == nullptr) {
    return torch::linear(x.to(torch::kFloat32), weight.to(torch::kFloat32));
  }
  constexpr int kRowMajor = 101, kNormal = 111, kTransposed = 112;
  const torch::Tensor a = x.contiguous(), b = weight.contiguous();
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  torch::Tensor result = torch::empty(shape, x.options().dtype(torch::kFloat32));
  const int n = dist::checked_cast<int>(weight.size(0)),
            k = dist::checked_cast<int>(weight.size(1));
  const int m = dist::checked_cast<int>(result.numel() / std::max(n, 1));
  if (m == 0 || n == 0 || k == 0) return result.zero_();
  cblas_gemm_bf16bf16f32(kRowMajor, kNormal, kTransposed, m, n, k, 1, a.data_ptr(), k, b.data_ptr(),
                         k, 0, result.data_ptr<float>(), n);
  return result;
}

}  // namespace mrp::shard
