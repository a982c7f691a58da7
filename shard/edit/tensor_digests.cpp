#include "shard/edit/tensor_digests.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "dist/partition.hpp"
#include "io/hash.hpp"

namespace mrp::shard {
namespace {

constexpr std::uint64_t kBlockBytes = 32u << 20;

std::string digest(const io::SafetensorsFile& file, const io::TensorInfo& tensor) {
  io::Sha256 hash;
  std::vector<std::byte> buffer;
  for (std::uint64_t at = tensor.begin; at < tensor.end; at += kBlockBytes) {
    buffer.resize(static_cast<std::size_t>(std::min(kBlockBytes, tensor.end - at)));
    file.read(at, buffer);
    hash.update(buffer);
  }
  return hash.finish();
}

}  // namespace

std::map<std::string, std::string> tensor_digests(const io::Checkpoint& checkpoint,
                                                  const dist::Communicator& comm) {
  std::vector<std::pair<const io::SafetensorsFile*, const io::TensorInfo*>> tensors;
  std::vector<std::int64_t> costs;
  for (const io::SafetensorsFile& file : checkpoint.files()) {
    for (const io::TensorInfo& tensor : file.tensors()) {
      tensors.emplace_back(&file, &tensor);
      costs.push_back(static_cast<std::int64_t>(tensor.bytes()) + 1);
    }
  }
  const dist::Range own = dist::balance(costs, comm.size())[static_cast<std::size_t>(comm.rank())];
  std::vector<char> mine;
  dist::agree(comm, [&] {
    dist::log::Progress progress("hash", own.size(), "tensors of rank 0");
    for (std::int64_t i = own.begin; i < own.end; ++i) {
      const auto& [file, tensor] = tensors[static_cast<std::size_t>(i)];
      const std::string found = digest(*file, *tensor);
      mine.insert(mine.end(), found.begin(), found.end());
      progress.advance(1);
    }
  });
  // Shares are contiguous and in rank order.
  const std::vector<char> all = comm.all_gather_v(std::span<const char>(mine));
  MRP_EXPECT(all.size() == tensors.size() * io::Sha256::digits);
  std::map<std::string, std::string> digests;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    digests[tensors[i].second->name] =
        std::string(all.data() + i * io::Sha256::digits, io::Sha256::digits);
  }
  return digests;
}

std::string combined_digest(const std::map<std::string, std::string>& digests) {
  io::Sha256 hash;
  for (const auto& [name, digest] : digests) {
    const std::string line = digest + "  " + name + "\n";
    hash.update(std::as_bytes(std::span(line)));
  }
  return hash.finish();
}

std::map<std::string, std::string> digests_of(
    const std::map<std::string, io::TensorRecord>& records) {
  std::map<std::string, std::string> digests;
  for (const auto& [name, record] : records) digests[name] = record.sha256;
  return digests;
}

}  // namespace mrp::shard
