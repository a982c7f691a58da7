#include "io/state_store.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "dist/agree.hpp"
#include "hdf5_support.hpp"
#include "io/hdf5_array.hpp"
#include "io/parallel_file.hpp"
#include "io/token_dataset.hpp"
#include "support/temp_folder.hpp"

namespace mrp {
namespace {

using dist::Range;
using io::DType;
using io::StateLayout;
using io::StateReader;
using io::StateWriter;
using test::input_error;

/// Exact in bf16 up to row 62, different everywhere.
float value(std::int64_t row, std::int64_t column) {
  return std::ldexp(static_cast<float>(1 + row), static_cast<int>(column % 100)) *
         (column % 3 == 0 ? -1.0F : 1.0F);
}

/// The block in the layout's type.
std::vector<std::byte> block(DType dtype, Range rows, Range columns,
                             const std::function<float(std::int64_t, std::int64_t)>& at = value) {
  std::vector<std::byte> bytes;
  for (auto row = rows.begin; row < rows.end; ++row) {
    for (auto column = columns.begin; column < columns.end; ++column) {
      const float x = at(row, column);
      const io::bf16 half = io::float_to_bf16(x);
      const auto append = [&](const auto& element) {
        const auto raw = std::as_bytes(std::span(&element, 1));
        bytes.insert(bytes.end(), raw.begin(), raw.end());
      };
      dtype == DType::bf16 ? append(half) : append(x);
    }
  }
  return bytes;
}

StateLayout layout_of(std::int64_t slices, DType dtype = DType::bf16) {
  StateLayout layout;
  layout.dtype = dtype;
  for (std::int64_t i = 0; i < 61; ++i) layout.positions["forget"].push_back({i, i + 1});
  for (std::int64_t i = 0; i < 3; ++i) layout.positions["retain"].push_back({i, i + 1});
  layout.sites = {{"layers.0.down_proj.input", 13, slices}, {"layers.0.o_proj.input", 8, slices}};
  return layout;
}

/// Every rank writes its slice of every dataset, in uneven batches of rows as a capture does.
void write_all(StateWriter& writer, const StateLayout& layout, const dist::Communicator& comm,
               const std::function<float(std::int64_t, std::int64_t)>& at = value) {
  dist::agree(comm, [&] {
    for (const auto& [set, positions] : layout.positions) {
      const auto rows = static_cast<std::int64_t>(positions.size());
      for (const auto& site : layout.sites) {
        const auto columns = dist::slice(site.width, comm.size(), comm.rank());
        for (std::int64_t begin = 0, step = 1; begin < rows; begin += step, step += 5) {
          const Range batch = {begin, std::min(begin + step, rows)};
          writer.write(set, site.site, batch, columns, block(layout.dtype, batch, columns, at));
        }
      }
    }
  });
}

void expect_values(const StateReader& reader, const std::string& set, const std::string& site,
                   Range rows, Range columns) {
  std::vector<float> found(static_cast<std::size_t>(rows.size() * columns.size()), NAN);
  reader.read(set, site, rows, columns, found);
  std::size_t wrong = 0, i = 0;
  for (auto row = rows.begin; row < rows.end; ++row) {
    for (auto column = columns.begin; column < columns.end; ++column) {
      if (found[i++] != value(row, column)) ++wrong;
    }
  }
  EXPECT_EQ(wrong, 0U) << fmt::format("{} {} rows {}–{} columns {}–{}", set, site, rows.begin,
                                      rows.end, columns.begin, columns.end);
}

class StateStoreTest : public testing::Test {
 protected:
  std::filesystem::path path() const { return folder_.path() / "states.h5"; }
  std::filesystem::path partial() const { return io::partial_path(path()); }

  void write(const StateLayout& layout, const std::string& fingerprint = "fünf",
             const std::function<float(std::int64_t, std::int64_t)>& at = value) const {
    StateWriter writer(path(), layout, fingerprint, world_);
    write_all(writer, layout, world_, at);
    writer.finish();
  }

  /// Files in the folder; the same answer on all ranks.
  std::vector<std::string> files() const {
    world_.barrier();
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      names.push_back(entry.path().filename().string());
    }
    world_.barrier();
    return names;
  }

  /// A file written by this rank alone, for tests that damage it.
  static void write_alone(const std::filesystem::path& path, DType dtype = DType::bf16) {
    const auto self = dist::Communicator::self();
    const auto layout = layout_of(2, dtype);
    StateWriter writer(path, layout, "alone", self);
    write_all(writer, layout, self);
    writer.finish();
  }

