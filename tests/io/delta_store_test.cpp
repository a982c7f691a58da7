#include "io/delta_store.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "dist/agree.hpp"
#include "hdf5_support.hpp"
#include "io/hdf5_array.hpp"
#include "io/token_dataset.hpp"
#include "support/temp_folder.hpp"

namespace mrp {
namespace {

using dist::Range;
using io::DeltaLayout;
using io::DeltaReader;
using io::DeltaWriter;
using test::input_error;

const std::string kMatrix = "model.layers.0.mlp.down_proj.weight";
const std::string kBias = "model.layers.0.mlp.down_proj.bias";

DeltaLayout layout() {
  return {{{kMatrix, {9, 13}}, {kBias, {21}}}, R"({"train":"subspace"})"};
}

/// Different everywhere, exact in f32.
float value(std::int64_t row, std::int64_t column) {
  return static_cast<float>(1 + row) * 1e-3F - static_cast<float>(column) * 0x1p-20F;
}

std::vector<float> block(Range rows, Range columns) {
  std::vector<float> values;
  for (auto row = rows.begin; row < rows.end; ++row) {
    for (auto column = columns.begin; column < columns.end; ++column) {
      values.push_back(value(row, column));
    }
  }
  return values;
}

std::vector<float> read(const DeltaReader& reader, const std::string& tensor, Range rows,
                        Range columns) {
  std::vector<float> found(static_cast<std::size_t>(rows.size() * columns.size()), NAN);
  reader.read(tensor, rows, columns, found);
  return found;
}

class DeltaStoreTest : public testing::Test {
 protected:
  std::filesystem::path path() const { return folder_.path() / "deltas.h5"; }
  std::filesystem::path own() const {
    return folder_.path() / fmt::format("own.{}.h5", world_.rank());
  }

  /// The matrix cut by rows or by columns, as column-parallel and row-parallel weights are.
  void write(bool by_columns) const {
    DeltaWriter writer(path(), layout(), "fünf", world_);
    dist::agree(world_, [&] {
      const auto part = dist::slice(by_columns ? 13 : 9, world_.size(), world_.rank());
      const Range rows = by_columns ? Range{0, 9} : part,
                  columns = by_columns ? part : Range{0, 13};
      writer.write(kMatrix, rows, columns, block(rows, columns));
      const auto piece = dist::slice(21, world_.size(), world_.rank());
      writer.write(kBias, {0, 1}, piece, block({0, 1}, piece));
    });
    writer.finish();
  }

  /// A file written by this rank alone, for tests that damage it.
  std::string error_after(const std::function<void(hid_t)>& edit) const {
    write_alone();
    test::edit_hdf5(own(), edit);
    return input_error([&] { read_all(); });
  }

  void write_alone() const {
    const auto self = dist::Communicator::self();
    DeltaWriter writer(own(), layout(), "alone", self);
    writer.write(kMatrix, {0, 9}, {0, 13}, block({0, 9}, {0, 13}));
    writer.write(kBias, {0, 1}, {0, 21}, block({0, 1}, {0, 21}));
    writer.finish();
  }

