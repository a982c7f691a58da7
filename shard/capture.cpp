#include "shard/capture.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <exception>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include <fmt/format.h>
#include <torch/utils.h>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "dist/partition.hpp"
#include "io/state_store.hpp"
#include "shard/batches.hpp"

namespace mrp::shard {
namespace {

/// Rows of a site gather in memory up to this much before they are written; all sites together up
/// to the second bound.
constexpr std::int64_t kSiteBufferBytes = std::int64_t{16} << 20;
constexpr std::int64_t kAllBufferBytes = std::int64_t{512} << 20;

/// Rounds between which data ranks do not wait for each other: some batches take longer.
constexpr std::int64_t kAgreeEvery = 8;

/// What is kept of a set: rows in the order of the batch plan.
struct SetPlan {
  const io::TokenSet* set;
  BatchPlan batches;
  std::vector<std::int64_t> first_row;                 // [order + 1]
  std::vector<std::array<std::int64_t, 2>> positions;  // (sequence, position) of each row
};

std::vector<std::int64_t> kept_positions(const io::Sequences& sequences, std::int64_t index,
                                         Positions which) {
  std::vector<std::int64_t> kept;
  const auto mask = sequences.mask(index);
  // Position 0 attends to nothing but itself and serves as attention sink: its states are outliers.
  for (std::size_t t = 1; t < mask.size(); ++t) {
    if (which == Positions::all || mask[t] != 0) kept.push_back(static_cast<std::int64_t>(t));
  }
  return kept;
}

SetPlan plan_set(const io::TokenSet& set, const io::ModelConfig& config,
                 const CaptureOptions& options, int data_ranks) {
  const io::Sequences& sequences = set.items;
  check_sequences(config, sequences, fmt::format("set {}", set.name));
  std::vector<std::int64_t> chosen;
  for (std::int64_t i = 0; i < sequences.count(); ++i) {
    if (!kept_positions(sequences, i, options.positions).empty()) chosen.push_back(i);
  }
  SetPlan plan{
      &set, plan_batches(sequences, std::move(chosen), data_ranks, options.batch_tokens), {0}, {}};
  for (const std::int64_t index : plan.batches.order) {
    for (const std::int64_t t : kept_positions(sequences, index, options.positions)) {
      plan.positions.push_back({index, t});
    }
    plan.first_row.push_back(static_cast<std::int64_t>(plan.positions.size()));
  }
  return plan;
}

io::DType file_type(torch::ScalarType dtype) {
  MRP_EXPECT(dtype == torch::kBFloat16 || dtype == torch::kFloat32);
  return dtype == torch::kBFloat16 ? io::DType::bf16 : io::DType::f32;
}

/// Takes the kept rows of a set from the hooks to the file. A failure is kept until the ranks agree
/// on it: the forward pass of the others waits for this rank's part in the collectives.
class RowSink {
 public:
  RowSink(io::StateWriter& writer, const io::StateLayout& file, const SetPlan& plan,
          const std::vector<Site>& sites, const CausalLM& model, dist::Timers& timers)
      : writer_(&writer), plan_(&plan), timers_(&timers) {
    const TensorCollectives& ranks = model.collectives();
    for (std::size_t i = 0; i < sites.size(); ++i) {
      const io::SiteShape& shape = file.sites[i];
      buffers_[sites[i]] = {
          dist::slice(shape.width, ranks.size(), ranks.rank()), file.page_rows(shape), 0, 0, {}};
    }
    limit_ = std::min(kSiteBufferBytes, kAllBufferBytes / static_cast<std::int64_t>(sites.size()));
  }

  /// The next states that the hook sees are those of `batch`, padded to `length` positions.
  void begin_batch(dist::Range batch, std::int64_t length, torch::Device device) {
    first_row_ = plan_->first_row[static_cast<std::size_t>(batch.begin)];
    std::vector<std::int64_t> flat;
    for (std::int64_t i = batch.begin; i < batch.end; ++i) {
      const auto rows = std::pair(plan_->first_row[static_cast<std::size_t>(i)],
                                  plan_->first_row[static_cast<std::size_t>(i) + 1]);
      for (std::int64_t row = rows.first; row < rows.second; ++row) {
        flat.push_back((i - batch.begin) * length +
                       plan_->positions[static_cast<std::size_t>(row)][1]);
      }
    }
    selection_ = torch::tensor(flat, torch::kInt64).to(device);
  }

