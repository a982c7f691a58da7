#include "shard/edit/merge.hpp"

#include <fmt/format.h>

#include <system_error>

#include "dist/error.hpp"
#include "io/direct_file.hpp"
#include "io/file.hpp"
#include "shard/edit/merge_steps.hpp"
#include "shard/edit/tensor_digests.hpp"

namespace mrp::shard {

namespace fs = std::filesystem;

namespace {

std::uint64_t bytes_needed(const io::Checkpoint& checkpoint) {
  std::uint64_t bytes = checkpoint.index_text().size();
  for (const io::SafetensorsFile& file : checkpoint.files()) bytes += file.file_size();
  for (const fs::path& path : checkpoint.side_files()) bytes += fs::file_size(path);
  return bytes;
}

/// The files with their final size and the header of the input; their tensors come later.
void allocate_files(const MergeJob& job) {
  for (std::size_t i = 0; i < job.checkpoint.files().size(); ++i) {
    const io::SafetensorsFile& input = job.checkpoint.files()[i];
    create_file(job.output_file(i), input.file_size());
    const io::DirectFile file(job.output_file(i), io::DirectFile::Access::write);
    file.write(0, input.raw_header());
    file.sync();
  }
}

void copy_side_files(const MergeJob& job) {
  for (const fs::path& path : job.checkpoint.side_files()) {
    if (path.filename() == kMarkName) continue;  // an input that is itself a work of mrp
    const fs::path copy = job.directory / path.filename();
    std::error_code error;
    fs::copy_file(path, copy, error);
    if (!error) fs::permissions(copy, fs::perms::owner_write, fs::perm_options::add, error);
    if (error) {
      throw dist::ResourceError(
          fmt::format("cannot copy {} to {}: {}", path.string(), copy.string(), error.message()));
    }
    io::DirectFile(copy, io::DirectFile::Access::write).sync();
  }
  if (job.checkpoint.has_index()) {
    io::write_text(job.directory / io::Checkpoint::index_name, job.checkpoint.index_text());
  }
}

}  // namespace

std::map<std::string, io::TensorRecord> merge(
    const io::Checkpoint& checkpoint, const EditPlan& plan, const io::SubspaceFile& subspaces,
    const io::DeltaReader* deltas, const MergeOptions& options, const fs::path& output,
    const dist::Communicator& comm, dist::Timers& timers) {
  MRP_EXPECT(options.block_bytes > 0);
  const OutputDirectory directory(output);
  const auto root_only = [&](auto&& work) {
    dist::agree(comm, [&] {
      if (comm.is_root()) work();
    });
  };
  root_only([&] {
    directory.create(checkpoint.directory(), bytes_needed(checkpoint), options.fingerprint);
  });
  const MergeJob job{checkpoint, plan, subspaces, deltas, options, directory.partial(), comm};
  try {
    Written written;
    {
      dist::Timers::Scope scope(timers, "write");
      root_only([&] { allocate_files(job); });
      written = write_tensors(job);
    }
    std::map<std::string, io::TensorRecord> records;
    {
      dist::Timers::Scope scope(timers, "verify");
      records = read_back(job, written);
    }
    root_only([&] {
      copy_side_files(job);
      directory.write_mark(options.fingerprint, combined_digest(digests_of(records)));
      directory.publish();
    });
    return records;
  } catch (...) {
    if (comm.is_root()) directory.discard();
    throw;
  }
}

}  // namespace mrp::shard