  dist::Communicator world_ = dist::Communicator::world();
  test::TempFolder folder_{world_};
};

TEST_F(StateStoreTest, slices_of_all_ranks_form_one_matrix) {
  for (const auto dtype : {DType::bf16, DType::f32}) {
    // Slices as written, fewer and more than written: chunks then cross the ranges.
    for (const std::int64_t slices :
         {std::int64_t{world_.size()}, std::int64_t{1}, std::int64_t{8}}) {
      const auto layout = layout_of(slices, dtype);
      write(layout);
      const StateReader reader(path());
      EXPECT_EQ(reader.fingerprint(), "fünf");
      EXPECT_EQ(io::read_fingerprint(path()), "fünf");
      EXPECT_EQ(reader.dtype(), dtype);
      EXPECT_EQ(reader.sets(), (std::vector<std::string>{"forget", "retain"}));
      EXPECT_EQ(reader.sites(),
                (std::vector<std::string>{"layers.0.down_proj.input", "layers.0.o_proj.input"}));
      for (const auto& [set, positions] : layout.positions) {
        EXPECT_EQ(reader.positions(set), positions);
        EXPECT_EQ(reader.rows(set), std::int64_t(positions.size()));
        for (const auto& site : layout.sites) {
          EXPECT_EQ(reader.width(site.site), site.width);
          expect_values(reader, set, site.site, {0, reader.rows(set)}, {0, site.width});
          expect_values(reader, set, site.site, {1, 3}, {2, site.width - 1});
          expect_values(reader, set, site.site, {2, 3}, {7, 8});
          expect_values(reader, set, site.site, {1, 1}, {0, site.width});
        }
      }
      EXPECT_EQ(files(), std::vector<std::string>{"states.h5"});
    }
  }
}

TEST_F(StateStoreTest, special_values_keep_their_bits) {
  const auto special = [](std::int64_t row, std::int64_t column) {
    constexpr float inf = std::numeric_limits<float>::infinity();
    constexpr std::array values = {0.0F, -0.0F, inf, -inf, 1e-40F, 3.3895314e38F, -1.0F};
    return values[static_cast<std::size_t>(row + column) % values.size()];
  };
  for (const auto dtype : {DType::bf16, DType::f32}) {
    write(layout_of(world_.size(), dtype), "", special);
    const StateReader reader(path());
    std::vector<float> found(61 * 13);
    reader.read("forget", "layers.0.down_proj.input", {0, 61}, {0, 13}, found);
    const auto expected = block(dtype, {0, 61}, {0, 13}, special);
    std::vector<float> floats(found.size());
    io::to_float(dtype, expected, floats);
    EXPECT_EQ(std::memcmp(found.data(), floats.data(), found.size() * sizeof(float)), 0);
  }
}

TEST_F(StateStoreTest, rows_of_many_chunks_and_many_buffers) {
  // Chunks of 8 MiB; columns of half a slice; more floats than one buffer of 64 MiB.
  StateLayout layout;
  layout.positions["forget"].resize(9001);
  layout.sites = {{"wide", 2048, 1}};
  const auto at = [](std::int64_t row, std::int64_t column) {
    return static_cast<float>((row * 31 + column * 7) % 251);
  };
  StateWriter writer(path(), layout, "", world_);
  dist::agree(world_, [&] {
    const auto rows = dist::slice(9001, world_.size(), world_.rank());
    writer.write("forget", "wide", rows, {0, 2048}, block(layout.dtype, rows, {0, 2048}, at));
  });
  writer.finish();
  const StateReader reader(path());
  for (const auto& [rows, columns] :
       {std::pair(Range{0, 9001}, Range{0, 2048}), std::pair(Range{1000, 8999}, Range{5, 700})}) {
    std::vector<float> found(static_cast<std::size_t>(rows.size() * columns.size()));
    reader.read("forget", "wide", rows, columns, found);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto row = rows.begin + static_cast<std::int64_t>(i) / columns.size();
      const auto column = columns.begin + static_cast<std::int64_t>(i) % columns.size();
      if (found[i] != at(row, column)) ++wrong;
    }
    EXPECT_EQ(wrong, 0U);
  }
  const auto size = std::filesystem::file_size(path());
  EXPECT_GE(size, layout.bytes());
  EXPECT_LE(size, layout.bytes() + (1U << 16));
}

