#include "io/chunk_run.hpp"

#include <array>

namespace mrp::io {

namespace {

std::uint64_t address_of(hid_t dataset, std::int64_t row, std::int64_t column) {
  const std::array corner = {static_cast<hsize_t>(row), static_cast<hsize_t>(column)};
  haddr_t address = HADDR_UNDEF;
  hsize_t bytes = 0;
  unsigned filters = 0;
  MRP_HDF5(H5Dget_chunk_info_by_coord(dataset, corner.data(), &filters, &address, &bytes));
  return address;
}

}  // namespace

std::optional<ChunkRun> find_chunk_run(hid_t dataset) {
  const auto properties = MRP_HDF5_HANDLE(H5Dget_create_plist(dataset), H5Pclose);
  const auto space = MRP_HDF5_HANDLE(H5Dget_space(dataset), H5Sclose);
  const auto type = MRP_HDF5_HANDLE(H5Dget_type(dataset), H5Tclose);
  if (H5Pget_layout(properties.get()) != H5D_CHUNKED || H5Pget_nfilters(properties.get()) != 0 ||
      H5Sget_simple_extent_ndims(space.get()) != 2) {
    return {};
  }
  std::array<hsize_t, 2> chunk{}, shape{};
  check_hdf5(H5Pget_chunk(properties.get(), 2, chunk.data()), "H5Pget_chunk");
  check_hdf5(H5Sget_simple_extent_dims(space.get(), shape.data(), nullptr),
             "H5Sget_simple_extent_dims");
  if (shape[0] == 0 || shape[1] == 0) return {};
  ChunkRun run;
  run.rows = static_cast<std::int64_t>(chunk[0]);
  run.columns = static_cast<std::int64_t>(chunk[1]);
  run.down = static_cast<std::int64_t>((shape[0] - 1) / chunk[0] + 1);
  run.across = static_cast<std::int64_t>((shape[1] - 1) / chunk[1] + 1);
  run.row_bytes = chunk[1] * H5Tget_size(type.get());
  run.begin = address_of(dataset, 0, 0);
  const auto last = address_of(dataset, (run.down - 1) * run.rows, (run.across - 1) * run.columns);
  if (run.begin == HADDR_UNDEF || last != run.chunk_begin(run.down - 1, run.across - 1)) return {};
  return run;
}

}  // namespace mrp::io
