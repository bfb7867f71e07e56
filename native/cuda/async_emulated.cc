// What happens behind a thread's back: copies to shared memory, phases that threads wait for, and products of a warpgroup. All of it
// as late as the device may do it: a copy lands, and a product reads its operands, when somebody waits.
#include <algorithm>
#include <utility>

#include "emulation_machine.h"
#include "half.h"

namespace kvasir {
namespace emulation {

void copy_later(void* to, const void* from, size_t bytes, size_t zeros, Place at) {
  Machine& m = machine();
  if (reinterpret_cast<uintptr_t>(to) % (bytes + zeros) != 0 || reinterpret_cast<uintptr_t>(from) % (bytes + zeros) != 0) {
    fault(at, "an asynchronous copy of %zu bytes that is not aligned", bytes + zeros);
  }
  std::memset(to, 0xff, bytes + zeros);
  m.running->copies.back().push_back({to, from, bytes, zeros});
}

void copies_commit() { machine().running->copies.emplace_back(); }

void copies_wait(int groups_left) {
  auto& copies = machine().running->copies;
  // The open group is not committed: only what lies before it counts.
  while (static_cast<int>(copies.size()) - 1 > groups_left) {
    for (const Copy& c : copies.front()) {
      std::memcpy(c.to, c.from, c.bytes);
      std::memset(static_cast<uint8_t*>(c.to) + c.bytes, 0, c.zeros);
      note_write(c.to, c.bytes + c.zeros);
    }
    copies.erase(copies.begin());
  }
}

uint32_t shared_offset(const void* at) { return static_cast<uint32_t>(static_cast<const uint8_t*>(at) - machine().memory.data()); }

void note_write(const void* to, size_t bytes) {
  Machine& m = machine();
  Fiber& f = *m.running;
  for (uint32_t i = shared_offset(to) / 16; i <= (shared_offset(to) + bytes - 1) / 16; i++) {
    m.writers[i] = static_cast<uint16_t>(f.index + 1);
    f.unfenced.push_back(i);
  }
}

void fence_operands() {
  Machine& m = machine();
  for (const uint32_t i : std::exchange(m.running->unfenced, {})) {
    if (m.writers[i] == m.running->index + 1) m.writers[i] = 0;
  }
}

namespace {

// As it lies in the kernel's 8 bytes.
struct Phase {
  int64_t bytes : 22;  // of copies that the phase still waits for; below zero where more came than was said
  uint64_t count : 11, pending : 11, parity : 1, mark : 19;
};
static_assert(sizeof(Phase) == 8, "as an mbarrier");
constexpr uint64_t kMark = 0x5ab3d;
constexpr int64_t kMostBytes = (int64_t{1} << 20) - 1;  // that a device's can wait for

Phase& phase_of(uint64_t* phase, Place at) {
  Phase& p = *reinterpret_cast<Phase*>(phase);
  if (p.mark != kMark) fault(at, "a phase that was not made");
  return p;
}

}  // namespace

void phase_make(uint64_t* phase, uint32_t count) {
  Phase made{};
  made.count = count, made.pending = count, made.mark = kMark;
  std::memcpy(phase, &made, sizeof made);
  note_write(phase, sizeof made);
}

namespace {

void complete(Machine& m, uint64_t* phase, Phase& p) {
  if (p.pending > 0 || p.bytes != 0) return;
  p.pending = p.count, p.parity ^= 1;
  for (uint32_t i = 0; i < m.threads; i++) {
    if (m.fibers[i].state == State::kPhase && m.fibers[i].arg == phase) wake(m, m.fibers[i]);
  }
}

}  // namespace

void phase_arrive_expecting(uint64_t* phase, uint32_t bytes, Place at) {
  Phase& p = phase_of(phase, at);
  if (p.pending == 0) fault(at, "more arrivals than a phase counts, before its copies have landed");
  if (p.bytes + static_cast<int64_t>(bytes) > kMostBytes) fault(at, "a phase that waits for more bytes than it can count");
  p.bytes += bytes, p.pending--;
  complete(machine(), phase, p);
}

void phase_arrive(uint64_t* phase, Place at) { phase_arrive_expecting(phase, 0, at); }

void phase_wait(uint64_t* phase, uint32_t parity, Place at) {
  Machine& m = machine();
  Fiber& f = *m.running;
  while (phase_of(phase, at).parity == parity) {
    f.state = State::kPhase, f.at = at, f.arg = phase;
    leave_to_scheduler(m);
  }
}

namespace {

// body(place, coordinates): of every 16 bytes of the box, from the beginning of shared memory, swizzled as operands are: pieces trade
// places by address bits 7 to 9.
template <class F>
void each_piece(const BoxCopy& copy, F&& body) {
  const uint32_t row_bytes = copy.map.box[0] * 2;
  for (uint32_t head = 0; head < copy.map.box[2]; head++) {
    for (uint32_t row = 0; row < copy.map.box[1]; row++) {
      for (uint32_t byte = 0; byte < row_bytes; byte += 16) {
        const uint32_t linear = copy.to + (head * copy.map.box[1] + row) * row_bytes + byte;
        const int64_t at[] = {copy.from[0] + static_cast<int64_t>(byte / 2), copy.from[1] + static_cast<int64_t>(row),
                              copy.from[2] + static_cast<int64_t>(head)};
        body(linear ^ (linear >> 7 & 7) << 4, at);
      }
    }
  }
}

uint32_t box_bytes(const BoxMap& map) { return map.box[0] * map.box[1] * map.box[2] * 2; }

}  // namespace

void copy_box_later(void* to, const void* map, int32_t element, int32_t row, int32_t head, uint64_t* phase, Place at) {
  Machine& m = machine();
  BoxCopy copy{};
  std::memcpy(&copy.map, map, sizeof copy.map);
  if (copy.map.mark != kBoxMapMark) fault(at, "a copy by a tensor map that was not made");
  copy.to = shared_offset(to), copy.from[0] = element, copy.from[1] = row, copy.from[2] = head, copy.phase = phase, copy.at = at;
  if (copy.to % 128 != 0) fault(at, "a copy by tensor map to where 128 bytes do not begin");
  if (copy.to + box_bytes(copy.map) > m.memory.size()) fault(at, "a copy by tensor map beyond shared memory");
  phase_of(phase, at);
  if (m.writers[shared_offset(phase) / 16] != 0) fault(at, "a copy by tensor map counts on a phase that was made and not fenced");
  each_piece(copy, [&](uint32_t place, const int64_t*) {
    if (m.writers[place / 16] != 0) fault(at, "a copy by tensor map over what thread %u wrote and has not fenced", m.writers[place / 16] - 1u);
    std::memset(m.memory.data() + place, 0xff, 16);
  });
  m.boxes.push_back(copy);
}

void land(Machine& m, const BoxCopy& copy) {
  const BoxMap& map = copy.map;
  each_piece(copy, [&](uint32_t place, const int64_t* from) {
    for (uint32_t i = 0; i < 8; i++) {
      const int64_t element = from[0] + i;
      const auto within = [&](int dim, int64_t at) { return at >= 0 && at < static_cast<int64_t>(map.sizes[dim]); };
      uint16_t half = 0;
      if (within(0, element) && within(1, from[1]) && within(2, from[2])) {
        const int64_t head = from[2] * static_cast<int64_t>(map.strides[1]), row = from[1] * static_cast<int64_t>(map.strides[0]);
        std::memcpy(&half, map.base + head + row + element * 2, 2);
      }
      std::memcpy(m.memory.data() + place + 2 * i, &half, 2);
    }
  });
  Phase& p = *reinterpret_cast<Phase*>(copy.phase);
  p.bytes -= box_bytes(map);
  complete(m, copy.phase, p);
}

void products_begin() { machine().running->may_multiply = true; }

void multiply_later(const AsyncProduct& product, Place at) {
  Fiber& f = *machine().running;
  if (!f.may_multiply) fault(at, "a product that no fence came before");
  AsyncProduct p = product;
  p.is_first = true;
  for (const auto& group : f.products) {
    for (const AsyncProduct& other : group) p.is_first = p.is_first && other.d != p.d;
  }
  // Nobody may read sums before they are waited for.
  if (p.is_first) {
    p.before.assign(p.d, p.d + p.columns / 2);
    std::fill(p.d, p.d + p.columns / 2, __builtin_nanf(""));
  }
  f.products.back().push_back(std::move(p));
}

void products_commit() { machine().running->products.emplace_back(); }

namespace {

constexpr uint32_t kGroupThreads = 128;

// An operand's element: `outer` is its row of A, or column of B; `inner` counts along the sum. As the PTX ISA lays out matrices whose
// rows of 128 bytes are swizzled: pieces of 16 bytes trade places by the row's number within 8 (address bits 4 to 6 ^= bits 7 to 9).
float operand(uint64_t description, bool is_transposed, uint32_t outer, uint32_t inner, Place at) {
  Machine& m = machine();
  const uint32_t start = (description & 0x3fff) << 4, leading = (description >> 16 & 0x3fff) << 4, stride = (description >> 32 & 0x3fff) << 4;
  if (description >> 62 != 1) fault(at, "a description of an operand without rows of 128 swizzled bytes");
  if ((description >> 49 & 7) != 0) fault(at, "a description with a base offset");
  const uint32_t linear = is_transposed ? start + outer / 64 * leading + outer % 64 * 2 + inner / 8 * stride + inner % 8 * 128
                                        : start + outer / 8 * stride + outer % 8 * 128 + inner * 2;
  const uint32_t place = linear ^ (linear >> 7 & 7) << 4;
  if (place + 2 > m.memory.size()) fault(at, "an operand beyond shared memory");
  if (m.writers[place / 16] != 0) fault(at, "a product reads what thread %u wrote and has not fenced", m.writers[place / 16] - 1u);
  uint16_t half;
  std::memcpy(&half, m.memory.data() + place, 2);
  return half_to_float(half);
}

struct WaitLane {
  std::vector<std::vector<AsyncProduct>>* products;
  size_t groups;  // to be done
  Place at;
};

void multiply_group(void* const* args, uint32_t) {
  const WaitLane& first = *static_cast<const WaitLane*>(args[0]);
  for (size_t g = 0; g < first.groups; g++) {
    for (size_t i = 0; i < (*first.products)[g].size(); i++) {
      const AsyncProduct& product = (*first.products)[g][i];
      const uint32_t columns = product.columns;
      std::vector<float> a(64 * 16), b(columns * 16);
      for (uint32_t c = 0; c < columns; c++) {
        for (uint32_t k = 0; k < 16; k++) b[c * 16 + k] = operand(product.b, product.is_b_transposed, c, k, first.at);
      }
      for (uint32_t r = 0; r < 64 && !product.is_a_held; r++) {
        for (uint32_t k = 0; k < 16; k++) a[r * 16 + k] = operand(product.a, false, r, k, first.at);
      }
      for (uint32_t t = 0; t < kGroupThreads && product.is_a_held; t++) {
        const AsyncProduct& mine = (*static_cast<const WaitLane*>(args[t])->products)[g][i];
        const uint32_t row = t / 32 * 16 + t % 32 / 4;
        for (uint32_t r = 0; r < 4; r++) {
          for (uint32_t h = 0; h < 2; h++) {
            a[(row + r % 2 * 8) * 16 + t % 4 * 2 + r / 2 * 8 + h] = half_to_float(static_cast<uint16_t>(mine.held[r] >> 16 * h));
          }
        }
      }
      for (uint32_t t = 0; t < kGroupThreads; t++) {
        AsyncProduct& mine = (*static_cast<const WaitLane*>(args[t])->products)[g][i];
        if (mine.b != product.b || mine.a != product.a || mine.columns != columns) fault(first.at, "a product that threads describe differently");
        if (mine.is_first) std::copy(mine.before.begin(), mine.before.end(), mine.d);
        for (uint32_t j = 0; j < columns / 2; j++) {
          const uint32_t row = t / 32 * 16 + t % 32 / 4 + j % 4 / 2 * 8, column = j / 4 * 8 + t % 4 * 2 + j % 2;
          float sum = mine.adds ? mine.d[j] : 0.0f;
          for (uint32_t k = 0; k < 16; k++) sum += a[row * 16 + k] * b[column * 16 + k];
          mine.d[j] = sum;
        }
      }
    }
  }
}

}  // namespace

void products_wait(int groups_left, Place at) {
  Fiber& f = *machine().running;
  const size_t committed = f.products.size() - 1, left = static_cast<size_t>(groups_left);
  WaitLane mine = {&f.products, committed > left ? committed - left : 0, at};
  group(f.index / kGroupThreads * kGroupThreads, kGroupThreads, &mine, multiply_group, at);
  f.products.erase(f.products.begin(), f.products.begin() + static_cast<std::ptrdiff_t>(mine.groups));
  if (f.products.size() == 1) f.may_multiply = false;
}

}  // namespace emulation
}  // namespace kvasir
