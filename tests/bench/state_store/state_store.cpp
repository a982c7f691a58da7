// Moves hidden states, or the same bytes in plain files, and prints the seconds that it took.
//
//   mpirun -n RANKS state_store_benchmark write|read store|buffered|direct FOLDER MEGABYTES
//
// store: FOLDER/states.h5, columns of every site dealt to the ranks; buffered, direct: one file a
// rank, in blocks of 8 MiB through the page cache or past it. Writing ends when all is synced.
// Prints "SECONDS PEAK_MIB": the slowest rank, and the most memory that a rank took on top of what
// it had at the beginning.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <random>

#include "dist/error.hpp"
#include "dist/session.hpp"
#include "io/state_store.hpp"

namespace {

using namespace mrp;

constexpr std::int64_t kBlockBytes = std::int64_t{8} << 20;
constexpr std::int64_t kPage = 4096;

/// Sites of a model of 1.1 B parameters.
io::StateLayout make_layout(std::int64_t bytes, int ranks) {
  io::StateLayout layout;
  std::int64_t width = 0;
  for (int layer = 0; layer < 22; ++layer) {
    layout.sites.push_back({fmt::format("layers.{}.o_proj.input", layer), 2048, ranks});
    layout.sites.push_back({fmt::format("layers.{}.down_proj.input", layer), 5632, ranks});
    width += 2048 + 5632;
  }
  auto& rows = layout.positions["retain"];
  rows.resize(static_cast<std::size_t>(bytes / (2 * width)));
  return layout;
}

/// Bytes that no disk can compress, at the beginning of a page.
std::span<std::byte> random_block() {
  auto* memory = static_cast<std::uint64_t*>(std::aligned_alloc(kPage, kBlockBytes));
  std::mt19937_64 generator(7);
  for (std::int64_t i = 0; i < kBlockBytes / 8; ++i) memory[i] = generator();
  return {reinterpret_cast<std::byte*>(memory), static_cast<std::size_t>(kBlockBytes)};
}

/// Calls work(site, rows, columns) for blocks of this rank's columns.
template <class Work>
void for_blocks(const io::StateLayout& layout, const dist::Communicator& comm, Work&& work) {
  const auto rows = std::ssize(layout.positions.at("retain"));
  for (const io::SiteShape& site : layout.sites) {
    const dist::Range columns = dist::slice(site.width, comm.size(), comm.rank());
    const std::int64_t pages = layout.page_rows(site);
    const std::int64_t step = kBlockBytes / (2 * columns.size()) / pages * pages;
    for (std::int64_t row = 0; row < rows; row += step) {
      work(site.site, dist::Range{row, std::min(row + step, rows)}, columns);
    }
  }
}

void write_store(const std::filesystem::path& path, const io::StateLayout& layout,
                 const dist::Communicator& comm, std::span<const std::byte> block) {
  io::StateWriter writer(path, layout, "benchmark", comm);
  for_blocks(layout, comm, [&](const std::string& site, dist::Range rows, dist::Range columns) {
    const auto bytes = static_cast<std::size_t>(2 * rows.size() * columns.size());
    writer.write("retain", site, rows, columns, block.first(bytes));
  });
  writer.finish();
}

void read_store(const std::filesystem::path& path, const io::StateLayout& layout,
                const dist::Communicator& comm) {
  const io::StateReader reader(path);
  std::vector<float> out(static_cast<std::size_t>(kBlockBytes / 2));
  for_blocks(layout, comm, [&](const std::string& site, dist::Range rows, dist::Range columns) {
    const auto count = static_cast<std::size_t>(rows.size() * columns.size());
    reader.read("retain", site, rows, columns, std::span(out).first(count));
  });
}

void move_plain(const std::filesystem::path& path, int flags, std::int64_t bytes,
                std::span<std::byte> block) {
  const int file = ::open(path.c_str(), flags, 0666);
  if (file < 0) throw dist::ResourceError("cannot open " + path.string());
  const bool reads = (flags & O_ACCMODE) == O_RDONLY;
  for (std::int64_t at = 0; at < bytes; at += kBlockBytes) {
    const auto moved = reads ? ::pread(file, block.data(), block.size(), at)
                             : ::pwrite(file, block.data(), block.size(), at);
    if (moved != kBlockBytes) throw dist::ResourceError("short transfer in " + path.string());
  }
  if (!reads && ::fsync(file) != 0) throw dist::ResourceError("cannot sync " + path.string());
  ::close(file);
}

double peak_mebibytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

void run(std::span<char*> arguments, const dist::Communicator& comm) {
  const std::string action = arguments[1], way = arguments[2];
  const std::filesystem::path folder = arguments[3];
  const std::int64_t bytes = std::stoll(arguments[4]) * 1'000'000;
  const io::StateLayout layout = make_layout(bytes, comm.size());
  const std::span<std::byte> block = random_block();
  const double idle = peak_mebibytes();

  comm.barrier();
  const auto start = std::chrono::steady_clock::now();
  if (way == "store") {
    const auto path = folder / "states.h5";
    action == "write" ? write_store(path, layout, comm, block) : read_store(path, layout, comm);
  } else {
    const int flags = (action == "write" ? O_WRONLY | O_CREAT | O_TRUNC : O_RDONLY) |
                      (way == "direct" ? O_DIRECT : 0);
    move_plain(folder / fmt::format("plain.{}", comm.rank()), flags, bytes / comm.size(), block);
  }
  comm.barrier();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  const double memory = comm.all_reduce(peak_mebibytes() - idle, dist::ReduceOp::max);
  if (comm.is_root()) fmt::print("{} {}\n", seconds.count(), memory);
}

}  // namespace

int main(int argc, char** argv) {
  const dist::Session session(argc, argv);
  try {
    if (argc != 5) throw dist::UsageError("write|read store|buffered|direct FOLDER MEGABYTES");
    run({argv, static_cast<std::size_t>(argc)}, dist::Communicator::world());
  } catch (...) {
    dist::abort_job(std::current_exception());
  }
  return 0;
}
