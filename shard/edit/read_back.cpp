#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "dist/error.hpp"
#include "io/file.hpp"
#include "io/hash.hpp"
#include "shard/edit/merge_steps.hpp"
#include "shard/edit/work_units.hpp"

namespace mrp::shard {

namespace {

struct Place {
  std::size_t file = 0;
  const io::TensorInfo* info = nullptr;
  std::size_t edit = 0;  ///< plan.edits.size() if untouched
};

/// SHA-256 and leak of tensors in file order, back to back so that they travel.
struct Findings {
  std::vector<char> digests;  ///< [tensors × io::Sha256::digits]
  std::vector<double> leaks;
};

[[noreturn]] void report_other_bytes(const std::filesystem::path& path, const std::string& what) {
  throw dist::ResourceError(
      fmt::format("{}: {} read back differs from what was written; the file system or memory is "
                  "unreliable",
                  path.string(), what));
}

/// Calls work(first, bytes) for the tensor's bytes in the written file, in blocks of `rows` rows.
template <class Work>
void for_blocks(const io::File& file, const io::TensorInfo& info, std::uint64_t block_bytes,
                Work&& work) {
  std::vector<std::byte> buffer;
  for (std::uint64_t at = info.begin; at < info.end; at += block_bytes) {
    buffer.resize(static_cast<std::size_t>(std::min(block_bytes, info.end - at)));
    file.read(at, buffer);
    work(at, std::span<std::byte>(buffer));
  }
}

class Reader {
 public:
  explicit Reader(const MergeJob& job) : job_(job) {}

  void read(const Place& place, const std::vector<SquaredNorms>& removed, Findings& findings) {
    open(place.file);
    io::Sha256 hash;
    double left = 0;
    if (place.edit == job_.plan.edits.size()) {
      compare(place, hash);
    } else {
      left = measure(place, removed[place.edit], hash);
    }
    const std::string digest = hash.finish();
    MRP_EXPECT(digest.size() == io::Sha256::digits);
    findings.digests.insert(findings.digests.end(), digest.begin(), digest.end());
    findings.leaks.push_back(left);
  }

 private:
  void open(std::size_t index) {
    if (file_ && opened_ == index) return;
    const std::filesystem::path path = job_.output_file(index);
    file_.emplace(path);
    opened_ = index;
    const io::SafetensorsFile& input = job_.checkpoint.files()[index];
    std::vector<std::byte> header(input.raw_header().size());
    if (file_->size() != input.file_size()) report_other_bytes(path, "the size");
    file_->read(0, header);
    if (header != input.raw_header()) report_other_bytes(path, "the header");
  }

  void compare(const Place& place, io::Sha256& hash) {
    const io::SafetensorsFile& input = job_.checkpoint.files()[place.file];
    std::vector<std::byte> original;
    for_blocks(*file_, *place.info, job_.options.block_bytes,
               [&](std::uint64_t at, std::span<std::byte> bytes) {
                 original.resize(bytes.size());
                 input.read(at, original);
                 if (std::memcmp(bytes.data(), original.data(), bytes.size()) != 0) {
                   report_other_bytes(file_->path(), "tensor " + place.info->name);
                 }
                 hash.update(bytes);
               });
  }

  double measure(const Place& place, const SquaredNorms& removed, io::Sha256& hash) {
    const io::TensorInfo& info = *place.info;
    const std::int64_t columns = matrix_shape(info).columns;
    const std::uint64_t row = static_cast<std::uint64_t>(columns) *
                              static_cast<std::uint64_t>(io::dtype_bits(info.dtype)) / 8;
    LeakMeter meter(info, job_.plan.edits[place.edit], job_.subspaces);
    const auto step = static_cast<std::uint64_t>(block_rows(row, job_.options.block_bytes));
    for_blocks(*file_, info, step * row, [&](std::uint64_t at, std::span<std::byte> bytes) {
      hash.update(bytes);
      const auto first = static_cast<std::int64_t>((at - info.begin) / row);
      const auto rows = static_cast<std::int64_t>(bytes.size() / row);
      meter.add_rows(first, {info.dtype, rows, columns, bytes});
    });
    return leak(removed, meter.norms());
  }

  const MergeJob& job_;
  std::optional<io::File> file_;
  std::size_t opened_ = 0;
};

std::vector<Place> list_tensors(const MergeJob& job) {
  std::map<std::string, std::size_t> edit_of;
  for (std::size_t i = 0; i < job.plan.edits.size(); ++i) edit_of[job.plan.edits[i].tensor] = i;
  std::vector<Place> places;
  for (std::size_t f = 0; f < job.checkpoint.files().size(); ++f) {
    for (const io::TensorInfo& info : job.checkpoint.files()[f].tensors()) {
      const auto found = edit_of.find(info.name);
      places.push_back({f, &info, found == edit_of.end() ? job.plan.edits.size() : found->second});
    }
  }
  return places;
}

}  // namespace

std::map<std::string, io::TensorRecord> read_back(const MergeJob& job,
                                                  const std::vector<SquaredNorms>& removed) {
  const std::vector<Place> places = list_tensors(job);
  std::vector<std::uint64_t> weights;
  std::vector<std::int64_t> costs;
  for (const Place& place : places) {
    weights.push_back(place.info->bytes());
    costs.push_back(static_cast<std::int64_t>(place.info->bytes()) + 1);
  }
  const std::vector<dist::Range> shares = dist::balance(costs, job.comm.size());
  Findings mine;
  Reader reader(job);
  run_share(
      job, "verify", shares, weights, [&](std::size_t i) { reader.read(places[i], removed, mine); },
      [] {});

  // Shares are contiguous and in rank order, so the findings come in the order of the tensors.
  const std::vector<char> digests = job.comm.all_gather_v(std::span<const char>(mine.digests));
  const std::vector<double> leaks = job.comm.all_gather_v(std::span<const double>(mine.leaks));
  MRP_EXPECT(leaks.size() == places.size());
  std::map<std::string, io::TensorRecord> records;
  for (std::size_t i = 0; i < places.size(); ++i) {
    records[places[i].info->name] = {
        places[i].edit < job.plan.edits.size(),
        std::string(digests.data() + i * io::Sha256::digits, io::Sha256::digits), leaks[i]};
  }
  return records;
}

}  // namespace mrp::shard
