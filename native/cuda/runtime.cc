#include "runtime.h"

#include "error.h"
#include "runtime_fail.h"

namespace kvasir {

void Runtime::check_lost() const {
  if (!lost_.empty()) fail(KVASIR_DEVICE, "Cannot use cuda: the device is lost since %s, open the backend again", lost_.c_str());
}

void Runtime::lose(const std::string& what) {
  lost_ = what;
  queue_.drop();
  fail(KVASIR_DEVICE, "Cannot use cuda: the device is lost, %s", what.c_str());
}

bool Runtime::describe_rows(TensorMap& map, const TensorRows& of) {
  facts_.tma = facts_.tma && make_tensor_map(map, of);
  return facts_.tma;
}

void fail_driver(int version) {
  if (version == 0) fail(KVASIR_DEVICE, "Cannot open cuda: this machine has no NVIDIA driver, use backend \"cpu\"");
  fail(KVASIR_DEVICE, "Cannot open cuda: the driver is for CUDA %d.%d, update it to 580 or later (CUDA 13.0) or use backend \"cpu\"",
       version / 1000, version % 1000 / 10);
}

void fail_devices(int wanted, int found) {
  if (found == 0) fail(KVASIR_DEVICE, "Cannot open cuda: the driver finds no device, use backend \"cpu\"");
  fail(KVASIR_DEVICE, "Cannot open cuda: there is no device %d, the driver finds %d", wanted, found);
}

}  // namespace kvasir
