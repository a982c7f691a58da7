#include "jobs/subspace_gather.hpp"

#include <algorithm>
#include <cstdint>

namespace mrp::jobs {
namespace {

// A site as numbers: a header, then eigenvalues, A, B. Integers stay exact below 2^53.
constexpr std::size_t kHeader = 9;

void pack(const SolvedSite& solved, std::vector<double>& out) {
  const solver::Subspace& found = solved.subspace;
  const auto number = [](auto value) { return static_cast<double>(value); };
  out.insert(out.end(), {number(solved.site), solved.seconds, number(found.width), number(found.k),
                         number(found.eigenvalues.size()), found.null_edge, found.retain_distortion,
                         found.forget_removed, number(found.route)});
  for (const auto* values : {&found.eigenvalues, &found.a, &found.b}) {
    out.insert(out.end(), values->begin(), values->end());
  }
}

SolvedSite unpack(const double*& at) {
  SolvedSite solved;
  solver::Subspace& found = solved.subspace;
  solved.site = static_cast<std::size_t>(at[0]);
  solved.seconds = at[1];
  found.width = static_cast<std::int64_t>(at[2]);
  found.k = static_cast<std::int64_t>(at[3]);
  found.eigenvalues.resize(static_cast<std::size_t>(at[4]));
  found.null_edge = at[5];
  found.retain_distortion = at[6];
  found.forget_removed = at[7];
  found.route = static_cast<solver::Route>(static_cast<int>(at[8]));
  at += kHeader;
  found.a.resize(static_cast<std::size_t>(found.width * found.k));
  found.b.resize(found.a.size());
  for (auto* values : {&found.eigenvalues, &found.a, &found.b}) {
    std::copy_n(at, values->size(), values->begin());
    at += values->size();
  }
  return solved;
}

}  // namespace

std::vector<SolvedSite> gather(const std::vector<SolvedSite>& mine,
                               const dist::Communicator& comm) {
  std::vector<std::vector<double>> send(static_cast<std::size_t>(comm.size()));
  for (const SolvedSite& solved : mine) pack(solved, send[0]);
  std::vector<SolvedSite> all;
  for (const auto& part : comm.all_to_all_v(send)) {
    const double* at = part.data();
    while (at != part.data() + part.size()) all.push_back(unpack(at));
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.site < b.site; });
  return all;
}

}  // namespace mrp::jobs
