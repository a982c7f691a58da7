// A test with a folder of its own on every rank: what is tested here knows nothing of other ranks.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "dist/communicator.hpp"
#include "dist/error.hpp"
#include "support/temp_folder.hpp"

namespace mrp::test {

class LocalFolder : public testing::Test {
 protected:
  const std::filesystem::path& folder() const { return folder_.path(); }

  /// Writes `content` as it is, without any of the code under test.
  std::filesystem::path put(const std::string& name, std::string_view content) const {
    const auto path = folder() / name;
    // Overwriting in place makes some file systems flush at once, 5 ms a file.
    std::filesystem::remove(path);
    std::ofstream(path, std::ios::binary)
        .write(content.data(), static_cast<std::streamsize>(content.size()));
    return path;
  }

  static std::string get(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

 private:
  dist::Communicator self_ = dist::Communicator::self();
  TempFolder folder_{self_};
};

/// The message with which `action` throws Exception; anything else is said in words.
template <class Exception, class Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const Exception& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("another exception: ") + error.what();
  }
  return "no exception";
}

}  // namespace mrp::test
