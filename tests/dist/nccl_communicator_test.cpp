// The verbs on device buffers. Run where a GPU is visible; elsewhere each test says that it was
// skipped.
#include "dist/nccl_communicator.hpp"

#ifdef MRP_WITH_NCCL

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mrp::dist {
namespace {

constexpr const char* skipped =
    "NCCL NOT TESTED: no GPU is visible; the code was compiled and linked but not run";

int visible_devices() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

/// A device vector of one test.
template <class T>
class DeviceVector {
 public:
  explicit DeviceVector(const std::vector<T>& host) : size_(host.size()) {
    EXPECT_EQ(cudaMalloc(&data_, size_ * sizeof(T)), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(data_, host.data(), size_ * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  DeviceVector(const DeviceVector&) = delete;
  DeviceVector& operator=(const DeviceVector&) = delete;
  ~DeviceVector() { cudaFree(data_); }

  void* get() const { return data_; }
  std::vector<T> to_host() const {
    std::vector<T> host(size_);
    EXPECT_EQ(cudaMemcpy(host.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return host;
  }

 private:
  void* data_ = nullptr;
  std::size_t size_;
};

/// One GPU per rank where there are enough; otherwise every rank works alone on the first GPU.
class NcclCommunicatorTest : public testing::Test {
 protected:
  void SetUp() override {
    const int devices = visible_devices();
    if (devices == 0) GTEST_SKIP() << skipped;
    const auto world = Communicator::world();
    comm_ = devices >= world.size() ? Communicator::world() : Communicator::self();
    ASSERT_EQ(cudaSetDevice(comm_->rank()), cudaSuccess);
    ASSERT_EQ(cudaStreamCreate(&stream_), cudaSuccess);
  }
  void TearDown() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  std::optional<Communicator> comm_;
  cudaStream_t stream_ = nullptr;
};

TEST_F(NcclCommunicatorTest, BroadcastsFromTheLastRank) {
  const NcclCommunicator nccl(*comm_);
  const DeviceVector<float> buffer(std::vector<float>(1000, static_cast<float>(comm_->rank())));
  nccl.broadcast(buffer.get(), 1000, DeviceType::f32, comm_->size() - 1, stream_);
  nccl.wait(stream_);
  EXPECT_EQ(buffer.to_host(), std::vector<float>(1000, static_cast<float>(comm_->size() - 1)));
}

TEST_F(NcclCommunicatorTest, ReducesElementWise) {
  const NcclCommunicator nccl(*comm_);
  const std::int64_t size = comm_->size();
  const std::pair<ReduceOp, std::int64_t> cases[] = {
      {ReduceOp::sum, size * (size + 1) / 2}, {ReduceOp::min, 1}, {ReduceOp::max, size}};
  for (const auto& [op, expected] : cases) {
    const DeviceVector<std::int64_t> buffer(std::vector<std::int64_t>(77, comm_->rank() + 1));
    nccl.all_reduce(buffer.get(), 77, DeviceType::i64, op, stream_);
    nccl.wait(stream_);
    EXPECT_EQ(buffer.to_host(), std::vector<std::int64_t>(77, expected));
  }
}

TEST_F(NcclCommunicatorTest, SumsBfloat16Exactly) {
  const NcclCommunicator nccl(*comm_);
  const DeviceVector<std::uint16_t> buffer(std::vector<std::uint16_t>(33, 0x3f80));  // 1.0
  nccl.all_reduce(buffer.get(), 33, DeviceType::bf16, ReduceOp::sum, stream_);
  nccl.wait(stream_);
  // The top half of a small whole number's float is its bfloat16.
  const auto sum = static_cast<float>(comm_->size());
  std::uint32_t bits = 0;
  std::memcpy(&bits, &sum, sizeof(bits));
  EXPECT_EQ(buffer.to_host(),
            std::vector<std::uint16_t>(33, static_cast<std::uint16_t>(bits >> 16)));
}

TEST_F(NcclCommunicatorTest, GathersInRankOrder) {
  const NcclCommunicator nccl(*comm_);
  const auto size = static_cast<std::size_t>(comm_->size());
  const DeviceVector<std::uint8_t> send(
      std::vector<std::uint8_t>(5, static_cast<std::uint8_t>(comm_->rank())));
  const DeviceVector<std::uint8_t> receive(std::vector<std::uint8_t>(5 * size, 99));
  nccl.all_gather(send.get(), receive.get(), 5, DeviceType::u8, stream_);
  nccl.wait(stream_);
  std::vector<std::uint8_t> expected;
  for (std::size_t i = 0; i < 5 * size; ++i) expected.push_back(static_cast<std::uint8_t>(i / 5));
  EXPECT_EQ(receive.to_host(), expected);
}

TEST_F(NcclCommunicatorTest, AWrongRootIsAnErrorThatNamesTheCall) {
  const NcclCommunicator nccl(*comm_);
  const DeviceVector<float> buffer(std::vector<float>(1));
  try {
    nccl.broadcast(buffer.get(), 1, DeviceType::f32, comm_->size(), stream_);
    ADD_FAILURE() << "a root outside the communicator was accepted";
  } catch (const NcclError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("ncclBroadcast("));
  }
}

TEST_F(NcclCommunicatorTest, AMovedFromCommunicatorIsRefused) {
  NcclCommunicator first(*comm_);
  const NcclCommunicator second(std::move(first));
  EXPECT_THROW(first.wait(stream_), ContractError);
  second.wait(stream_);
}

TEST(NcclCommunicator, WithoutADeviceAllRanksFailTogether) {
  if (visible_devices() > 0) GTEST_SKIP() << "a GPU is visible";
  const auto comm = Communicator::world();
  std::string message;
  try {
    const NcclCommunicator nccl(comm);
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_THAT(message, testing::HasSubstr("cudaFree(nullptr) failed: "));
  // Everybody is still in step.
  EXPECT_EQ(comm.all_reduce(1), comm.size());
}

}  // namespace
}  // namespace mrp::dist

#endif
