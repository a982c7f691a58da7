// Shared by the tests of HDF5 files: h5py as a peer, and damage done to files.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>

#include "dist/error.hpp"
#include "io/file.hpp"
#include "io/hdf5.hpp"

namespace mrp::test {

/// Exit status of tests/io/h5py_peer.py.
inline int run_h5py(const std::string& action, const std::filesystem::path& path) {
  const std::string command =
      std::string("'" MRP_PYTHON "' '" MRP_H5PY_SCRIPT "' ") + action + " '" + path.string() + "'";
  return std::system(command.c_str());
}

/// The message of the InputError that `read` must throw.
inline std::string input_error(const std::function<void()>& read) {
  try {
    read();
  } catch (const dist::InputError& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "no InputError: " << error.what();
    return {};
  }
  ADD_FAILURE() << "accepted";
  return {};
}

inline void overwrite(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// Overwrites `path` with damaged versions of its content; `read` must throw InputError or return.
class Damage {
 public:
  explicit Damage(const std::filesystem::path& path) : path_(path), whole_(io::read_text(path)) {}
  ~Damage() { overwrite(path_, whole_); }

  /// Cut anywhere: always an error.
  void truncate(const std::function<void()>& read) const {
    for (std::size_t i = 0; i < 100; ++i) {
      const std::size_t length = whole_.size() * i / 100;
      overwrite(path_, whole_.substr(0, length));
      SCOPED_TRACE("cut to " + std::to_string(length) + " of " + std::to_string(whole_.size()));
      input_error(read);
    }
  }

  /// Up to four bytes changed, mostly where there is something. Returns how many files were refused.
  int mutate(int files, const std::function<void()>& read) const {
    std::mt19937 random(20240229);
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
      overwrite(path_, damaged);
      try {
        read();
      } catch (const dist::InputError&) {
        ++refused;
      } catch (const std::exception& error) {
        ADD_FAILURE() << "mutation " << i << ": no InputError: " << error.what();
      }
    }
    return refused;
  }

 private:
  std::filesystem::path path_;
  std::string whole_;
};

/// Runs `edit` on a file that is open for writing.
inline void edit_hdf5(const std::filesystem::path& path, const std::function<void(hid_t)>& edit) {
  const auto access = MRP_HDF5_HANDLE(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  MRP_HDF5(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110));
  auto file = MRP_HDF5_HANDLE(H5Fopen(path.c_str(), H5F_ACC_RDWR, access.get()), H5Fclose);
  edit(file.get());
  file.close();
}

}  // namespace mrp::test
