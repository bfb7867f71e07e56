// What a block in emulation is made of: for emulation.cc, which runs it, and async_emulated.cc.
#pragma once
#include <sys/mman.h>

#include <vector>

#include "emulation.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace kvasir {
namespace emulation {

constexpr size_t kStack = size_t{64} << 10, kGuard = 256, kMostShared = size_t{232448};
constexpr uint32_t kMostThreads = 1024;

#if defined(__x86_64__)
struct Saved {
  void* sp = nullptr;
};
#else
struct Saved {
  ucontext_t context;
};
#endif

struct Copy {
  void* to;
  const void* from;
  size_t bytes, zeros;
};

// What a tensor map holds: halves [sizes[2], sizes[1], sizes[0]], rows of which lie strides apart, in bytes.
struct BoxMap {
  const uint8_t* base;
  uint64_t strides[2];
  uint32_t sizes[3], box[3], mark;
};
constexpr uint32_t kBoxMapMark = 0x7a5ab0c5;

// A copy by tensor map on its way. It lands whenever the scheduler says, in any order.
struct BoxCopy {
  BoxMap map;
  uint32_t to;      // from the beginning of shared memory
  int32_t from[3];  // coordinates of the box's first element
  uint64_t* phase;
  Place at;
};

enum class State { kReady, kBarrier, kGroup, kPhase, kDone };

struct Fiber {
  Saved saved;
  Coordinates coordinates;
  State state = State::kReady;
  Place at{};            // where it waits
  uint32_t index = 0;
  uint32_t first = 0, count = 0, mask = 0;  // of the group it waits for
  void* arg = nullptr;
  std::vector<std::vector<Copy>> copies;  // committed groups, the last one open
  std::vector<uint32_t> unfenced;         // pieces of 16 bytes that it wrote and products may not read yet
  std::vector<std::vector<AsyncProduct>> products;  // as copies
  bool may_multiply = false;              // a fence came since products were last waited for
};

struct SharedArray {
  const void* key;
  size_t offset, bytes;
};

// Lanes of a warp that wait for each other: in operations of all of them, and of some.
struct Meeting {
  uint32_t all = 0, some = 0;
};

struct Machine {
  uint8_t* stacks = nullptr;
  std::vector<Fiber> fibers;
  std::vector<uint32_t> ready;
  std::vector<Meeting> meetings;  // by warp
  uint32_t threads = 0, waiting = 0, done = 0;
  Saved scheduler;
  Fiber* running = nullptr;
  const std::function<void()>* kernel = nullptr;
  Grid grid{};
  uint64_t random = 0;
  bool failed = false;
  char sentence[400] = "";
  // Dynamic shared memory first; arrays behind, each with a guard zone.
  std::vector<uint8_t> memory;
  size_t used = 0, asked = 0;
  std::vector<SharedArray> arrays;
  std::vector<BoxCopy> boxes;     // under way
  std::vector<uint16_t> writers;  // of 16 bytes of memory each: 1 + the thread that wrote there and has not fenced it

  ~Machine() {
    if (stacks != nullptr) munmap(stacks, kStack * kMostThreads);
  }
  uint32_t draw(uint32_t below) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    return static_cast<uint32_t>((random >> 32) * below >> 32);
  }
};

Machine& machine();
void fail(Machine& m, const Fiber* f, Place at, const char* what);
void leave_to_scheduler(Machine& m);
void wake(Machine& m, Fiber& f);
void land(Machine& m, const BoxCopy& copy);

}  // namespace emulation
}  // namespace kvasir
