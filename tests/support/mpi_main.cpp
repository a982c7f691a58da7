// GoogleTest under MPI: rank 0 prints, the failures of all ranks are gathered with their rank number,
// and a failure anywhere fails every rank.
#include <gtest/gtest.h>
#include <mpi.h>

#include <string>

#include "dist/session.hpp"

namespace {

/// Collects failures as text; prints at the end of each test, in rank order.
class RankListener : public testing::EmptyTestEventListener {
 public:
  RankListener() {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
  }

  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    failures_ += "rank " + std::to_string(rank_) + ": " +
                 (result.file_name() ? result.file_name() : "?") + ":" +
                 std::to_string(result.line_number()) + "\n" + result.message() + "\n";
  }

  void OnTestEnd(const testing::TestInfo& info) override {
    int length = static_cast<int>(failures_.size());
    int longest = 0;
    MPI_Allreduce(&length, &longest, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    if (longest > 0) {
      failures_.resize(static_cast<std::size_t>(longest), '\0');
      std::string all(static_cast<std::size_t>(longest) * static_cast<std::size_t>(size_), '\0');
      MPI_Gather(failures_.data(), longest, MPI_CHAR, all.data(), longest, MPI_CHAR, 0,
                 MPI_COMM_WORLD);
      if (rank_ == 0) {
        std::erase(all, '\0');
        std::printf("[  FAILED  ] %s.%s\n%s", info.test_suite_name(), info.name(), all.c_str());
        std::fflush(stdout);
      }
      failed_ = true;
      failures_.clear();
    }
  }

  bool failed() const { return failed_; }

 private:
  int rank_ = 0;
  int size_ = 1;
  bool failed_ = false;
  std::string failures_;
};

}  // namespace

int main(int argc, char** argv) {
  mrp::dist::Session session(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  auto* ours = new RankListener;
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank != 0) delete listeners.Release(listeners.default_result_printer());
  listeners.Append(ours);
  const int status = RUN_ALL_TESTS();
  const bool failed = ours->failed() || status != 0;
  if (testing::UnitTest::GetInstance()->test_to_run_count() == 0) return 1;
  return failed ? 1 : 0;
}
