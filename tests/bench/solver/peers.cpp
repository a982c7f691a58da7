#include "peers.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "dist/error.hpp"
#include "solver/dense.hpp"
#include "solver/scalapack.hpp"

namespace mrp::bench {
namespace {

using namespace solver;

constexpr int one = 1;

EigenPairs choose(const std::vector<double>& values, const DistMatrix& vectors,
                  const std::vector<std::int64_t>& columns) {
  EigenPairs pairs{{}, select_columns(vectors, columns)};
  for (const std::int64_t column : columns)
    pairs.values.push_back(values[static_cast<std::size_t>(column)]);
  return pairs;
}

// Calls the routine for the sizes of its workspace, then with a tenth more than it asked for.
template <class Routine>
void with_workspace(const Routine& routine) {
  double query = 0;
  int integer_query = 0;
  routine(&query, -1, &integer_query, -1);
  std::vector<double> work(static_cast<std::size_t>(1.1 * query) + 1024);
  std::vector<int> iwork(static_cast<std::size_t>(1.1 * integer_query) + 1024);
  routine(work.data(), static_cast<int>(work.size()), iwork.data(), static_cast<int>(iwork.size()));
}

}  // namespace

EigenPairs pdsyevd(DistMatrix& a, std::int64_t k) {
  const int n = a.descriptor().rows;
  std::vector<double> values(static_cast<std::size_t>(n));
  DistMatrix vectors(a.grid(), n, n, a.block());
  int info = 0;
  with_workspace([&](double* work, int lwork, int* iwork, int liwork) {
    pdsyevd_("V", "L", &n, a.data(), &one, &one, a.descriptor().data(), values.data(),
             vectors.data(), &one, &one, vectors.descriptor().data(), work, &lwork, iwork, &liwork,
             &info, 1, 1);
  });
  check_info(a.grid().comm(), info, "pdsyevd", "benchmark's matrix");
  auto columns = index_range(n - k, k);
  std::reverse(columns.begin(), columns.end());
  return choose(values, vectors, columns);
}

}  // namespace mrp::bench
