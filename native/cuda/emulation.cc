#include "emulation_machine.h"

#include <cstdarg>
#include <cstdio>
#include <memory>

namespace kvasir {
namespace emulation {

thread_local Coordinates* here __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

#if defined(__x86_64__)
// Pushes what a callee keeps, swaps stacks, pops. ucontext's swap makes two system calls, a hundred times as slow.
extern "C" void kvasir_switch_fiber(void** from, void* to);
asm(R"(
.text
.type kvasir_switch_fiber, @function
.hidden kvasir_switch_fiber
.globl kvasir_switch_fiber
kvasir_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size kvasir_switch_fiber, .-kvasir_switch_fiber
)");
void change(Saved& from, Saved& to) { kvasir_switch_fiber(&from.sp, to.sp); }
void prepare(Saved& saved, uint8_t* stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + kStack) - 2;
  *top = reinterpret_cast<void*>(entry);  // at entry the stack is 8 off a multiple of 16, as after a call
  top[1] = nullptr;
  for (int i = 0; i < 6; i++) *--top = nullptr;
  saved.sp = top;
}
#else
void change(Saved& from, Saved& to) { swapcontext(&from.context, &to.context); }
void prepare(Saved& saved, uint8_t* stack, void (*entry)()) {
  getcontext(&saved.context);
  saved.context.uc_stack.ss_sp = stack;
  saved.context.uc_stack.ss_size = kStack;
  saved.context.uc_link = nullptr;
  makecontext(&saved.context, entry, 0);
}
#endif

}  // namespace

Machine& machine() {
  static thread_local std::unique_ptr<Machine> one = std::make_unique<Machine>();
  return *one;
}

void fail(Machine& m, const Fiber* f, Place at, const char* what) {
  if (m.failed) return;
  m.failed = true;
  const char* name = at.file;
  for (const char* p = at.file; p != nullptr && *p != 0; p++) {
    if (*p == '/') name = p + 1;
  }
  const dim3 b = f == nullptr ? dim3(0, 0, 0) : f->coordinates.block;
  std::snprintf(m.sentence, sizeof m.sentence, "kernel %s, block %u.%u.%u, thread %d, %s:%d: %s", m.grid.name, b.x, b.y, b.z,
                f == nullptr ? -1 : static_cast<int>(f->index), name == nullptr ? "?" : name, at.line, what);
}

void leave_to_scheduler(Machine& m) { change(m.running->saved, m.scheduler); }

namespace {

void entry() {
  Machine& m = machine();
  (*m.kernel)();
  Fiber& f = *m.running;
  f.state = State::kDone;
  m.done++;
  for (const auto& group : f.copies) {
    if (!group.empty()) fail(m, &f, {"?", 0}, "the thread ended before it waited for its asynchronous copies");
  }
  for (const auto& group : f.products) {
    if (!group.empty()) fail(m, &f, {"?", 0}, "the thread ended before it waited for its asynchronous products");
  }
  leave_to_scheduler(m);
  __builtin_trap();
}

}  // namespace

void wake(Machine& m, Fiber& f) {
  f.state = State::kReady;
  m.ready.push_back(f.index);
}