  void add(const Site& site, const torch::Tensor& states) {
    const auto found = buffers_.find(site);
    if (found == buffers_.end() || failure_) return;
    try {
      Buffer& buffer = found->second;
      torch::Tensor rows = states.flatten(0, 1);
      if (!site.is_split()) rows = rows.narrow(1, buffer.columns.begin, buffer.columns.size());
      rows = rows.index_select(0, selection_);
      check_finite(site, rows);
      append(buffer, rows.cpu().contiguous());
      if (std::ssize(buffer.bytes) < limit_) return;
      const dist::Timers::Scope scope(*timers_, "write");
      // Up to the end of a page; the rest goes with what follows.
      const std::int64_t rest = (buffer.first_row + buffer.rows) % buffer.page_rows;
      flush(site, buffer, std::max<std::int64_t>(buffer.rows - rest, 0));
    } catch (...) {
      failure_ = std::current_exception();
    }
  }

  void flush_all() {
    for (auto& [site, buffer] : buffers_) {
      flush(site, buffer, buffer.rows);
      buffer.bytes = {};
    }
  }

  std::exception_ptr failure() const { return failure_; }

 private:
  struct Buffer {
    dist::Range columns;
    std::int64_t page_rows = 1;  ///< see io::StateLayout
    std::int64_t first_row = 0;
    std::int64_t rows = 0;
    std::vector<std::byte> bytes;
  };

  void append(Buffer& buffer, const torch::Tensor& rows) const {
    if (buffer.rows == 0) buffer.first_row = first_row_;
    buffer.rows += rows.size(0);
    const auto* data = static_cast<const std::byte*>(rows.const_data_ptr());
    buffer.bytes.insert(buffer.bytes.end(), data, data + rows.nbytes());
  }

  /// The first `rows` of the buffer.
  void flush(const Site& site, Buffer& buffer, std::int64_t rows) {
    if (rows == 0) return;
    const std::size_t bytes = buffer.bytes.size() / static_cast<std::size_t>(buffer.rows) *
                              static_cast<std::size_t>(rows);
    writer_->write(plan_->set->name, site.name(), {buffer.first_row, buffer.first_row + rows},
                   buffer.columns, std::span(buffer.bytes).first(bytes));
    buffer.first_row += rows;
    buffer.rows -= rows;
    buffer.bytes.erase(buffer.bytes.begin(),
                       buffer.bytes.begin() + static_cast<std::ptrdiff_t>(bytes));
  }

  void check_finite(const Site& site, const torch::Tensor& rows) const {
    const auto [low, high] = torch::aminmax(rows);
    if (std::isfinite(low.item<float>()) && std::isfinite(high.item<float>())) return;
    const torch::Tensor bad = torch::isfinite(rows).all(1).logical_not().nonzero();
    const auto row = static_cast<std::size_t>(first_row_ + bad.flatten()[0].item<std::int64_t>());
    const auto [sequence, position] = plan_->positions[row];
    throw dist::NumericalError(
        fmt::format("hidden states at {} are NaN or Inf: set {}, sequence {} (id \"{}\"), position "
                    "{}; check the "
                    "checkpoint, or run with dtype f32",
                    site.name(), plan_->set->name, sequence,
                    plan_->set->ids[static_cast<std::size_t>(sequence)], position));
  }

  io::StateWriter* writer_;
  const SetPlan* plan_;
  dist::Timers* timers_;
  std::map<Site, Buffer> buffers_;
  std::int64_t limit_ = 0;
  std::int64_t first_row_ = 0;
  torch::Tensor selection_;  // i64, kept rows of the flattened batch
  std::exception_ptr failure_;
};

/// Takes a set through the layers.
class SetPass {
 public:
  SetPass(const CausalLM& model, const dist::ParallelLayout& layout, const SetPlan& plan,
          const std::vector<Site>& sites, const io::StateLayout& file, io::StateWriter& writer,
          dist::Timers& timers)
      : model_(&model),
        layout_(&layout),
        plan_(&plan),
        last_(sites.back()),
        timers_(&timers),
        sink_(writer, file, plan, sites, model, timers),
        streams_(static_cast<std::size_t>(plan.batches.rounds())) {}

