// GoogleTest under MPI: rank 0 prints, the failures of the other ranks are gathered with their rank
// number, and a failure anywhere fails every rank.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdio>
#include <string>

#include "dist/communicator.hpp"
#include "dist/session.hpp"

namespace {

using mrp::dist::Communicator;

/// Collects this rank's failures; at the end of each test rank 0 prints those of the others.
class RankListener : public testing::EmptyTestEventListener {
 public:
  explicit RankListener(const Communicator& comm) : comm_(comm) {}

  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    failures_ += "rank " + std::to_string(comm_.rank()) + ": " +
                 (result.file_name() != nullptr ? result.file_name() : "unknown file") + ":" +
                 std::to_string(result.line_number()) + ": Failure\n" + result.message() + "\n";
  }

  void OnTestEnd(const testing::TestInfo& info) override {
    const std::string name = std::string(info.test_suite_name()) + "." + info.name();
    // Rank 0 has printed its own.
    const std::string others = comm_.is_root() ? "" : failures_;
    const auto gathered = comm_.all_gather_v(std::span<const char>(others));
    if (comm_.is_root() && !gathered.empty()) {
      std::printf("%.*s[  FAILED  ] %s\n", static_cast<int>(gathered.size()), gathered.data(),
                  name.c_str());
      std::fflush(stdout);
    }
    if (!gathered.empty() || comm_.all_reduce(failures_.empty() ? 0 : 1) > 0)
      failed_.append("\n  " + name);
    failures_.clear();
  }

  /// Names of the tests that failed on any rank, one a line; the same on all ranks.
  const std::string& failed() const { return failed_; }

 private:
  const Communicator& comm_;
  std::string failures_;
  std::string failed_;
};

int run_tests(const Communicator& comm) {
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (!comm.is_root()) delete listeners.Release(listeners.default_result_printer());
  auto* listener = new RankListener(comm);  // owned by GoogleTest
  listeners.Append(listener);
  const int status = RUN_ALL_TESTS();
  if (comm.is_root() && !listener->failed().empty()) {
    std::printf("\nFailed on at least one rank:%s\n", listener->failed().c_str());
  }
  if (testing::UnitTest::GetInstance()->test_to_run_count() == 0) {
    if (comm.is_root()) std::printf("No test matches the filter.\n");
    return 1;
  }
  const int failed = listener->failed().empty() ? status : 1;
  delete listeners.Release(listener);
  return failed;
}

}  // namespace

int main(int argc, char** argv) {
  const mrp::dist::Session session(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  const auto comm = Communicator::world();
  return run_tests(comm);
}