namespace {

// Everybody arrived: all are ready again.
void release_barrier(Machine& m) {
  for (uint32_t i = 0; i < m.threads; i++) wake(m, m.fibers[i]);
  m.waiting = 0;
}

bool guard_holds(const uint8_t* zone) {
  for (size_t i = 0; i < kGuard; i++) {
    if (zone[i] != 0xff) return false;
  }
  return true;
}

void check_guards(Machine& m) {
  const Fiber& f = m.fibers[0];
  if (!guard_holds(m.memory.data())) fail(m, &f, {"?", 0}, "shared memory was written below its beginning");
  if (!guard_holds(m.memory.data() + kGuard + m.asked)) fail(m, &f, {"?", 0}, "dynamic shared memory was written beyond its end");
  for (const SharedArray& a : m.arrays) {
    if (!guard_holds(m.memory.data() + a.offset + a.bytes)) fail(m, &f, {"?", 0}, "a shared array was written beyond its end");
  }
}

// Nobody can go on: says who waits for whom.
void report_deadlock(Machine& m) {
  const Fiber* waits = nullptr;
  const Fiber* other = nullptr;
  for (uint32_t i = 0; i < m.threads; i++) {
    const Fiber& f = m.fibers[i];
    if (f.state == State::kBarrier || f.state == State::kGroup || f.state == State::kPhase) {
      if (waits == nullptr) waits = &f;
      else if (f.state != waits->state || f.at.line != waits->at.line) other = &f;
    }
  }
  for (uint32_t i = 0; other == nullptr && i < m.threads; i++) {
    if (m.fibers[i].state == State::kDone) other = &m.fibers[i];
  }
  char text[200];
  const char* kind = waits->state == State::kBarrier ? "barrier" : waits->state == State::kPhase ? "phase" : "warp operation";
  if (other == nullptr) std::snprintf(text, sizeof text, "a %s waits for lanes that are not in the block", kind);
  else if (other->state == State::kDone) std::snprintf(text, sizeof text, "a %s, which thread %u left without reaching", kind, other->index);
  else std::snprintf(text, sizeof text, "a %s, while thread %u waits at line %d", kind, other->index, other->at.line);
  fail(m, waits, waits->at, text);
}

void run_block(Machine& m, dim3 block) {
  std::memset(m.memory.data(), 0xff, m.memory.size());
  m.writers.assign(m.memory.size() / 16 + 1, 0);
  m.boxes.clear();
  m.arrays.clear();
  m.used = (kGuard + m.asked + kGuard + 15) / 16 * 16;
  m.waiting = m.done = 0;
  m.ready.clear();
  m.meetings.assign((m.threads + 31) / 32, {});
  const dim3 size = m.grid.block;
  for (uint32_t i = 0; i < m.threads; i++) {
    Fiber& f = m.fibers[i];
    f.coordinates = {dim3(i % size.x, i / size.x % size.y, i / size.x / size.y), block, size, m.grid.grid};
    f.index = i;
    f.copies.assign(1, {});
    f.products.assign(1, {});
    f.unfenced.clear();
    f.may_multiply = false;
    prepare(f.saved, m.stacks + kStack * i, entry);
    wake(m, f);
  }
  while (m.done < m.threads && !m.failed) {
    if (m.ready.empty() && m.boxes.empty()) {
      report_deadlock(m);
      break;
    }
    const uint32_t at = m.draw(static_cast<uint32_t>(m.ready.size() + m.boxes.size()));
    if (at >= m.ready.size()) {
      const auto lands = m.boxes.begin() + static_cast<std::ptrdiff_t>(at - m.ready.size());
      const BoxCopy copy = *lands;
      m.boxes.erase(lands);
      land(m, copy);
      continue;
    }
    m.running = &m.fibers[m.ready[at]];
    m.ready[at] = m.ready.back();
    m.ready.pop_back();
    here = &m.running->coordinates;
    change(m.scheduler, m.running->saved);
  }
  if (!m.failed && !m.boxes.empty()) fail(m, &m.fibers[0], m.boxes[0].at, "the block ended before a copy by tensor map had landed");
  if (!m.failed) check_guards(m);
}

}  // namespace

void fault(Place at, const char* format, ...) {
  Machine& m = machine();
  char text[200];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  fail(m, m.running, at, text);
  leave_to_scheduler(m);
  __builtin_trap();
}

void barrier(Place at) {
  Machine& m = machine();
  Fiber& f = *m.running;
  f.at = at;
  if (m.waiting > 0) {
    for (uint32_t i = 0; i < m.threads; i++) {
      const Fiber& o = m.fibers[i];
      if (o.state != State::kBarrier) continue;
      if (o.at.line != at.line) fault(at, "a barrier, while thread %u waits at the one of line %d", o.index, o.at.line);
      break;
    }
  }
  f.state = State::kBarrier;
  if (++m.waiting == m.threads) {
    release_barrier(m);
  }
  leave_to_scheduler(m);
}

void group(uint32_t first, uint32_t count, void* arg, Apply apply, Place at) {
  Machine& m = machine();
  if (first + count > m.threads) fault(at, "an operation of threads %u to %u in a block of %u", first, first + count, m.threads);
  Fiber& f = *m.running;
  f.at = at, f.first = first, f.count = count, f.mask = 0, f.arg = arg, f.state = State::kGroup;
  void* args[kMostThreads];
  for (uint32_t i = 0; i < count; i++) {
    const Fiber& o = m.fibers[first + i];
    if (o.state != State::kGroup || o.first != first || o.count != count || o.mask != 0) {
      leave_to_scheduler(m);
      return;
    }
    args[i] = o.arg;
  }
  apply(args, 0);
  for (uint32_t i = 0; i < count; i++) wake(m, m.fibers[first + i]);
  leave_to_scheduler(m);
}

