#include "shard/model/fused.hpp"

#include <ATen/Parallel.h>
#include <torch/autograd.h>

#include <algorithm>
#include <vector>

#include "shard/model/fused_kernels.hpp"
#include "shard/packing.hpp"

namespace mrp::shard {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

/// Elements that are worth a thread.
constexpr std::int64_t kGrain = 1 << 14;

bool has_kernel(const torch::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == torch::kBFloat16 || x.scalar_type() == torch::kFloat32);
}

/// f(null of the element type that the kernels see).
template <class Function>
void for_type(const torch::Tensor& x, Function&& f) {
  if (x.scalar_type() == torch::kBFloat16) {
    f(static_cast<io::bf16*>(nullptr));
  } else {
    f(static_cast<float*>(nullptr));
  }
}

template <class T>
T* data(const torch::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

/// Vectors along the last dimension.
std::int64_t row_count(const torch::Tensor& x) {
  return x.numel() / x.size(-1);
}

/// f(begin, end) over rows of `width` elements, on all threads.
template <class Function>
void over_rows(std::int64_t rows, std::int64_t width, Function&& f) {
  at::parallel_for(0, rows, std::max<std::int64_t>(kGrain / width, 1), f);
}

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& input,
                               const torch::Tensor& weight, double eps) {
    const torch::Tensor x = input.contiguous();
    const std::int64_t width = x.size(-1), rows = row_count(x);
    torch::Tensor y = torch::empty_like(x);
    torch::Tensor inverse = torch::empty({rows, 1}, torch::kFloat32);
    for_type(x, [&]<class T>(T*) {
      over_rows(rows, width, [&](std::int64_t begin, std::int64_t end) {
        kernels::rms_norm(data<T>(x) + begin * width, data<T>(weight), static_cast<float>(eps),
                          end - begin, width, data<T>(y) + begin * width,
                          data<float>(inverse) + begin);
      });
    });
    context->save_for_backward({x, weight, inverse});
    return y;
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor &x = saved[0], &weight = saved[1], &inverse = saved[2];
    const torch::Tensor dy = gradients[0].contiguous();
    const std::int64_t width = x.size(-1), rows = inverse.size(0);
    torch::Tensor dx = torch::empty_like(x);
    for_type(x, [&]<class T>(T*) {
      over_rows(rows, width, [&](std::int64_t begin, std::int64_t end) {
        kernels::rms_norm_gradient(data<T>(dy) + begin * width, data<T>(x) + begin * width,
                                   data<T>(weight), data<float>(inverse) + begin, end - begin,
                                   width, data<T>(dx) + begin * width);
      });
    });
    torch::Tensor dweight;
    if (context->needs_input_grad(1)) {
      const torch::Tensor normal = x.view({rows, width}).to(torch::kFloat32) * inverse;
      dweight = (normal * dy.view({rows, width})).sum(0).to(weight.scalar_type());
    }
    return {dx, dweight, torch::Tensor()};
  }
};

struct GatedSiluFunction : torch::autograd::Function<GatedSiluFunction> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& input) {
    const torch::Tensor gate_up = input.contiguous();
    auto shape = gate_up.sizes().vec();
    const std::int64_t width = shape.back() /= 2;
    torch::Tensor y = torch::empty(shape, gate_up.options());
    for_type(gate_up, [&]<class T>(T*) {
      over_rows(row_count(y), width, [&](std::int64_t begin, std::int64_t end) {
        kernels::gated_silu(data<T>(gate_up) + begin * 2 * width, end - begin, width,
                            data<T>(y) + begin * width);
      });
    });
    context->save_for_backward({gate_up});
    return y;
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    const torch::Tensor gate_up = context->get_saved_variables()[0];
    const torch::Tensor dy = gradients[0].contiguous();
    const std::int64_t width = dy.size(-1);
    torch::Tensor result = torch::empty_like(gate_up);
    for_type(gate_up, [&]<class T>(T*) {
      over_rows(row_count(dy), width, [&](std::int64_t begin, std::int64_t end) {
        kernels::gated_silu_gradient(data<T>(dy) + begin * width,
                                     data<T>(gate_up) + begin * 2 * width, end - begin, width,
                                     data<T>(result) + begin * 2 * width);
      });
    });
    return {result};
  }
};

