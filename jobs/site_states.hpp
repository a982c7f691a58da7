// Hidden states of a file as the solver takes them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/state_store.hpp"
#include "solver/state_source.hpp"

namespace mrp::jobs {

/// One set of one site of states.h5. Borrows what it is made from.
class SiteStates : public solver::StateSource {
 public:
  SiteStates(const io::StateReader& reader, std::string set, std::string site,
             std::span<const std::int64_t> sequences)
      : reader_(&reader), set_(std::move(set)), site_(std::move(site)), sequences_(sequences) {}

  std::int64_t rows() const override { return reader_->rows(set_); }
  std::int64_t width() const override { return reader_->width(site_); }
  void read(dist::Range rows, dist::Range columns, std::span<float> out) const override {
    reader_->read(set_, site_, rows, columns, out);
  }
  std::span<const std::int64_t> sequences() const override { return sequences_; }

 private:
  const io::StateReader* reader_;
  std::string set_;
  std::string site_;
  std::span<const std::int64_t> sequences_;
};

/// The sequence of each row of a set, for all its sites.
inline std::vector<std::int64_t> sequences_of(const io::StateReader& reader,
                                              const std::string& set) {
  std::vector<std::int64_t> sequences;
  for (const auto& [sequence, position] : reader.positions(set)) sequences.push_back(sequence);
  return sequences;
}

}  // namespace mrp::jobs
