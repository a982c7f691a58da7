// Invented hidden states in states.h5, and a site of it as the solver wants it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/state_store.hpp"
#include "solver/state_source.hpp"

namespace mrp::bench {

/// Collective over `comm`. Sites `sites.0`, `sites.1`, … of these widths in bf16, 16 rows a
/// sequence. The i-th of the directions of a site has variance 1/i, half of it common to the rows
/// of a sequence; in forget rows the last 16 have 0.5 to 1.25 instead. The same for any number of
/// ranks.
void write_states(const std::filesystem::path& path, std::int64_t forget_rows,
                  std::int64_t retain_rows, const std::vector<std::int64_t>& widths,
                  const dist::Communicator& comm);

/// One set of one site, whose reader must outlive it.
class SiteStates : public solver::StateSource {
 public:
  SiteStates(const io::StateReader& reader, std::string set, std::string site);

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
  std::vector<std::int64_t> sequences_;
};

}  // namespace mrp::bench
