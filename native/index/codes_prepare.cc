// What the codes of a head need to know of a group's queries.
#include <algorithm>
#include <cmath>
#include <limits>

#include "codes.h"
#include "prefetch.h"
#include "row_kernels.h"
#include "sample_kernels.h"

namespace kvasir {
namespace {

// To L1 where the CPU ignores some of what it is asked for to L2.
void fetch_some(const void* memory, size_t bytes, size_t most) {
  const auto fetch = fetch_distances().to_l1 ? prefetch_lines<3> : prefetch_lines<2>;
  fetch(memory, std::min(bytes, most));
}

}  // namespace

void Codes::fetch(int32_t head) const {
  constexpr size_t kCentres = 4096, kPointers = 512, kFirstCodes = 8192;  // bytes: what hides behind the work on the first queries
  const size_t h = static_cast<size_t>(head);
  if (blocks_[h].empty()) return;
  fetch_some(centres_[h].data(), centres_[h].size() * sizeof(float), kCentres);
  fetch_some(norms_[h].data(), norms_[h].size() * sizeof(Norms), kPointers);
  fetch_some(blocks_[h].data(), blocks_[h].size() * sizeof(uint8_t*), kPointers);
  if (kind_ != kNone) fetch_some(blocks_[h].front(), kept_.block_bytes * kChunkBlocks, kFirstCodes);
}

void Codes::prepare(PreparedQuery& to, int32_t head, const float* q, int32_t group, float scale, int planes,
                    Scores scores) const {
  const size_t g_count = static_cast<size_t>(group);
  to.head_ = head;
  to.scale_ = scale;
  to.upper_ = scores == kUpper;
  to.risky_ = false;
  to.q_.assign(q, q + g_count * static_cast<size_t>(shape_.dim));
  to.query_.group = group;
  to.query_.planes = planes;
  if (kind_ == kNone) return;
  to.norms_.resize(g_count);
  to.energies_.resize(g_count * static_cast<size_t>(shape_.bands));
  encode_queries(to);
  score_centres(to);
}

// Integers of the queries, and what kernels need of them.
void Codes::encode_queries(PreparedQuery& to) const {
  CodeQuery& query = to.query_;
  const size_t dim = static_cast<size_t>(shape_.dim), g_count = static_cast<size_t>(query.group), planes = static_cast<size_t>(query.planes);
  const size_t units = static_cast<size_t>(shape_.units), bands = static_cast<size_t>(shape_.bands), width = units * kUnit;
  const int32_t shift = kernels_->shift, limit = (1 << shift) - 1, most = planes == 2 ? limit << shift : limit;
  const bool is_int4 = kind_ == kInt4;
  query.row_bytes = (width + kLine - 1) / kLine * kLine;
  to.lines_.resize(kind_ == kInt8 ? planes * g_count * units * kLine : 0);
  to.rows_.resize(planes * g_count * query.row_bytes);
  to.offsets_.resize(g_count * bands);
  to.factors_.resize(g_count);
  to.coarse_factors_.resize(g_count);
  to.bounds_.resize(g_count);
  to.coarse_.resize(is_int4 ? g_count * bands : 0);
  to.fine_.resize(is_int4 ? g_count * bands : 0);
  const SampleKernels& sample = *isa_->sample;
  const bool tables = is_int4 && sample.fill_tables != nullptr;
  const size_t table_lines = tables ? bands * sample.table_bytes / kLine : 0;
  to.tables_.resize(g_count * table_lines);
  to.turned_.resize(width);
  to.whole_.resize(width);
  to.sums_.resize(bands);
  const int32_t* const whole = to.whole_.data();
  for (size_t g = 0; g < g_count; g++) {
    float* const x = to.turned_.data();
    std::fill(std::copy_n(to.q_.data() + g * dim, dim, x), x + width, 0.0f);
    const QueryCode code = kernels_->encode_query(to.whole_.data(), to.sums_.data(), to.energies_.data() + g * bands, x, width, most);
    for (size_t band = 0; band < bands; band++) to.offsets_[g * bands + band] = -kernels_->offset * to.sums_[band];
    for (size_t p = 0; p < planes; p++) {
      int8_t* const row = to.rows_.data() + (p * g_count + g) * query.row_bytes;
      std::fill(row + width, row + query.row_bytes, int8_t{0});
      for (size_t i = 0; i < width; i++) {
        // all = hi * 2^shift + lo, lo as near to zero as it gets; without a second plane the first one is all there is.
        const int32_t hi = planes == 1 ? whole[i] : (whole[i] + (1 << shift) / 2) >> shift;
        row[i] = static_cast<int8_t>(p == 0 ? hi : whole[i] - hi * (1 << shift));
      }
      for (size_t i = 0; i < units * 4 && kind_ == kInt8; i++) {
        std::memcpy(to.lines_.data() + ((p * g_count + g) * units + i / 4) * kLine + i % 4 * kUnit, row + i / 4 * kUnit, kUnit);
      }
    }
    // A fine code adds 1.5 on average to four times a coarse one, 8 less: 6.5 / 4 = 13 / 8 of the sum that has been taken 8 times.
    for (size_t b = 0; b < bands && is_int4; b++) {
      const int32_t whole_offset = to.offsets_[g * bands + b], coarse = whole_offset * 13 / 64;
      to.coarse_[g * bands + b] = coarse;
      to.fine_[g * bands + b] = whole_offset - 4 * coarse;
    }
    const double s = static_cast<double>(to.scale_), norm = std::sqrt(code.squares), rounding = std::sqrt(code.lost);
    to.factors_[g] = static_cast<float>(code.step * s);
    const double unit = tables ? static_cast<double>(sample.fill_tables(to.tables_[g * table_lines].bytes, x, shape_.bands)) : code.step;
    to.coarse_factors_[g] = static_cast<float>(4 * unit * s);
    to.bounds_[g] = static_cast<float>((norm + rounding) * s * 1.001) + std::numeric_limits<float>::min();
    to.norms_[g] = {norm, rounding};
  }
  query.lines = to.lines_.data();
  query.rows = to.rows_.data();
  query.offsets = to.offsets_.data();
  query.coarse = to.coarse_.data();
  query.fine = to.fine_.data();
  query.factors = to.factors_.data();
  query.bounds = to.bounds_.data();
  query.tables = tables ? to.tables_.front().bytes : nullptr;
  query.coarse_factors = to.coarse_factors_.data();
}

// What scores of a chunk's keys start from, and how far they may be from it.
void Codes::score_centres(PreparedQuery& to) const {
  const size_t h = static_cast<size_t>(to.head_), dim = static_cast<size_t>(shape_.dim), g_count = to.norms_.size();
  const size_t chunks = chunks_[h].size(), bands = static_cast<size_t>(shape_.bands), known = squares_of();
  const std::vector<Norms>& norms = norms_[h];
  const double s = static_cast<double>(to.scale_);
  constexpr size_t kTogether = 8;  // centres
  to.base_.resize(chunks * g_count);
  to.spread_.resize(kind_ == kInt4 ? chunks * g_count : 0);
  to.dots_.resize(g_count * kTogether);
  to.reach_ = 0;
  for (size_t first = 0; first < chunks; first += kTogether) {
    const size_t count = std::min(kTogether, chunks - first), more = std::min(kTogether, chunks - first - count);
    fetch_some(centres_[h].data() + (first + count) * dim, more * dim * sizeof(float), more * dim * sizeof(float));
    for (size_t g = 0; g < g_count; g++) {
      isa_->rows->dot_f32(to.dots_.data() + g * kTogether, centres_[h].data() + first * dim, to.q_.data() + g * dim,
                          static_cast<int32_t>(count), shape_.dim);
    }
    for (size_t c = first; c < first + count; c++) {
      const double spread = static_cast<double>(norms[c].spread), middle = static_cast<double>(norms[c].centre);
      for (size_t g = 0; g < g_count; g++) {
        const double dot = static_cast<double>(to.dots_[g * kTogether + c - first]), norm = to.norms_[g].whole;
        // Outside this range float products overflow or vanish, and no bound of relative errors holds.
        const double reach = norm * s * (spread + middle);
        const bool risky = !(reach < 1e36) || !std::isfinite(dot) || (norm > 0 && to.factors_[g] < 1e-30f);
        to.risky_ = to.risky_ || risky;
        to.reach_ = std::max(to.reach_, reach);
        double base = dot * s;
        if (to.upper_) {
          base += s * (to.norms_[g].lost * spread * 1.001 + 2 * static_cast<double>(slack_) * norm * middle) +
                  std::fabs(base) * 0x1p-20 + static_cast<double>(std::numeric_limits<float>::min());
        }
        to.base_[c * g_count + g] = risky ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(base);
      }
    }
  }
  if (kind_ != kInt4) return;
  for (size_t c = 0; c < chunks; c++) {
    const float* const squares = squares_[h].data() + c * known;
    const double* energy = to.energies_.data();
    for (size_t g = 0; g < g_count; g++, energy += bands) {
      float variance = 0;
      for (size_t b = 0; b < known; b++) variance += static_cast<float>(energy[b]) * squares[b];
      for (size_t b = known; b < bands; b++) variance += static_cast<float>(energy[b]) * squares[known - 1];
      to.spread_[c * g_count + g] = variance;
    }
  }
  // A fine code is one of 0 to 3: its variance is 15 / 12 of the scale's square.
  for (float& spread : to.spread_) spread = to.scale_ * std::sqrt(spread * (15.0f / 12));
}

}  // namespace kvasir
