#include "io/subspace_store.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "hdf5_support.hpp"

namespace mrp {
namespace {

using dist::InputError;
using io::StoredSubspace;
using io::SubspaceFile;
using test::input_error;

/// `count` orthonormal columns of the given length, by Gram-Schmidt.
std::vector<std::vector<double>> orthonormal(std::size_t length, std::size_t count) {
  std::mt19937 random(static_cast<unsigned>(length + count));
  std::normal_distribution<double> normal;
  std::vector<std::vector<double>> columns;
  for (std::size_t j = 0; j < count; ++j) {
    std::vector<double> column(length);
    for (double& x : column) x = normal(random);
    for (const auto& before : columns) {
      const double dot = std::inner_product(column.begin(), column.end(), before.begin(), 0.0);
      for (std::size_t i = 0; i < length; ++i) column[i] -= dot * before[i];
    }
    const double norm =
        std::sqrt(std::inner_product(column.begin(), column.end(), column.begin(), 0.0));
    for (double& x : column) x /= norm;
    columns.push_back(column);
  }
  return columns;
}

/// Oblique: B = Q₁ and A = Q₁ + 3 Q₂ with [Q₁ Q₂] orthonormal, so BᵀA = I.
StoredSubspace random_subspace(const std::string& site, std::int64_t width, std::int64_t k) {
  const auto columns =
      orthonormal(static_cast<std::size_t>(width), static_cast<std::size_t>(2 * k));
  StoredSubspace subspace;
  subspace.site = site;
  subspace.width = width;
  subspace.k = k;
  for (std::size_t i = 0; i < static_cast<std::size_t>(width); ++i) {
    for (std::size_t j = 0; j < static_cast<std::size_t>(k); ++j) {
      subspace.b.push_back(columns[j][i]);
      subspace.a.push_back(columns[j][i] + 3 * columns[static_cast<std::size_t>(k) + j][i]);
    }
  }
  for (std::int64_t i = 0; i <= k; ++i)
    subspace.eigenvalues.push_back(1.0 / static_cast<double>(i + 1));
  subspace.null_edge = 0.25;
  subspace.retain_distortion = 1e-3;
  subspace.forget_removed = 0.5;
  return subspace;
}

class SubspaceStoreTest : public test::LocalFolder {
 protected:
  SubspaceStoreTest() : path_(folder() / "subspaces.h5") {
    file_.fingerprint = "0123";
    file_.rule = R"({"rule":"gevp","ridge":0.01})";
    add(random_subspace("layers.0.o_proj.input", 24, 3));
    add(random_subspace("layers.1.down_proj.input", 100, 7));
    add(random_subspace("layers.2.stream", 16, 0));
  }

  void add(const StoredSubspace& subspace) { file_.sites[subspace.site] = subspace; }

  std::string error_after(const std::function<void(hid_t)>& edit) const {
    file_.write(path_);
    test::edit_hdf5(path_, edit);
    return input_error([&] { SubspaceFile::read(path_); });
  }

