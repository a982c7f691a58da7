#include "shard/model/recompute.hpp"
#include <torch/autograd.h>
#include <torch/utils.h>

#include <utility>

namespace mrp::shard {
namespace {

using Function = std::function<torch::Tensor(const torch::Tensor&)>;
using Variables = torch::autograd::variable_list;

struct Closure : torch::CustomClassHolder {
  explicit Closure(Function function) : run(std::move(function)) {}
  Function run;
};

class Recompute : public torch::autograd::Function<Recompute> {
 public:
  /// `anchor` requires a gradient, so that the pass is recorded whether or not x does.
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& x,
                               const torch::Tensor& /*anchor*/,
                               const c10::intrusive_ptr<Closure>& closure) {
    const torch::NoGradGuard no_grad;
    context->save_for_backward({x});
    context->saved_data["closure"] = torch::IValue::make_capsule(closure);
    return closure->run(x);
  }

  static Variables backward(torch::autograd::AutogradContext* context, Variables gradients) {
    const auto closure =
        c10::static_intrusive_pointer_cast<Closure>(context->saved_data["closure"].toCapsule());
    torch::Tensor x = context->get_saved_variables()[0].detach().requires_grad_();
    const torch::AutoGradMode grad(true);
    closure->run(x).backward(gradients[0]);
    return {x.grad(), {}, {}};
  }
};

}  // namespace

torch::Tensor recompute(const torch::Tensor& x, Function f) {
  if (!torch::GradMode::is_enabled()) return f(x);
  const torch::Tensor anchor = torch::empty({0}).requires_grad_();
  return Recompute::apply(x, anchor, c10::make_intrusive<Closure>(std::move(f)));
}

}  // namespace mrp::shard