TEST_F(StateStoreTest, h5py_reads_the_numbers) {
  for (const auto dtype : {DType::bf16, DType::f32}) {
    write(layout_of(world_.size(), dtype), "fünf", [](std::int64_t row, std::int64_t column) {
      return std::ldexp(static_cast<float>(1 + row), static_cast<int>(column));
    });
    if (world_.is_root()) {
      EXPECT_EQ(test::run_h5py("check-states", path()), 0);
    }
    world_.barrier();
  }
}

TEST_F(StateStoreTest, the_same_states_give_the_same_bytes) {
  const auto content = [&] {
    write(layout_of(world_.size()));
    auto bytes = io::read_text(path());
    world_.barrier();
    return bytes;
  };
  const auto first = content();
  EXPECT_TRUE(content() == first);
}

TEST_F(StateStoreTest, a_rank_that_fails_leaves_no_file) {
  const auto layout = layout_of(world_.size());
  const int failing = world_.size() - 1;
  const auto fail = [&] {
    StateWriter writer(path(), layout, "", world_);
    dist::agree(world_, [&] {
      writer.write("retain", "layers.0.o_proj.input", {0, 3}, {0, 2},
                   block(layout.dtype, {0, 3}, {0, 2}));
      if (world_.rank() == failing) throw dist::NumericalError("NaN at layers.0");
    });
    writer.finish();
  };
  EXPECT_THROW(fail(), dist::NumericalError);
  EXPECT_TRUE(files().empty());
  // Nothing stands in the way of the next attempt, not even remains of a killed job.
  if (world_.is_root()) std::ofstream(partial()) << "remains";
  write(layout);
  EXPECT_THROW(fail(), dist::NumericalError);
  EXPECT_EQ(files(), std::vector<std::string>{"states.h5"});
  const StateReader reader(path());
  expect_values(reader, "forget", "layers.0.o_proj.input", {0, 61}, {0, 8});
}

TEST_F(StateStoreTest, the_name_appears_only_with_finish) {
  const auto layout = layout_of(world_.size());
  StateWriter writer(path(), layout, "", world_);
  write_all(writer, layout, world_);
  EXPECT_EQ(files(), std::vector<std::string>{"states.h5.partial"});
  writer.finish();
  EXPECT_EQ(files(), std::vector<std::string>{"states.h5"});
  EXPECT_THROW(writer.write("retain", "layers.0.o_proj.input", {0, 1}, {0, 1},
                            block(DType::bf16, {0, 1}, {0, 1})),
               dist::ContractError);
}

TEST_F(StateStoreTest, layouts_that_cannot_be_written_are_refused_on_all_ranks) {
  auto layout = layout_of(1);
  layout.positions["empty"];
  EXPECT_NE(input_error([&] {
              StateWriter(path(), layout, "", world_);
            }).find("\"empty\" has no positions"),
            std::string::npos);
  layout = layout_of(1);
  layout.sites.push_back(layout.sites[0]);
  EXPECT_THROW(StateWriter(path(), layout, "", world_), dist::Error);
  layout = layout_of(9);
  EXPECT_THROW(StateWriter(path(), layout, "", world_), dist::Error);
  layout = layout_of(1);
  layout.sites[0].width = std::int64_t{1} << 50;
  EXPECT_NE(test::message_of<dist::ResourceError>([&] {
              StateWriter(path(), layout, "", world_);
            }).find("states.h5 needs"),
            std::string::npos);
  if (world_.size() > 1) {
    layout = layout_of(1);
    if (world_.rank() == 1) layout.sites[0].width = 14;
    EXPECT_THROW(StateWriter(path(), layout, "", world_), dist::Error);
  }
  EXPECT_TRUE(files().empty());
}

TEST_F(StateStoreTest, blocks_outside_are_contract_errors) {
  const auto layout = layout_of(1);
  StateWriter writer(path(), layout, "", world_);
  const auto data = block(DType::bf16, {0, 2}, {0, 2});
  EXPECT_THROW(writer.write("retain", "layers.0.o_proj.input", {2, 4}, {0, 2}, data),
               dist::ContractError);
  EXPECT_THROW(writer.write("retain", "layers.0.o_proj.input", {0, 2}, {7, 9}, data),
               dist::ContractError);
  EXPECT_THROW(writer.write("retain", "layers.0.o_proj.input", {0, 2}, {0, 3}, data),
               dist::ContractError);
  EXPECT_THROW(writer.write("retain", "none", {0, 2}, {0, 2}, data), dist::ContractError);
  writer.finish();
  const StateReader reader(path());
  std::vector<float> out(4);
  EXPECT_THROW(reader.read("retain", "layers.0.o_proj.input", {2, 4}, {0, 2}, out),
               dist::ContractError);
  EXPECT_THROW(reader.read("retain", "layers.0.o_proj.input", {0, 2}, {0, 3}, out),
               dist::ContractError);
  EXPECT_NE(input_error([&] {
              reader.read("world", "layers.0.o_proj.input", {0, 2}, {0, 2}, out);
            }).find("no set \"world\"; the file has: forget, retain"),
            std::string::npos);
  EXPECT_NE(input_error([&] { reader.width("none"); }).find("no site \"none\""), std::string::npos);
}

