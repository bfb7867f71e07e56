// Large writes: two streams that get on as they please, in any order that what waits for what allows, and every byte where it should be.
#include "upload_ring.h"

#include <cstring>
#include <deque>
#include <random>
#include <vector>

#include "device_array.h"
#include "harness.h"
#include "options.h"

using namespace kvasir;

namespace {

// Both streams are queues; whoever waits lets them go on by chance, and nothing that was not waited for is done before it must be.
class ChanceStreams final : public UploadStreams {
 public:
  explicit ChanceStreams(uint32_t seed, bool has_memory = true) : random_(seed), has_memory_(has_memory) {}
  bool allocate(size_t bytes, uint8_t** pinned, uint8_t** staging) override {
    if (!has_memory_) return false;
    memory_.assign(2 * bytes, 0xff);
    *pinned = memory_.data(), *staging = memory_.data() + bytes;
    return true;
  }
  void copy(Lane lane, void* to, const void* from, size_t bytes) override { add(lane, {Step::kCopy, to, from, bytes, 0, 0}); }
  void record(Lane lane, int event) override { add(lane, {Step::kRecord, nullptr, nullptr, 0, event, ++records_}), last_[event] = records_; }
  void wait(Lane lane, int event) override { add(lane, {Step::kWait, nullptr, nullptr, 0, event, last_[event]}); }
  void wait(int event) override {
    host_waits++;
    while (done_[event] < last_[event]) go_on();
  }
  void finish() {
    while (!lanes_[0].empty() || !lanes_[1].empty()) go_on();
  }
  int host_waits = 0;

 private:
  struct Step {
    enum Kind { kCopy, kRecord, kWait } kind;
    void* to;
    const void* from;
    size_t bytes;
    int event, number;  // of the event's record
  };
  void add(Lane lane, const Step& step) { lanes_[lane == Lane::kKernels ? 0 : 1].push_back(step); }
  void go_on() {
    std::deque<Step>& lane = lanes_[random_() % 2];
    if (lane.empty()) return;
    const Step& s = lane.front();
    if (s.kind == Step::kWait && done_[s.event] < s.number) return;
    if (s.kind == Step::kCopy) std::memcpy(s.to, s.from, s.bytes);
    if (s.kind == Step::kRecord) done_[s.event] = s.number;
    lane.pop_front();
  }

  std::mt19937 random_;
  const bool has_memory_;
  std::vector<uint8_t> memory_;
  std::deque<Step> lanes_[2];
  int records_ = 0, last_[UploadRing::kEvents] = {}, done_[UploadRing::kEvents] = {};
};

std::vector<uint8_t> numbered(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> x(count);
  for (uint8_t& b : x) b = static_cast<uint8_t>(random());
  return x;
}

}  // namespace

TEST("cuda uploads: bytes are where they should be, however streams get on") {
  for (uint32_t seed = 0; seed < 20; seed++) {
    ChanceStreams streams(seed);
    UploadRing ring(streams);
    // More pieces than there are places, some short; what they are copied from changes at once.
    std::vector<std::vector<uint8_t>> want, got;
    for (uint32_t i = 0; i < 9; i++) {
      want.push_back(numbered(UploadRing::kPlace * (i % 4) + 1000 * i + 1, seed * 100 + i));
      got.emplace_back(want.back().size(), uint8_t{0});
    }
    for (size_t i = 0; i < want.size(); i++) {
      std::vector<uint8_t> from = want[i];
      EXPECT(ring.upload(got[i].data(), from.data(), from.size()));
      std::fill(from.begin(), from.end(), uint8_t{0xee});
    }
    streams.finish();
    EXPECT(got == want);
    EXPECT(streams.host_waits > 0);
  }
}

TEST("cuda uploads: the host waits when all places are on their way, not before") {
  ChanceStreams streams(1);
  UploadRing ring(streams);
  std::vector<uint8_t> from(UploadRing::kPlace), to(from.size());
  for (int i = 0; i < UploadRing::kPlaces; i++) EXPECT(ring.upload(to.data(), from.data(), from.size()));
  EXPECT_EQ(streams.host_waits, 0);
  EXPECT(ring.upload(to.data(), from.data(), from.size()));
  EXPECT_EQ(streams.host_waits, 1);
  streams.finish();
  ChanceStreams none(1, false);
  UploadRing without(none);
  for (int i = 0; i < 2; i++) EXPECT(!without.upload(to.data(), from.data(), from.size()));
}

TEST("cuda uploads: a runtime's writes are there for whatever comes after them") {
  const auto runtime = Runtime::open(Options());
  const std::vector<uint8_t> first = numbered(3 * UploadRing::kPlace + 77, 1), second = numbered(first.size(), 2);
  const DeviceArray<uint8_t> x(*runtime, first), y(*runtime, first.size());
  runtime->copy(y.data(), x.data(), first.size());
  std::vector<uint8_t> from = second;
  runtime->upload(x.data(), from.data(), from.size());
  std::fill(from.begin(), from.end(), uint8_t{0xee});
  EXPECT(x.read() == second);
  EXPECT(y.read() == first);
}