/// Which part of qkv [batch × length × all heads × dim] goes to a tensor [batch × heads × length ×
/// dim].
struct HeadPart {
  std::int64_t first, count;
  bool rotated;
};

std::array<HeadPart, 3> head_parts(std::int64_t heads, std::int64_t kv_heads) {
  return {{{0, heads, true}, {heads, kv_heads, true}, {heads + kv_heads, kv_heads, false}}};
}

/// f(head vectors in qkv, the same in their part, HeadPart, row) for all rows [batch · length].
template <class T, class Function>
void over_heads(const torch::Tensor& qkv, const std::array<torch::Tensor, 3>& parts,
                std::int64_t heads, std::int64_t kv_heads, Function&& f) {
  const std::int64_t length = qkv.size(1), all = heads + 2 * kv_heads, dim = qkv.size(2) / all;
  over_rows(qkv.size(0) * length, all * dim, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t batch = row / length, position = row % length;
      const auto shapes = head_parts(heads, kv_heads);
      for (std::size_t i = 0; i < parts.size(); ++i) {
        const HeadPart& part = shapes[i];
        const std::int64_t at = (batch * part.count * length + position) * dim;
        f(kernels::Vectors<T>{data<T>(qkv) + (row * all + part.first) * dim, dim},
          kernels::Vectors<T>{data<T>(parts[i]) + at, length * dim}, part, row);
      }
    }
  });
}

template <class T>
void copy_heads(kernels::Vectors<T> from, std::int64_t heads, std::int64_t dim,
                kernels::Vectors<T> to) {
  for (; heads > 0; --heads, from.data += from.stride, to.data += to.stride) {
    std::copy_n(from.data, dim, to.data);
  }
}

struct SplitAndRotate : torch::autograd::Function<SplitAndRotate> {
  static tensor_list forward(AutogradContext* context, const torch::Tensor& input,
                             const torch::Tensor& cos, const torch::Tensor& sin, std::int64_t heads,
                             std::int64_t kv_heads) {
    const torch::Tensor qkv = input.contiguous();
    // One table for all sequences, or a row of it for each token.
    const std::int64_t dim = cos.size(-1), angles = row_count(cos);
    std::array<torch::Tensor, 3> parts;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      parts[i] = torch::empty({qkv.size(0), head_parts(heads, kv_heads)[i].count, qkv.size(1), dim},
                              qkv.options());
    }
    for_type(qkv, [&]<class T>(T*) {
      over_heads<T>(qkv, parts, heads, kv_heads,
                    [&](kernels::Vectors<T> from, kernels::Vectors<T> to, const HeadPart& part,
                        std::int64_t row) {
                      if (!part.rotated) return copy_heads(from, part.count, dim, to);
                      const std::int64_t at = row % angles * dim;
                      kernels::rotate<T>({from.data, from.stride}, data<T>(cos) + at,
                                         data<T>(sin) + at, part.count, dim, to);
                    });
    });
    context->save_for_backward({cos, sin});
    context->saved_data["heads"] = heads;
    context->saved_data["kv_heads"] = kv_heads;
    return {parts.begin(), parts.end()};
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor &cos = saved[0], &sin = saved[1];
    const std::int64_t heads = context->saved_data["heads"].toInt();
    const std::int64_t kv_heads = context->saved_data["kv_heads"].toInt();
    // One table for all sequences, or a row of it for each token.
    const std::int64_t dim = cos.size(-1), angles = row_count(cos);
    std::array<torch::Tensor, 3> parts;
    for (std::size_t i = 0; i < parts.size(); ++i) parts[i] = gradients[i].contiguous();
    torch::Tensor result = torch::empty(
        {parts[0].size(0), parts[0].size(2), (heads + 2 * kv_heads) * dim}, parts[0].options());
    for_type(result, [&]<class T>(T*) {
      over_heads<T>(result, parts, heads, kv_heads,
                    [&](kernels::Vectors<T> to, kernels::Vectors<T> from, const HeadPart& part,
                        std::int64_t row) {
                      if (!part.rotated) return copy_heads(from, part.count, dim, to);
                      const std::int64_t at = row % angles * dim;
                      kernels::rotate_gradient<T>({from.data, from.stride}, data<T>(cos) + at,
                                                  data<T>(sin) + at, part.count, dim, to);
                    });
    });
    return {result, {}, {}, {}, {}};
  }
};