TEST_F(StateStoreTest, the_self_test_leaves_nothing_and_names_an_unfit_directory) {
  io::self_test(folder_.path(), world_);
  EXPECT_TRUE(files().empty());
  const auto message = test::message_of<dist::ResourceError>(
      [&] { io::self_test(folder_.path() / "absent", world_); });
  EXPECT_NE(message.find("absent is not fit for parallel HDF5"), std::string::npos) << message;
}

TEST_F(StateStoreTest, foreign_structure_is_refused) {
  const auto own = folder_.path() / fmt::format("own.{}.h5", world_.rank());
  const auto error_after = [&](const std::function<void(hid_t)>& edit) {
    write_alone(own);
    test::edit_hdf5(own, edit);
    return input_error([&] {
      const StateReader reader(own);
      reader.positions("forget");
    });
  };
  const auto remove = [](const char* name) {
    return [name](hid_t file) { MRP_HDF5(H5Ldelete(file, name, H5P_DEFAULT)); };
  };
  EXPECT_NE(error_after(remove("forget/positions")).find("\"positions\" is missing"),
            std::string::npos);
  EXPECT_NE(error_after(remove("retain/layers.0.o_proj.input")).find("sites are missing"),
            std::string::npos);
  EXPECT_NE(error_after(remove("retain/layers.0.o_proj.input/hidden_states")).find("is missing"),
            std::string::npos);
  EXPECT_NE(error_after([](hid_t file) {
              MRP_HDF5(H5Ldelete(file, "forget", H5P_DEFAULT));
              MRP_HDF5(H5Ldelete(file, "retain", H5P_DEFAULT));
            }).find("holds no sets"),
            std::string::npos);
  EXPECT_NE(error_after([](hid_t file) {
              test::poke(file, "forget/positions", {4, 1}, H5T_NATIVE_INT64, std::int64_t{-1});
            }).find("positions are not pairs"),
            std::string::npos);
  EXPECT_NE(error_after([](hid_t file) {
              const auto group = io::open_group(file, "forget");
              MRP_HDF5(H5Ldelete(group.get(), "positions", H5P_DEFAULT));
              io::write_array<std::int64_t>(group.get(), "positions",
                                            std::array<std::int64_t, 2>{60, 2},
                                            std::vector<std::int64_t>(120));
            }).find("[61 × 13] with 60 positions"),
            std::string::npos);
  const auto replace_states = [](hid_t file, std::int64_t rows, std::int64_t width) {
    const auto site = io::open_group(io::open_group(file, "retain").get(), "layers.0.o_proj.input");
    MRP_HDF5(H5Ldelete(site.get(), "hidden_states", H5P_DEFAULT));
    io::write_array<double>(site.get(), "hidden_states", std::array{rows, width},
                            std::vector<double>(std::size_t(rows * width)));
  };
  EXPECT_NE(
      error_after([&](hid_t file) { replace_states(file, 3, 8); }).find("neither bf16 nor f32"),
      std::string::npos);
  EXPECT_NE(error_after([](hid_t file) {
              MRP_HDF5(H5Ldelete(file, "retain/layers.0.o_proj.input", H5P_DEFAULT));
              MRP_HDF5(H5Lcreate_soft("/forget/layers.0.o_proj.input", file,
                                      "retain/layers.0.o_proj.input", H5P_DEFAULT, H5P_DEFAULT));
            }).find("soft or external link"),
            std::string::npos);
}

TEST_F(StateStoreTest, damaged_files_are_errors) {
  const auto own = folder_.path() / fmt::format("own.{}.h5", world_.rank());
  write_alone(own);
  const auto read = [&] {
    const StateReader reader(own);
    for (const auto& set : reader.sets()) {
      reader.positions(set);
      for (const auto& site : reader.sites()) {
        std::vector<float> out(static_cast<std::size_t>(reader.rows(set) * reader.width(site)));
        reader.read(set, site, {0, reader.rows(set)}, {0, reader.width(site)}, out);
      }
    }
  };
  const test::Damage damage(own);
  damage.truncate(read);
  damage.mutate(read);
}

}  // namespace
}  // namespace mrp
