// Shared by the tests of HDF5 files: h5py as a peer, and damage done to files.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "dist/error.hpp"
#include "io/file.hpp"
#include "io/hdf5.hpp"
#include "io/local_folder.hpp"

namespace mrp::test {

/// Exit status of tests/io/h5py_peer.py.
inline int run_h5py(const std::string& action, const std::filesystem::path& path) {
  const std::string command =
      std::string("'" MRP_PYTHON "' '" MRP_H5PY_SCRIPT "' ") + action + " '" + path.string() + "'";
  return std::system(command.c_str());
}

inline std::string input_error(const std::function<void()>& read) {
  const auto message = message_of<dist::InputError>(read);
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  return message;
}

/// Writes damaged versions of a file in its place; reading one must return or throw InputError. The
/// ranks share the work: each does other damage to its own file.
class Damage {
 public:
  explicit Damage(const std::filesystem::path& path) : path_(path), whole_(io::read_text(path)) {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
  }
  ~Damage() { put(whole_); }

  /// Cut anywhere: always an error.
  void truncate(const std::function<void()>& read) const {
    for (int percent = rank_; percent < 100; percent += size_) {
      put(whole_.substr(0, whole_.size() * static_cast<std::size_t>(percent) / 100));
      EXPECT_THROW(read(), dist::InputError) << "cut to " << percent << " %";
    }
  }

  /// 300 times up to four bytes changed, mostly where there is something; a tenth must be noticed.
  void mutate(const std::function<void()>& read) const {
    std::mt19937 random(20240229U + static_cast<unsigned>(rank_));
    const int files = 300 / size_;
    int refused = 0;
    for (int i = 0; i < files; ++i) {
      std::string damaged = whole_;
      for (auto left = 1 + random() % 4; left > 0; --left) {
        auto place = random() % damaged.size();
        for (int tries = 0; damaged[place] == 0 && tries < 20; ++tries) {
          place = random() % damaged.size();
        }
        damaged[place] = static_cast<char>(random());
      }
      put(damaged);
      try {
        read();
      } catch (const dist::InputError&) {
        ++refused;
      } catch (const std::exception& error) {
        ADD_FAILURE() << "mutation " << i << ": " << error.what();
      }
    }
    EXPECT_GT(refused, files / 10);
  }

 private:
  void put(const std::string& bytes) const {
    std::filesystem::remove(path_);
    std::ofstream(path_, std::ios::binary) << bytes;
  }

  std::filesystem::path path_;
  std::string whole_;
  int rank_ = 0;
  int size_ = 1;
};

/// Runs `edit` on the open file.
inline void edit_hdf5(const std::filesystem::path& path, const std::function<void(hid_t)>& edit) {
  const auto access = MRP_HDF5_HANDLE(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  MRP_HDF5(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110));
  auto file = MRP_HDF5_HANDLE(H5Fopen(path.c_str(), H5F_ACC_RDWR, access.get()), H5Fclose);
  edit(file.get());
  file.close();
}

/// Overwrites one element of a dataset of one or two dimensions.
template <class T>
void poke(hid_t file, const std::string& dataset, std::vector<hsize_t> place, hid_t type, T value) {
  const auto id = MRP_HDF5_HANDLE(H5Dopen2(file, dataset.c_str(), H5P_DEFAULT), H5Dclose);
  const auto space = MRP_HDF5_HANDLE(H5Dget_space(id.get()), H5Sclose);
  MRP_HDF5(H5Sselect_elements(space.get(), H5S_SELECT_SET, 1, place.data()));
  const auto one = MRP_HDF5_HANDLE(H5Screate(H5S_SCALAR), H5Sclose);
  MRP_HDF5(H5Dwrite(id.get(), type, one.get(), space.get(), H5P_DEFAULT, &value));
}

}  // namespace mrp::test
