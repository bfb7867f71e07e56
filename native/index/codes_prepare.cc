// What the codes of a head need to know of a group's queries.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

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
  const size_t dim = static_cast<size_t>(shape_.dim), g_count = static_cast<size_t>(group);
  to.head_ = head;
  to.scale_ = scale;
  to.upper_ = scores == kUpper;
  to.risky_ = false;
  to.q_.assign(q, q + g_count * dim);
  CodeQuery& query = to.query_;
  query.group = group;
  query.planes = planes;
  if (kind_ == kNone) return;
  const int32_t shift = kernels_->shift, limit = (1 << shift) - 1;
  const int32_t most = planes == 2 ? limit << shift : limit;
  const size_t units = static_cast<size_t>(shape_.units), bands = static_cast<size_t>(shape_.bands);
  query.row_bytes = (units * kUnit + kLine - 1) / kLine * kLine;
  to.lines_.assign(kind_ == kInt8 ? static_cast<size_t>(planes) * g_count * units * kLine : 0, 0);
  to.rows_.assign(static_cast<size_t>(planes) * g_count * query.row_bytes, 0);
  to.offsets_.assign(g_count * bands, 0);
  to.factors_.assign(g_count, 0);
  to.bounds_.assign(g_count, 0);
  to.coarse_.assign(kind_ == kInt4 ? g_count * bands : 0, 0);
  to.fine_.assign(kind_ == kInt4 ? g_count * bands : 0, 0);
  const SampleKernels& sample = *isa_->sample;
  const bool tables = kind_ == kInt4 && sample.fill_tables != nullptr;
  const size_t table_bytes = tables ? bands * sample.table_bytes : 0;
  to.tables_.resize(g_count * table_bytes / kLine);
  to.coarse_factors_.assign(g_count, 0);
  const size_t chunks = chunks_[static_cast<size_t>(head)].size();
  to.base_.resize(chunks * g_count);
  to.spread_.resize(kind_ == kInt4 ? chunks * g_count : 0);
  to.reach_ = 0;
  std::vector<std::pair<double, double>> norms(g_count);  // of the query, and of what its rounding loses
  const size_t width = units * kUnit, known = squares_of();
  std::vector<double> energies(g_count * bands);  // of a query, rotated, by bands
  std::vector<float> turned(width);
  std::vector<int32_t> whole(width), sums(bands);
  for (size_t g = 0; g < g_count; g++) {
    float* const x = turned.data();
    std::fill(std::copy(q + g * dim, q + (g + 1) * dim, x), x + width, 0.0f);
    const QueryCode code = kernels_->encode_query(whole.data(), sums.data(), energies.data() + g * bands, x, width, most);
    for (size_t band = 0; band < bands; band++) to.offsets_[g * bands + band] = -kernels_->offset * sums[band];
    int8_t* const row = to.rows_.data() + g * query.row_bytes;
    // Without a second plane the first one is all there is.
    for (size_t i = 0; i < width && planes == 1; i++) row[i] = static_cast<int8_t>(whole[i]);
    for (size_t i = 0; i < width && planes == 2; i++) {
      // all = hi * 2^shift + lo, lo as near to zero as it gets
      const int32_t hi = (whole[i] + (1 << shift) / 2) >> shift;
      row[i] = static_cast<int8_t>(hi);
      row[g_count * query.row_bytes + i] = static_cast<int8_t>(whole[i] - hi * (1 << shift));
    }
    for (size_t p = 0; p < static_cast<size_t>(planes) && kind_ == kInt8; p++) {
      for (size_t i = 0; i < units * 4; i++) {
        std::memcpy(to.lines_.data() + ((p * g_count + g) * units + i / 4) * kLine + i % 4 * kUnit,
                    row + p * g_count * query.row_bytes + i / 4 * kUnit, kUnit);
      }
    }
    // A fine code adds 1.5 on average to four times a coarse one, 8 less: 6.5 / 4 = 13 / 8 of the sum that has been taken 8 times.
    for (size_t b = 0; b < bands && kind_ == kInt4; b++) {
      const int32_t whole_offset = to.offsets_[g * bands + b], coarse = whole_offset * 13 / 64;
      to.coarse_[g * bands + b] = coarse;
      to.fine_[g * bands + b] = whole_offset - 4 * coarse;
    }
    const double s = static_cast<double>(scale), norm = std::sqrt(code.squares), rounding = std::sqrt(code.lost);
    to.factors_[g] = static_cast<float>(code.step * s);
    const double unit = tables ? static_cast<double>(sample.fill_tables(to.tables_[g * table_bytes / kLine].bytes, x, shape_.bands)) : code.step;
    to.coarse_factors_[g] = static_cast<float>(4 * unit * s);
    to.bounds_[g] = static_cast<float>((norm + rounding) * s * 1.001) + std::numeric_limits<float>::min();
    norms[g] = {norm, rounding};
  }
  const size_t h = static_cast<size_t>(head);
  const double s = static_cast<double>(scale);
  std::vector<float> dots(g_count);
  for (size_t c = 0; c < chunks; c++) {
    const float* middle_key = centres_[h].data() + c * dim;
    for (size_t g = 0; g < g_count; g += 8) {
      isa_->rows->dot_f32(dots.data() + g, q + g * dim, middle_key, static_cast<int32_t>(std::min<size_t>(8, g_count - g)), shape_.dim);
    }
    const double spread = static_cast<double>(norms_[h][c].spread), middle = static_cast<double>(norms_[h][c].centre);
    for (size_t g = 0; g < g_count; g++) {
      const double dot = static_cast<double>(dots[g]), norm = norms[g].first;
      // Outside this range float products overflow or vanish, and no bound of relative errors holds.
      const double reach = norm * s * (spread + middle);
      const bool risky = !(reach < 1e36) || !std::isfinite(dot) || (norm > 0 && to.factors_[g] < 1e-30f);
      to.risky_ = to.risky_ || risky;
      to.reach_ = std::max(to.reach_, reach);
      double base = dot * s;
      if (scores == kUpper) {
        base += s * (norms[g].second * spread * 1.001 + 2 * static_cast<double>(slack_) * norm * middle) +
                std::fabs(base) * 0x1p-20 + static_cast<double>(std::numeric_limits<float>::min());
      }
      // A fine code is one of 0 to 3: its variance is 15 / 12 of the scale's square.
      if (kind_ == kInt4) {
        float variance = 0;
        for (size_t b = 0; b < bands; b++) {
          variance += static_cast<float>(energies[g * bands + b]) * squares_[h][c * known + std::min(b, known - 1)];
        }
        to.spread_[c * g_count + g] = scale * std::sqrt(variance * (15.0f / 12));
      }
      to.base_[c * g_count + g] = risky ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(base);
    }
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

}  // namespace kvasir
