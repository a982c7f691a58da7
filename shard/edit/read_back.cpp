#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "dist/error.hpp"
#include "io/file.hpp"
#include "io/hash.hpp"
#include "io/read_ahead.hpp"
#include "shard/edit/merge_steps.hpp"

namespace mrp::shard {

namespace {

/// Bytes of a tensor in the written file.
struct Block {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::string_view digest;  ///< empty: unknown
};

struct Place {
  std::size_t file = 0;
  const io::TensorInfo* info = nullptr;
  std::size_t edit = 0;  ///< plan.edits.size() if untouched
  std::vector<Block> blocks;
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

std::uint64_t row_bytes(const io::TensorInfo& info) {
  return static_cast<std::uint64_t>(matrix_shape(info).columns) *
         static_cast<std::uint64_t>(io::dtype_bits(info.dtype)) / 8;
}

class Reader {
 public:
  Reader(const MergeJob& job, std::vector<io::FilePart> parts)
      : job_(job), reads_(std::move(parts)) {}

  void read(const Place& place, const std::vector<SquaredNorms>& removed, Findings& findings) {
    if (opened_ != place.file) check_header(place.file);
    opened_ = place.file;
    const io::TensorInfo& info = *place.info;
    const bool edited = place.edit < job_.plan.edits.size();
    std::optional<LeakMeter> meter;
    if (edited) meter.emplace(info, job_.plan.edits[place.edit], job_.subspaces);
    io::Sha256 hash;
    for (const Block& block : place.blocks) {
      const std::span<std::byte> bytes = reads_.next();
      if (!block.digest.empty() && io::xxh3_128(bytes) != block.digest) {
        report_other_bytes(job_.output_file(place.file), "tensor " + info.name);
      }
      hash.update(bytes);
      if (!edited) continue;
      const std::uint64_t row = row_bytes(info);
      meter->add_rows(static_cast<std::int64_t>((block.begin - info.begin) / row),
                      {info.dtype, static_cast<std::int64_t>(bytes.size() / row),
                       matrix_shape(info).columns, bytes});
    }
    const std::string digest = hash.finish();
    MRP_EXPECT(digest.size() == io::Sha256::digits);
    findings.digests.insert(findings.digests.end(), digest.begin(), digest.end());
    findings.leaks.push_back(edited ? leak(removed[place.edit], meter->norms()) : 0);
  }

 private:
  void check_header(std::size_t index) const {
    const std::filesystem::path path = job_.output_file(index);
    const io::SafetensorsFile& input = job_.checkpoint.files()[index];
    const io::File file(path);
    std::vector<std::byte> header(input.raw_header().size());
    if (file.size() != input.file_size()) report_other_bytes(path, "the size");
    file.read(0, header);
    if (header != input.raw_header()) report_other_bytes(path, "the header");
  }

  const MergeJob& job_;
  io::ReadAhead reads_;
  std::optional<std::size_t> opened_;
};

/// Rows of a tensor that was written by columns.
std::vector<Block> cut_rows(const io::TensorInfo& info, std::uint64_t block_bytes) {
  const std::uint64_t row = row_bytes(info);
  const std::uint64_t step = row * static_cast<std::uint64_t>(block_rows(row, block_bytes));
  std::vector<Block> blocks;
  for (std::uint64_t at = info.begin; at < info.end; at += step) {
    blocks.push_back({at, std::min(at + step, info.end), {}});
  }
  return blocks;
}

std::vector<Place> list_tensors(const MergeJob& job, const Written& written) {
  std::vector<Place> places;
  std::size_t unit = 0;
  for (std::size_t f = 0; f < job.checkpoint.files().size(); ++f) {
    for (const io::TensorInfo& info : job.checkpoint.files()[f].tensors()) {
      Place place{f, &info, job.plan.edits.size(), {}};
      for (; unit < written.units.size() && written.units[unit].tensor == &info; ++unit) {
        const WorkUnit& part = written.units[unit];
        place.edit = part.edit.value_or(place.edit);
        if (part.columns) {
          place.blocks = cut_rows(info, job.options.block_bytes);
          continue;
        }
        place.blocks.push_back(
            {part.begin, part.end,
             std::string_view(written.digests.data() + unit * io::xxh3_digits, io::xxh3_digits)});
      }
      places.push_back(std::move(place));
    }
  }
  return places;
}

/// What a rank reads, in its order.
std::vector<io::FilePart> parts_of(const MergeJob& job, std::span<const Place> places) {
  std::vector<io::FilePart> parts;
  for (const Place& place : places) {
    for (const Block& block : place.blocks) {
      parts.push_back({job.output_file(place.file), block.begin, block.end - block.begin});
    }
  }
  return parts;
}

}  // namespace

std::map<std::string, io::TensorRecord> read_back(const MergeJob& job, const Written& written) {
  const std::vector<Place> places = list_tensors(job, written);
  std::vector<std::uint64_t> weights;
  std::vector<std::int64_t> costs;
  for (const Place& place : places) {
    weights.push_back(place.info->bytes());
    costs.push_back(static_cast<std::int64_t>(place.info->bytes()) + 1);
  }
  const std::vector<dist::Range> shares = dist::balance(costs, job.comm.size());
  const dist::Range own = shares[static_cast<std::size_t>(job.comm.rank())];
  Findings mine;
  Reader reader(job,
                parts_of(job, std::span(places).subspan(static_cast<std::size_t>(own.begin),
                                                        static_cast<std::size_t>(own.size()))));
  run_share(
      job, "verify", shares, weights,
      [&](std::size_t i) { reader.read(places[i], written.removed, mine); }, [] {});

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