/// `seen` may be undefined, which an input of a function must not be.
struct CausalSoftmax : torch::autograd::Function<CausalSoftmax> {
  static kernels::Seen seen_by(const torch::Tensor& scores, const torch::Tensor& seen) {
    if (!seen.defined()) return {nullptr, 0};
    return {data<std::int32_t>(seen), row_count(scores) / seen.size(0)};
  }

  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& input, double scale,
                               const torch::Tensor* seen) {
    const torch::Tensor x = input.contiguous();
    const std::int64_t length = x.size(-1), rows = row_count(x);
    torch::Tensor y = torch::empty_like(x);
    for_type(x, [&]<class T>(T*) {
      over_rows(rows, length, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> room(static_cast<std::size_t>(length));
        kernels::causal_softmax(data<T>(x) + begin * length, static_cast<float>(scale),
                                seen_by(x, *seen), begin, end - begin, length, room.data(),
                                data<T>(y) + begin * length);
      });
    });
    context->save_for_backward({y});
    context->saved_data["seen"] = *seen;
    context->saved_data["scale"] = scale;
    return y;
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    const torch::Tensor y = context->get_saved_variables()[0];
    const torch::Tensor seen = context->saved_data["seen"].toTensor();
    const auto scale = static_cast<float>(context->saved_data["scale"].toDouble());
    const torch::Tensor dy = gradients[0].contiguous();
    const std::int64_t length = y.size(-1), rows = row_count(y);
    torch::Tensor dx = torch::empty_like(y);
    for_type(y, [&]<class T>(T*) {
      over_rows(rows, length, [&](std::int64_t begin, std::int64_t end) {
        kernels::causal_softmax_gradient(data<T>(dy) + begin * length, data<T>(y) + begin * length,
                                         scale, seen_by(y, seen), begin, end - begin, length,
                                         data<T>(dx) + begin * length);
      });
    });
    return {dx, torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps) {
  if (has_kernel(x) && weight.scalar_type() == x.scalar_type()) {
    return RmsNormFunction::apply(x, weight, eps);
  }
  const torch::Tensor wide = x.to(torch::kFloat32);
  const torch::Tensor scale = torch::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
  return weight * (wide * scale).to(x.scalar_type());
}

torch::Tensor gated_silu(const torch::Tensor& gate_up) {
  if (has_kernel(gate_up)) return GatedSiluFunction::apply(gate_up);
  const auto halves = gate_up.chunk(2, -1);
  return torch::silu(halves[0]) * halves[1];
}

std::array<torch::Tensor, 3> split_and_rotate(const torch::Tensor& qkv, std::int64_t heads,
                                              std::int64_t kv_heads, const RotaryTable& table) {
  const std::int64_t angles = row_count(table.cos);
  const bool fits = angles == qkv.size(1) || angles == row_count(qkv);
  if (has_kernel(qkv) && fits && table.cos.scalar_type() == qkv.scalar_type()) {
    const tensor_list parts =
        SplitAndRotate::apply(qkv, table.cos.contiguous(), table.sin.contiguous(), heads, kv_heads);
    return {parts[0], parts[1], parts[2]};
  }
  const torch::Tensor split =
      qkv.unflatten(-1, {heads + 2 * kv_heads, table.cos.size(-1)}).transpose(1, 2);
  return {table.rotate(split.narrow(1, 0, heads)), table.rotate(split.narrow(1, heads, kv_heads)),
          split.narrow(1, heads + kv_heads, kv_heads)};
}

torch::Tensor causal_softmax(const torch::Tensor& scores, double scale, const torch::Tensor& seen) {
  if (has_kernel(scores)) return CausalSoftmax::apply(scores, scale, &seen);
  const std::int64_t length = scores.size(-1);
  const torch::Tensor mask =
      seen.defined() ? seen_mask(seen)
                     : torch::ones({length, length}, scores.options().dtype(torch::kBool)).tril();
  const torch::Tensor wide = (scores.to(torch::kFloat32) * scale).unflatten(-2, {-1, length});
  // Masks of single sequences [batch × 1 × length × length] stand before the groups of heads.
  const torch::Tensor fitting = seen.defined() ? mask.unsqueeze(1) : mask;
  return torch::softmax(wide.masked_fill(~fitting, -INFINITY), -1)
      .flatten(-3, -2)
      .to(scores.scalar_type());
}

}  // namespace mrp::shard
