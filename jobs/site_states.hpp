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

/// Sets of states.h5 that are taken together, one below the other. Rows are scaled so that each set
/// counts the same in the second moments however many rows it has: the mean over all rows is the
/// mean of the means of the sets. A set alone keeps its values.
class StateSets {
 public:
  StateSets(const io::StateReader& reader, std::vector<std::string> names);

  std::int64_t rows() const { return std::ssize(sequences_); }
  /// The sequence of each row, [rows], numbered through all sets.
  std::span<const std::int64_t> sequences() const { return sequences_; }
  /// A block of a site's states from the file that the sets were taken from, row-major into out
  /// [rows.size() × columns.size()].
  void read(const io::StateReader& reader, const std::string& site, dist::Range rows,
            dist::Range columns, std::span<float> out) const;

 private:
  struct Part {
    std::string name;
    dist::Range rows;  ///< among all
    float scale;
  };

  std::vector<Part> parts_;
  std::vector<std::int64_t> sequences_;
};

/// One site of them. Borrows what it is made from.
class SiteStates : public solver::StateSource {
 public:
  SiteStates(const io::StateReader& reader, const StateSets& sets, std::string site)
      : reader_(&reader), sets_(&sets), site_(std::move(site)) {}

  std::int64_t rows() const override { return sets_->rows(); }
  std::int64_t width() const override { return reader_->width(site_); }
  void read(dist::Range rows, dist::Range columns, std::span<float> out) const override {
    sets_->read(*reader_, site_, rows, columns, out);
  }
  std::span<const std::int64_t> sequences() const override { return sets_->sequences(); }

 private:
  const io::StateReader* reader_;
  const StateSets* sets_;
  std::string site_;
};

}  // namespace mrp::jobs
