#include "io/parallel_file.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <exception>
#include <system_error>
#include <utility>

#include "dist/agree.hpp"
#include "dist/checked_cast.hpp"
#include "dist/error.hpp"
#include "io/file.hpp"
#include "io/hash.hpp"

namespace mrp::io {

namespace {

/// Some MPI-IO layers count the bytes of a transfer in 32 bits.
constexpr std::int64_t max_transfer_bytes = std::int64_t{1} << 30;
/// What is written behind the caller's back at a time.
constexpr std::uint64_t piece_bytes = std::uint64_t{8} << 20;
/// Metadata beside the data, generously.
constexpr std::uint64_t metadata_bytes = std::uint64_t{4} << 20;

std::vector<hsize_t> to_hsize(const std::vector<std::int64_t>& lengths) {
  return {lengths.begin(), lengths.end()};
}

}  // namespace

ParallelFile::ParallelFile(const std::filesystem::path& path, const dist::Communicator& comm)
    : path_(path), comm_(&comm) {}

ParallelFile::~ParallelFile() {
  if (finished_) return;
  for (Piece& piece : pieces_) piece.under_way = {};
  for (auto& dataset : datasets_) dataset.id.release();
  file_.release();
  if (!comm_->is_root()) return;
  std::error_code ignored;
  std::filesystem::remove(partial_path(path_), ignored);
}

void ParallelFile::create(const std::string& format, std::int64_t version,
                          const std::string& fingerprint, const std::function<void(hid_t)>& fill) {
  const auto partial = partial_path(path_);
  dist::agree(*comm_, [&] {
    if (comm_->is_root()) make_room(partial);
  });
  dist::agree(*comm_, [&] {
    file_ = create_hdf5(partial, *comm_);
    as_output(path_, [&] {
      write_format(file_.get(), format, version, fingerprint);
      fill(file_.get());
    });
    direct_.emplace(partial, DirectFile::Access::write);
    std::uint64_t bytes = 0;
    for (const Dataset& dataset : datasets_) {
      if (dataset.chunks) bytes = std::max(bytes, dataset.chunks->end());
    }
    if (comm_->is_root()) direct_->allocate(bytes);
  });
}

std::size_t ParallelFile::add_dataset(hid_t parent, const std::string& name, hid_t type,
                                      const std::vector<std::int64_t>& shape,
                                      const std::optional<std::vector<std::int64_t>>& chunk) {
  MRP_EXPECT(shape.size() == 1 || shape.size() == 2, name);
  MRP_EXPECT(!name.empty() && name != "." && name.find('/') == std::string::npos, name);
  const auto lengths = to_hsize(shape);
  const auto dimensions = static_cast<int>(shape.size());
  const auto space =
      MRP_HDF5_HANDLE(H5Screate_simple(dimensions, lengths.data(), nullptr), H5Sclose);
  const auto properties = MRP_HDF5_HANDLE(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  MRP_HDF5(H5Pset_obj_track_times(properties.get(), false));
  MRP_HDF5(H5Pset_alloc_time(properties.get(), H5D_ALLOC_TIME_EARLY));
  MRP_HDF5(H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER));
  if (chunk) {
    MRP_EXPECT(chunk->size() == shape.size(), name);
    MRP_HDF5(H5Pset_chunk(properties.get(), dimensions, to_hsize(*chunk).data()));
  }
  const bool is_vector = shape.size() == 1;
  Dataset made{MRP_HDF5_HANDLE(H5Dcreate2(parent, name.c_str(), type, space.get(), H5P_DEFAULT,
                                          properties.get(), H5P_DEFAULT),
                               H5Dclose),
               type,
               is_vector,
               is_vector ? 1 : shape[0],
               shape.back(),
               {}};
  made.chunks = find_chunk_run(made.id.get());
  datasets_.push_back(std::move(made));
  return datasets_.size() - 1;
}

void ParallelFile::write(std::size_t dataset, dist::Range rows, dist::Range columns,
                         std::span<const std::byte> data) {
  MRP_EXPECT(!finished_ && dataset < datasets_.size());
  const Dataset& target = datasets_[dataset];
  MRP_EXPECT(0 <= rows.begin && rows.begin <= rows.end && rows.end <= target.rows);
  MRP_EXPECT(0 <= columns.begin && columns.begin <= columns.end && columns.end <= target.columns);
  const std::int64_t row_bytes =
      columns.size() * static_cast<std::int64_t>(H5Tget_size(target.type));
  MRP_EXPECT(std::cmp_equal(data.size(), rows.size() * row_bytes));
  if (data.empty()) return;
  const auto& chunks = target.chunks;
  if (chunks && chunks->columns == columns.size() && chunks->is_whole(columns)) {
    write_chunks(*chunks, rows, columns.begin / chunks->columns, data);
  } else {
    write_hdf5(target, rows, columns, data);
  }
}

void ParallelFile::write_chunks(const ChunkRun& chunks, dist::Range rows, std::int64_t across,
                                std::span<const std::byte> data) {
  for (std::int64_t row = rows.begin; row < rows.end;) {
    const std::int64_t down = row / chunks.rows;
    const std::int64_t end = std::min((down + 1) * chunks.rows, rows.end);
    const auto bytes = static_cast<std::size_t>(end - row) * chunks.row_bytes;
    const auto above = static_cast<std::uint64_t>(row % chunks.rows) * chunks.row_bytes;
    write_behind(chunks.chunk_begin(down, across) + above, data.first(bytes));
    data = data.subspan(bytes);
    row = end;
  }
}

void ParallelFile::write_behind(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min<std::size_t>(bytes.size(), piece_bytes));
    Piece& piece = pieces_[next_piece_];
    next_piece_ = (next_piece_ + 1) % pieces_.size();
    if (piece.under_way.valid()) piece.under_way.get();
    const auto copy = piece.buffer.fit(offset, part.size());
    std::copy(part.begin(), part.end(), copy.begin());
    piece.under_way =
        std::async(std::launch::async, [this, offset, copy] { direct_->write(offset, copy); });
    bytes = bytes.subspan(part.size());
    offset += part.size();
  }
}

