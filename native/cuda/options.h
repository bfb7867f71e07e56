// What a context is opened with: "device=0". The emulation takes more, to be tested with.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kvasir {

struct Options {
  int device = 0;
  bool graphs = true;      // graphs=: launches that repeat are sent as graphs (launch_queue.h)
  bool wgmma = true;       // wgmma=: prompts by attention_wgmma.cuh on devices that can
  bool tma = true;         // tma=: their keys and values by tensor maps, where the driver has them
#ifdef KVASIR_EMULATION
  uint64_t seed = 1;       // seed=: of the order of threads
  size_t memory = 0;       // memory=: megabytes of the device, 0 for no bound
  int fault = 0;           // fault=n: the n-th launch fails, as an illegal access does
  int driver = 13000;      // driver=: 0 is none, less than 13000 too old
  bool maps = true;        // maps=: false is a driver that knows no tensor maps
  int devices = 1;         // devices=: how many there are
#endif
};

// Throws Error{KVASIR_ARGUMENT} that lists what is valid. Null and "" are the defaults.
Options parse_options(const char* text);

}  // namespace kvasir