  std::filesystem::path path_;
  SubspaceFile file_;
};

TEST_F(SubspaceStoreTest, what_is_written_is_read_bit_for_bit) {
  file_.write(path_);
  EXPECT_FALSE(std::filesystem::exists(io::partial_path(path_)));
  const auto back = SubspaceFile::read(path_);
  EXPECT_EQ(back.fingerprint, file_.fingerprint);
  EXPECT_EQ(back.rule, file_.rule);
  ASSERT_EQ(back.sites.size(), file_.sites.size());
  for (const auto& [site, expected] : file_.sites) {
    const auto& found = back.sites.at(site);
    EXPECT_EQ(found.site, site);
    EXPECT_EQ(found.width, expected.width);
    EXPECT_EQ(found.k, expected.k);
    EXPECT_EQ(found.a, expected.a);
    EXPECT_EQ(found.b, expected.b);
    EXPECT_EQ(found.eigenvalues, expected.eigenvalues);
    EXPECT_EQ(found.null_edge, expected.null_edge);
    EXPECT_EQ(found.retain_distortion, expected.retain_distortion);
    EXPECT_EQ(found.forget_removed, expected.forget_removed);
  }
}

TEST_F(SubspaceStoreTest, h5py_reads_it) {
  SubspaceFile file;
  file.rule = R"({"rule":"gevp"})";
  file.sites["layers.0.stream"] = {"layers.0.stream",
                                   4,
                                   2,
                                   {1, 0, 0, 1, 0, 0, 0, 0},
                                   {1, 0, 0, 1, 0, 0, 0, 0},
                                   {3, 2, 0.5},
                                   1.25,
                                   0,
                                   0};
  file.write(path_);
  EXPECT_EQ(test::run_h5py("check-subspaces", path_), 0);
}

TEST_F(SubspaceStoreTest, no_site_at_all_is_legal) {
  file_.sites.clear();
  file_.write(path_);
  EXPECT_TRUE(SubspaceFile::read(path_).sites.empty());
}

TEST_F(SubspaceStoreTest, wrong_content_is_refused_on_reading) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string site = "layers.0.o_proj.input";
  const auto poke_a = [&](double value) {
    return [&, value](hid_t file) {
      test::poke(file, site + "/A", {5, 1}, H5T_NATIVE_DOUBLE, value);
    };
  };
  EXPECT_NE(error_after(poke_a(nan)).find("/layers.0.o_proj.input: values that are not finite"),
            std::string::npos);
  EXPECT_NE(error_after(poke_a(INFINITY)).find("not finite"), std::string::npos);
  EXPECT_NE(error_after(poke_a(1e308)).find("BᵀA differs from I"), std::string::npos);
  EXPECT_NE(error_after(poke_a(file_.sites[site].a[16] + 1e-4)).find("BᵀA differs from I"),
            std::string::npos);
  EXPECT_NE(error_after([&](hid_t file) {
              test::poke(file, site + "/eigenvalues", {0}, H5T_NATIVE_DOUBLE, 1e-9);
            }).find("descending"),
            std::string::npos);
  EXPECT_NE(error_after([&](hid_t file) {
              MRP_HDF5(H5Ldelete(file, (site + "/B").c_str(), H5P_DEFAULT));
              MRP_HDF5(H5Lcreate_hard(file, "layers.1.down_proj.input/B", file,
                                      (site + "/B").c_str(), H5P_DEFAULT, H5P_DEFAULT));
            }).find("differ in shape"),
            std::string::npos);
  EXPECT_NE(error_after([&](hid_t file) {
              MRP_HDF5(H5Ldelete(file, (site + "/eigenvalues").c_str(), H5P_DEFAULT));
            }).find("\"eigenvalues\" is missing"),
            std::string::npos);
  EXPECT_NE(error_after([&](hid_t file) {
              MRP_HDF5(H5Adelete(file, "rule"));
            }).find("\"rule\" is missing"),
            std::string::npos);
}

TEST_F(SubspaceStoreTest, a_small_deviation_is_accepted) {
  const std::string site = "layers.0.o_proj.input";
  file_.sites[site].a[16] += 1e-8;
  file_.write(path_);
  EXPECT_EQ(SubspaceFile::read(path_).sites.at(site).a, file_.sites[site].a);
}

TEST_F(SubspaceStoreTest, wrong_content_is_not_written_and_the_old_file_stays) {
  file_.write(path_);
  const auto before = get(path_);
  const auto refused = [&](const std::function<void(StoredSubspace&)>& spoil) {
    auto file = file_;
    spoil(file.sites["layers.0.o_proj.input"]);
    EXPECT_THROW(file.write(path_), dist::ContractError);
  };
  refused([](StoredSubspace& s) { s.a[0] = NAN; });
  refused([](StoredSubspace& s) { s.a[0] += 1; });
  refused([](StoredSubspace& s) { s.b.pop_back(); });
  refused([](StoredSubspace& s) { s.k = 25; });
  refused([](StoredSubspace& s) { s.eigenvalues[0] = NAN; });
  refused([](StoredSubspace& s) { s.site = "other"; });
  EXPECT_TRUE(get(path_) == before);
  EXPECT_FALSE(std::filesystem::exists(io::partial_path(path_)));
}

TEST_F(SubspaceStoreTest, nothing_is_left_behind_where_it_cannot_be_written) {
  std::filesystem::create_directories(path_ / "taken");
  EXPECT_THROW(file_.write(path_), dist::Error);
  EXPECT_FALSE(std::filesystem::exists(io::partial_path(path_)));
  EXPECT_THROW(file_.write(folder() / "absent" / "subspaces.h5"), dist::ResourceError);
}

TEST_F(SubspaceStoreTest, damaged_files_are_errors) {
  file_.write(path_);
  const test::Damage damage(path_);
  damage.truncate([&] { SubspaceFile::read(path_); });
  damage.mutate([&] { SubspaceFile::read(path_); });
}

}  // namespace
}  // namespace mrp