void ParallelFile::wait_for_pieces() {
  for (Piece& piece : pieces_) {
    if (piece.under_way.valid()) piece.under_way.get();
  }
}

void ParallelFile::write_hdf5(const Dataset& target, dist::Range rows, dist::Range columns,
                              std::span<const std::byte> data) {
  const std::int64_t row_bytes =
      columns.size() * static_cast<std::int64_t>(H5Tget_size(target.type));
  const std::int64_t step = std::max<std::int64_t>(max_transfer_bytes / row_bytes, 1);
  as_output(path_, [&] {
    const auto file_space = MRP_HDF5_HANDLE(H5Dget_space(target.id.get()), H5Sclose);
    const auto transfer = MRP_HDF5_HANDLE(H5Pcreate(H5P_DATASET_XFER), H5Pclose);
    MRP_HDF5(H5Pset_dxpl_mpio(transfer.get(), H5FD_MPIO_INDEPENDENT));
    for (std::int64_t row = rows.begin; row < rows.end; row += step) {
      const std::array start = {static_cast<hsize_t>(row), static_cast<hsize_t>(columns.begin)};
      const std::array count = {static_cast<hsize_t>(std::min(step, rows.end - row)),
                                static_cast<hsize_t>(columns.size())};
      const std::size_t skip = target.is_vector ? 1 : 0;
      MRP_HDF5(H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, start.data() + skip, nullptr,
                                   count.data() + skip, nullptr));
      const auto memory_space =
          MRP_HDF5_HANDLE(H5Screate_simple(2, count.data(), nullptr), H5Sclose);
      MRP_HDF5(H5Dwrite(target.id.get(), target.type, memory_space.get(), file_space.get(),
                        transfer.get(), data.data() + (row - rows.begin) * row_bytes));
    }
  });
}

