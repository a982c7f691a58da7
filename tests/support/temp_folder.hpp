// A folder for the files of one test, shared by all ranks and removed afterwards.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "dist/agree.hpp"
#include "dist/communicator.hpp"
#include "dist/error.hpp"

namespace mrp::test {

/// Made by rank 0 and known to all. Construction and destruction are collective over `comm`, which
/// must outlive it.
class TempFolder {
 public:
  explicit TempFolder(const dist::Communicator& comm) : comm_(&comm) {
    const std::string name = dist::agree(comm, [&]() -> std::string {
      if (!comm.is_root()) return {};
      std::string pattern = (std::filesystem::temp_directory_path() / "mrp_test_XXXXXX").string();
      if (mkdtemp(pattern.data()) == nullptr) throw dist::ResourceError("cannot make " + pattern);
      return pattern;
    });
    path_ = comm.broadcast(name);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  ~TempFolder() {
    MPI_Barrier(comm_->get());  // nobody still writes into it
    std::error_code ignored;
    if (comm_->is_root()) std::filesystem::remove_all(path_, ignored);
    MPI_Barrier(comm_->get());
  }

  const std::filesystem::path& path() const { return path_; }

 private:
  const dist::Communicator* comm_;
  std::filesystem::path path_;
};

}  // namespace mrp::test