void warp(uint32_t mask, void* arg, Apply apply, Place at) {
  Machine& m = machine();
  Fiber& f = *m.running;
  const uint32_t first = f.index & ~31u;
  if ((mask >> (f.index & 31) & 1) == 0) fault(at, "a warp operation whose mask %08x lacks the lane itself", mask);
  f.at = at, f.first = first, f.count = 32, f.mask = mask, f.arg = arg, f.state = State::kGroup;
  Meeting& meeting = m.meetings[first / 32];
  uint32_t& met = mask == ~0u ? meeting.all : meeting.some;
  met++;
  // All lanes are on their way and too few are here: there is nothing to look at yet. Most arrivals end so.
  if (mask == ~0u && met < 32 && meeting.some == 0 && m.done == 0 && first + 32 <= m.threads) {
    leave_to_scheduler(m);
    return;
  }
  void* args[32] = {};
  for (uint32_t lane = 0; lane < 32; lane++) {
    if ((mask >> lane & 1) == 0) continue;
    if (first + lane >= m.threads) fault(at, "a warp operation whose mask %08x names lanes beyond the block", mask);
    const Fiber& o = m.fibers[first + lane];
    if (o.state == State::kDone) fault(at, "a warp operation whose mask %08x names thread %u, which has left", mask, o.index);
    if (o.state != State::kGroup || o.mask != mask) {
      if (o.state == State::kGroup && (o.mask & mask) != 0 && o.at.line == at.line) {
        fault(at, "a warp operation with mask %08x, of thread %u with %08x", mask, o.index, o.mask);
      }
      leave_to_scheduler(m);
      return;
    }
    if (o.at.line != at.line) fault(at, "a warp operation, while thread %u is at the one of line %d", o.index, o.at.line);
    args[lane] = o.arg;
  }
  met -= static_cast<uint32_t>(__builtin_popcount(mask));
  apply(args, mask);
  for (uint32_t lane = 0; lane < 32; lane++) {
    if ((mask >> lane & 1) != 0) wake(m, m.fibers[first + lane]);
  }
  leave_to_scheduler(m);
}

void* shared(const void* key, size_t bytes, Place at) {
  Machine& m = machine();
  for (const SharedArray& a : m.arrays) {
    if (a.key == key) return m.memory.data() + a.offset;
  }
  const size_t offset = m.used;
  if (offset + bytes + kGuard > m.memory.size()) fault(at, "more shared memory than a block has");
  m.arrays.push_back({key, offset, bytes});
  m.used = (offset + bytes + kGuard + 15) / 16 * 16;
  return m.memory.data() + offset;
}

void* dynamic_shared() { return machine().memory.data() + kGuard; }

const char* run(const Grid& grid, const std::function<void()>& kernel) {
  Machine& m = machine();
  m.grid = grid;
  m.threads = grid.block.x * grid.block.y * grid.block.z;
  m.failed = false;
  if (m.threads == 0 || m.threads > kMostThreads || grid.shared > kMostShared ||
      grid.grid.x == 0 || grid.grid.y == 0 || grid.grid.z == 0 || grid.grid.y > 65535 || grid.grid.z > 65535) {
    fail(m, nullptr, {"?", 0}, "a launch that no device takes");
    return m.sentence;
  }
  if (m.stacks == nullptr) {
    void* memory = mmap(nullptr, kStack * kMostThreads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return "no memory for the emulation's stacks";
    m.stacks = static_cast<uint8_t*>(memory);
  }
  if (m.fibers.size() < m.threads) m.fibers.resize(m.threads);
  m.kernel = &kernel;
  m.random = grid.seed * 0x9e3779b97f4a7c15u + 0x1234567u;
  m.asked = grid.shared;
  m.memory.resize((2 * kGuard + grid.shared + (size_t{48} << 10) + 16 * kGuard + 15) / 16 * 16);
  const uint32_t blocks = grid.grid.x * grid.grid.y * grid.grid.z;
  // Blocks in shuffled order too: start anywhere, step by an odd stride coprime to their number.
  uint32_t step = blocks <= 2 ? 1 : m.draw(blocks - 1) + 1;
  const auto common = [](uint32_t a, uint32_t b) {
    while (b != 0) { const uint32_t r = a % b; a = b, b = r; }
    return a;
  };
  while (common(blocks, step) != 1) step++;
  uint64_t b = m.draw(blocks);
  for (uint32_t i = 0; i < blocks && !m.failed; i++, b = (b + step) % blocks) {
    const uint32_t at = static_cast<uint32_t>(b);
    run_block(m, dim3(at % grid.grid.x, at / grid.grid.x % grid.grid.y, at / grid.grid.x / grid.grid.y));
  }
  here = nullptr;
  return m.failed ? m.sentence : nullptr;
}

}  // namespace emulation
}  // namespace kvasir
