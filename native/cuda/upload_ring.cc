#include "upload_ring.h"

#include <algorithm>
#include <cstring>

#include "mutants.h"

namespace kvasir {

bool UploadRing::upload(void* to, const void* from, size_t bytes) {
  using Lane = UploadStreams::Lane;
  if (pinned_ == nullptr) {
    if (is_refused_ || !streams_.allocate(kPlaces * kPlace, &pinned_, &staging_)) {
      pinned_ = nullptr, is_refused_ = true;
      return false;
    }
  }
  for (size_t done = 0; done < bytes;) {
    const size_t count = std::min(kPlace, bytes - done);
    const int place = turn_;
    turn_ = (turn_ + 1) % kPlaces;
    uint8_t *pinned = pinned_ + static_cast<size_t>(place) * kPlace, *staging = staging_ + static_cast<size_t>(place) * kPlace;
    if (is_used_[place]) streams_.wait(landed(place));
    std::memcpy(pinned, static_cast<const uint8_t*>(from) + done, count);
    if (is_used_[place]) streams_.wait(Lane::kUploads, taken(place));
    is_used_[place] = true;
    streams_.copy(Lane::kUploads, staging, pinned, count);
    streams_.record(Lane::kUploads, landed(place));
    if (!is_seeded(Mutant::kUploadOrder)) streams_.wait(Lane::kKernels, landed(place));
    streams_.copy(Lane::kKernels, static_cast<uint8_t*>(to) + done, staging, count);
    streams_.record(Lane::kKernels, taken(place));
    done += count;
  }
  return true;
}

}  // namespace kvasir