  void read_all() const {
    const DeltaReader reader(own());
    for (const auto& [tensor, shape] : reader.layout().tensors) {
      read(reader, tensor, {0, shape.size() == 1 ? 1 : shape[0]}, {0, shape.back()});
    }
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

  dist::Communicator world_ = dist::Communicator::world();
  test::TempFolder folder_{world_};
};

TEST_F(DeltaStoreTest, blocks_of_all_ranks_form_the_tensors) {
  for (const bool by_columns : {false, true}) {
    write(by_columns);
    const DeltaReader reader(path());
    EXPECT_EQ(reader.fingerprint(), "fünf");
    EXPECT_EQ(io::read_fingerprint(path()), "fünf");
    EXPECT_EQ(reader.layout().summary, layout().summary);
    EXPECT_EQ(reader.layout().tensors, layout().tensors);
    for (const auto& [rows, columns] :
         {std::pair(Range{0, 9}, Range{0, 13}), std::pair(Range{2, 5}, Range{0, 13}),
          std::pair(Range{1, 9}, Range{3, 4})}) {
      EXPECT_EQ(read(reader, kMatrix, rows, columns), block(rows, columns));
    }
    EXPECT_EQ(read(reader, kBias, {0, 1}, {0, 21}), block({0, 1}, {0, 21}));
    EXPECT_EQ(read(reader, kBias, {0, 1}, {4, 9}), block({0, 1}, {4, 9}));
    EXPECT_TRUE(read(reader, kMatrix, {3, 3}, {0, 13}).empty());
    EXPECT_EQ(files(), std::vector<std::string>{"deltas.h5"});
  }
}

TEST_F(DeltaStoreTest, h5py_reads_the_numbers) {
  write(true);
  if (world_.is_root()) {
    EXPECT_EQ(test::run_h5py("check-deltas", path()), 0);
  }
  world_.barrier();
}

TEST_F(DeltaStoreTest, a_rank_that_fails_leaves_no_file) {
  const auto fail = [&] {
    DeltaWriter writer(path(), layout(), "", world_);
    dist::agree(world_, [&] {
      if (world_.rank() == world_.size() - 1) throw dist::NumericalError("loss is NaN");
    });
    writer.finish();
  };
  EXPECT_THROW(fail(), dist::NumericalError);
  EXPECT_TRUE(files().empty());
}

TEST_F(DeltaStoreTest, layouts_that_cannot_be_written_are_refused_on_all_ranks) {
  const auto refuse = [&](std::vector<std::int64_t> shape) {
    DeltaLayout wrong = layout();
    wrong.tensors["w"] = std::move(shape);
    EXPECT_THROW(DeltaWriter(path(), wrong, "", world_), dist::Error);
  };
  refuse({});
  refuse({0, 4});
  refuse({2, 3, 4});
  EXPECT_THROW(DeltaWriter(path(), {}, "", world_), dist::Error);
  DeltaLayout huge = layout();
  huge.tensors["w"] = {std::int64_t{1} << 30, std::int64_t{1} << 20};
  EXPECT_NE(test::message_of<dist::ResourceError>([&] {
              DeltaWriter(path(), huge, "", world_);
            }).find("deltas.h5 needs"),
            std::string::npos);
  if (world_.size() > 1) {
    DeltaLayout other = layout();
    if (world_.rank() == 1) other.tensors[kBias] = {22};
    EXPECT_THROW(DeltaWriter(path(), other, "", world_), dist::Error);
  }
  EXPECT_TRUE(files().empty());
}

TEST_F(DeltaStoreTest, blocks_outside_are_contract_errors) {
  write_alone();
  const DeltaReader reader(own());
  EXPECT_THROW(read(reader, kMatrix, {8, 10}, {0, 2}), dist::ContractError);
  EXPECT_THROW(read(reader, kMatrix, {0, 2}, {12, 14}), dist::ContractError);
  EXPECT_THROW(read(reader, kBias, {0, 2}, {0, 2}), dist::ContractError);
  EXPECT_NE(input_error([&] {
              read(reader, "w", {0, 1}, {0, 1});
            }).find("no change of tensor w"),
            std::string::npos);
  DeltaWriter writer(path(), layout(), "", world_);
  EXPECT_THROW(writer.write(kBias, {1, 2}, {0, 1}, std::vector<float>(1)), dist::ContractError);
  EXPECT_THROW(writer.write(kBias, {0, 1}, {0, 2}, std::vector<float>(1)), dist::ContractError);
  EXPECT_THROW(writer.write("w", {0, 1}, {0, 1}, std::vector<float>(1)), dist::ContractError);
  writer.finish();
  EXPECT_THROW(writer.write(kBias, {0, 1}, {0, 1}, std::vector<float>(1)), dist::ContractError);
}

TEST_F(DeltaStoreTest, wrong_content_is_refused_and_named) {
  const auto poke = [](float wrong) {
    return [wrong](hid_t file) { test::poke(file, kMatrix, {5, 1}, H5T_NATIVE_FLOAT, wrong); };
  };
  for (const float wrong : {NAN, INFINITY, -INFINITY}) {
    EXPECT_NE(error_after(poke(wrong)).find("change of tensor " + kMatrix + " has NaN or Inf"),
              std::string::npos);
  }
  const auto replace = [](std::vector<std::int64_t> shape) {
    return [shape](hid_t file) {
      MRP_HDF5(H5Ldelete(file, kMatrix.c_str(), H5P_DEFAULT));
      std::size_t count = 1;
      for (const auto length : shape) count *= static_cast<std::size_t>(length);
      io::write_array<double>(file, kMatrix, shape, std::vector<double>(count));
    };
  };
  EXPECT_NE(error_after(replace({9, 13})).find("down_proj.weight: elements are not f32"),
            std::string::npos);
  const auto resize = [](std::vector<hsize_t> shape) {
    return [shape](hid_t file) {
      MRP_HDF5(H5Ldelete(file, kMatrix.c_str(), H5P_DEFAULT));
      const auto space = MRP_HDF5_HANDLE(
          H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose);
      MRP_HDF5_HANDLE(H5Dcreate2(file, kMatrix.c_str(), H5T_IEEE_F32LE, space.get(), H5P_DEFAULT,
                                 H5P_DEFAULT, H5P_DEFAULT),
                      H5Dclose);
    };
  };
  EXPECT_NE(error_after(resize({2, 2, 2})).find("must have 2 dimensions"), std::string::npos);
  EXPECT_NE(error_after(resize({0, 2})).find("is empty"), std::string::npos);
  EXPECT_NE(error_after(resize({hsize_t{1} << 40, 2})).find("claims"), std::string::npos);
}

TEST_F(DeltaStoreTest, foreign_structure_is_refused) {
  EXPECT_NE(error_after([](hid_t file) {
              MRP_HDF5(H5Ldelete(file, kMatrix.c_str(), H5P_DEFAULT));
              MRP_HDF5(H5Ldelete(file, kBias.c_str(), H5P_DEFAULT));
            }).find("holds no tensors"),
            std::string::npos);
  EXPECT_NE(error_after([](hid_t file) { io::create_group(file, "w"); }).find("not a dataset"),
            std::string::npos);
  EXPECT_NE(error_after([](hid_t file) {
              MRP_HDF5(H5Lcreate_soft("/elsewhere", file, "w", H5P_DEFAULT, H5P_DEFAULT));
            }).find("soft or external link"),
            std::string::npos);
  EXPECT_NE(error_after([](hid_t file) {
              MRP_HDF5(H5Adelete(file, "summary"));
            }).find("\"summary\" is missing"),
            std::string::npos);
  EXPECT_NE(error_after([](hid_t file) {
              MRP_HDF5(H5Adelete(file, "format"));
              io::write_attribute(file, "format", std::string("mrp.states"));
            }).find("format is \"mrp.states\""),
            std::string::npos);
}

TEST_F(DeltaStoreTest, damaged_files_are_errors) {
  write_alone();
  const test::Damage damage(own());
  damage.truncate([&] { read_all(); });
  damage.mutate([&] { read_all(); });
}

}  // namespace
}  // namespace mrp
