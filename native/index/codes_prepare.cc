// What the codes of a head need to know of a group's queries.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "codes.h"
#include "nibble_layout.h"
#include "row_kernels.h"

namespace kvasir {
namespace {

// The nearest integer, ties to even, of |x| < 2^51; std::lrint is a call.
double nearest(double x) { return x + 0x1.8p52 - 0x1.8p52; }

// Sums of squares of x [width], a multiple of 8, and the largest of |x|.
void measure(const float* x, size_t width, double& squares, float& peak) {
  double sums[8] = {};
  float peaks[8] = {};
  for (size_t i = 0; i < width; i += 8) {
    for (size_t j = 0; j < 8; j++) {
      const double v = static_cast<double>(x[i + j]);
      sums[j] += v * v;
      peaks[j] = std::max(peaks[j], std::fabs(x[i + j]));
    }
  }
  squares = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  peak = *std::max_element(peaks, peaks + 8);
}

void fetch_lines(const void* memory, size_t bytes, size_t most) {
  const char* at = static_cast<const char*>(memory);
  for (size_t i = 0; i < std::min(bytes, most); i += kLine) __builtin_prefetch(at + i, 0, 2);
}

}  // namespace

void Codes::fetch(int32_t head) const {
  constexpr size_t kCentres = 4096, kPointers = 512, kFirstCodes = 8192;  // bytes: what hides behind the work on the first queries
  const size_t h = static_cast<size_t>(head);
  if (blocks_[h].empty()) return;
  fetch_lines(centres_[h].data(), centres_[h].size() * sizeof(float), kCentres);
  fetch_lines(norms_[h].data(), norms_[h].size() * sizeof(Norms), kPointers);
  fetch_lines(blocks_[h].data(), blocks_[h].size() * sizeof(uint8_t*), kPointers);
  if (kind_ != kNone) fetch_lines(blocks_[h].front(), shape_.block_bytes * (kChunkKeys / kBlockKeys), kFirstCodes);
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
  const size_t chunks = chunks_[static_cast<size_t>(head)].size();
  to.base_.resize(chunks * g_count);
  to.reach_ = 0;
  std::vector<std::pair<double, double>> norms(g_count);  // of the query, and of what its rounding loses
  const size_t width = units * kUnit;
  std::vector<float> turned(width);
  std::vector<int32_t> whole(width);
  for (size_t g = 0; g < g_count; g++) {
    float* const x = turned.data();
    std::fill(std::copy(q + g * dim, q + (g + 1) * dim, x), x + width, 0.0f);
    if (kind_ == kInt4) {
      for (size_t band = 0; band < bands; band++) rotate_band(x + band * kBand);
    }
    float peak = 0;
    double squares = 0, lost = 0;
    measure(x, width, squares, peak);
    const double step = static_cast<double>(peak) / most, divisor = step > 0 ? step : 1;
    double rests[4] = {};
    for (size_t i = 0; i < width; i += 4) {
      for (size_t j = 0; j < 4; j++) {
        const double v = static_cast<double>(x[i + j]), all = nearest(v / divisor), rest = v - all * step;
        whole[i + j] = static_cast<int32_t>(all);
        rests[j] += rest * rest;
      }
    }
    lost = (rests[0] + rests[1]) + (rests[2] + rests[3]);
    for (size_t i = 0; i < width; i++) {
      const int32_t all = whole[i];
      to.offsets_[g * bands + i / kBand] -= kernels_->offset * all;
      // all = hi * 2^shift + lo, lo as near to zero as it gets
      const int32_t hi = planes == 2 ? (all + (1 << shift) / 2) >> shift : all;
      const int32_t parts[2] = {hi, all - hi * (1 << shift)};
      for (size_t p = 0; p < static_cast<size_t>(planes); p++) {
        const int8_t part = static_cast<int8_t>(parts[p]);
        to.rows_[(p * g_count + g) * query.row_bytes + i] = part;
        for (size_t copy = 0; copy < 4 && kind_ == kInt8; copy++) {
          to.lines_[((p * g_count + g) * units + i / kUnit) * kLine + copy * kUnit + i % kUnit] = part;
        }
      }
    }
    const double s = static_cast<double>(scale), norm = std::sqrt(squares), rounding = std::sqrt(lost);
    to.factors_[g] = static_cast<float>(step * s);
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
      to.base_[c * g_count + g] = risky ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(base);
    }
  }
  query.lines = to.lines_.data();
  query.rows = to.rows_.data();
  query.offsets = to.offsets_.data();
  query.factors = to.factors_.data();
  query.bounds = to.bounds_.data();
}

}  // namespace kvasir