  std::int64_t tokens() const {
    std::int64_t total = 0;
    for (const std::int64_t index : plan_->batches.order) total += plan_->set->items.length(index);
    return total;
  }

  /// Collective over the world. After every few rounds a failure of one rank stops all of them.
  void run(dist::Range layers, dist::log::Progress& progress) {
    const SiteHook hook = [&](const Site& site, const torch::Tensor& states) {
      sink_.add(site, states);
      return std::optional<torch::Tensor>();
    };
    for (std::int64_t round = 0; round < plan_->batches.rounds(); ++round) {
      {
        const dist::Timers::Scope scope(*timers_, "forward");
        const dist::Range batch = plan_->batches.batch(layout_->data().rank(), round);
        if (batch.size() > 0) forward(batch, static_cast<std::size_t>(round), layers, hook);
        // Opened in every round: timers must have the same names on all ranks.
        const dist::Timers::Scope writes(*timers_, "write");
      }
      if ((round + 1) % kAgreeEvery == 0) dist::throw_together(layout_->world(), sink_.failure());
      progress.advance(round_tokens(plan_->batches, plan_->set->items, round) * layers.size());
    }
    dist::throw_together(layout_->world(), sink_.failure());
    const dist::Timers::Scope scope(*timers_, "write");
    dist::agree(layout_->world(), [&] { sink_.flush_all(); });
  }

 private:
  void forward(dist::Range batch, std::size_t round, dist::Range layers, const SiteHook& hook) {
    const torch::Device device = model_->options().device;
    const torch::Tensor tokens = pad(plan_->set->items, plan_->batches.members(batch));
    sink_.begin_batch(batch, tokens.size(1), device);
    const torch::Tensor waiting = std::exchange(streams_[round], {});
    torch::Tensor stream = waiting.defined() ? waiting.to(device) : model_->embed(tokens);
    stream = model_->advance(std::move(stream), layers, hook, last_);
    if (layers.end <= last_.layer) streams_[round] = stream.cpu();
  }

  const CausalLM* model_;
  const dist::ParallelLayout* layout_;
  const SetPlan* plan_;
  Site last_;
  dist::Timers* timers_;
  RowSink sink_;
  std::vector<torch::Tensor> streams_;  // by round, between groups of layers
};

}  // namespace

void capture(CausalLM& model, const dist::ParallelLayout& layout, const io::TokenDataset& tokens,
             const CaptureOptions& options, const std::filesystem::path& output,
             dist::Timers& timers) {
  const c10::InferenceMode inference;
  MRP_EXPECT(!options.sets.empty() && !options.sites.empty());
  std::vector<Site> sites = options.sites;
  std::ranges::sort(sites);
  io::StateLayout file;
  file.dtype = file_type(model.options().dtype);
  for (const Site& site : sites) {
    file.sites.push_back({site.name(), site.width(model.config()), layout.tensor().size()});
  }
  const auto plans = dist::agree(layout.world(), [&] {
    std::vector<SetPlan> of_sets;
    for (const std::string& name : options.sets) {
      of_sets.push_back(plan_set(tokens.set(name), model.config(), options, layout.data().size()));
    }
    return of_sets;
  });
  for (const SetPlan& plan : plans) file.positions[plan.set->name] = plan.positions;
  io::StateWriter writer(output, file, options.fingerprint, layout.world());
  std::deque<SetPass> passes;
  std::int64_t work = 0;
  for (const SetPlan& plan : plans) {
    passes.emplace_back(model, layout, plan, sites, file, writer, timers);
    work += passes.back().tokens() * (sites.back().layer + 1);
  }
  dist::log::Progress progress("capture", work, "tokens × layers");
  for (const dist::Range layers : model.layer_groups()) {
    {
      const dist::Timers::Scope scope(timers, "load");
      dist::agree(layout.world(), [&] { model.load(layers); });
    }
    for (SetPass& pass : passes) pass.run(layers, progress);
    if (layers.end > sites.back().layer) break;
  }
  writer.finish();
}

}  // namespace mrp::shard