void ParallelFile::finish() {
  MRP_EXPECT(!finished_);
  dist::agree(*comm_, [&] {
    wait_for_pieces();
    direct_->sync();
    as_output(path_, [&] {
      for (auto& dataset : datasets_) dataset.id.close();
      // Syncs the bytes of every rank, before rank 0 gives the file its name.
      MRP_HDF5(H5Fflush(file_.get(), H5F_SCOPE_GLOBAL));
    });
  });
  dist::agree(*comm_, [&] { as_output(path_, [&] { file_.close(); }); });
  dist::agree(*comm_, [&] {
    if (comm_->is_root()) publish(path_);
  });
  finished_ = true;
}

void require_fit(const std::filesystem::path& path, std::uint64_t bytes,
                 const dist::Communicator& comm) {
  const auto directory = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  dist::agree(comm, [&] {
    if (comm.is_root()) {
      require_space(directory, bytes + metadata_bytes, path.filename().string());
    }
  });
  self_test(directory, comm);
}

void require_same(const std::string& layout, const dist::Communicator& comm) {
  const auto own = xxh3_128(layout);
  const auto root = comm.broadcast(own);
  dist::agree(comm, [&] { MRP_EXPECT(own == root, "the layout differs between ranks"); });
}

namespace {

/// What one dataset of the self-test holds, and its chunks: one column slice a rank.
struct TestDataset {
  const char* name;
  std::int64_t columns;
};
constexpr std::int64_t test_rows = 3;

std::vector<float> test_block(dist::Range columns) {
  std::vector<float> block;
  for (std::int64_t row = 0; row < test_rows; ++row) {
    for (auto column = columns.begin; column < columns.end; ++column) {
      block.push_back(static_cast<float>(1 + row + 5 * column));
    }
  }
  return block;
}

void compare_with_test(const std::filesystem::path& path, std::span<const TestDataset> expected) {
  const auto file = open_hdf5(path);
  for (const auto& [name, columns] : expected) {
    const auto dataset = open_dataset(file.get(), name);
    std::vector<float> found(static_cast<std::size_t>(test_rows * columns));
    MRP_HDF5(H5Dread(dataset.get(), H5T_IEEE_F32LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, found.data()));
    if (found != test_block({0, columns})) {
      throw dist::ResourceError("what is read back differs from what was written");
    }
  }
}

}  // namespace

void self_test(const std::filesystem::path& directory, const dist::Communicator& comm) {
  const auto path = directory / comm.broadcast(fmt::format(".self_test.{}.h5", ::getpid()));
  const std::int64_t ranks = comm.size();
  // Two chunks a rank; the second dataset has a slice that the chunks do not divide.
  const std::array datasets = {TestDataset{"even", 4 * ranks},
                               TestDataset{"uneven", 4 * ranks + 1}};
  std::exception_ptr failure;
  try {
    ParallelFile file(path, comm);
    file.create("mrp.self_test", 1, "", [&](hid_t root) {
      for (const auto& [name, columns] : datasets) {
        file.add_dataset(root, name, H5T_IEEE_F32LE, {test_rows, columns},
                         std::vector<std::int64_t>{2, (columns + ranks - 1) / ranks});
      }
    });
    dist::agree(comm, [&] {
      for (std::size_t i = 0; i < datasets.size(); ++i) {
        const auto columns = dist::slice(datasets[i].columns, ranks, comm.rank());
        const auto block = test_block(columns);
        file.write(i, {0, test_rows}, columns, std::as_bytes(std::span(block)));
      }
    });
    file.finish();
    dist::agree(comm, [&] { compare_with_test(path, datasets); });
  } catch (const dist::Error& error) {
    failure = std::make_exception_ptr(
        dist::ResourceError(fmt::format("{} is not fit for parallel HDF5 files: {}; choose another "
                                        "directory, or another MPI-IO layer "
                                        "(Open MPI: OMPI_MCA_io=romio321)",
                                        directory.string(), error.what())));
  }
  if (comm.is_root()) {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }
  dist::throw_together(comm, failure);
}

}  // namespace mrp::io
