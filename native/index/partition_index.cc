#include "partition_index.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "file.h"
#include "kvasir_index.h"

namespace kvasir {

PartitionIndex::PartitionIndex(const Environment& environment, const LayerShape& shape, Rows rows,
                               std::shared_ptr<const PartitionRecipe> recipe, Codes::Kind codes)
    : Index(environment, shape, std::move(rows)), recipe_(std::move(recipe)),
      codes_(environment.isa, codes, shape.kv_heads, shape.head_dim), samples_(std::make_shared<QuerySamples>()),
      searches_(static_cast<size_t>(environment.pool->threads())) {}

void PartitionIndex::add(int32_t start, int32_t count) { codes_.append(rows_, start, count, environment_.pool); }

void PartitionIndex::observe(int32_t start, int32_t count, const float* queries) {
  if (start + count <= samples_->observed()) return;
  if (samples_.use_count() > 1) samples_ = std::make_shared<QuerySamples>(*samples_);
  samples_->add(shape_, start, count, queries);
}

void PartitionIndex::commit() {
  committed_ = codes_.size();
  if (pending_) {
    if (SetPtr set = pending_.take_at(end_, &waited_seconds_)) take_over(std::move(set));
  }
  start_if_due();
}

void PartitionIndex::settle() {
  if (!pending_) return;
  take_over(pending_.take(&waited_seconds_));
}

void PartitionIndex::take_over(SetPtr set) {
  if (set == nullptr) return;
  const bool built = set_ == nullptr || set->built != set_->built;
  const bool aimed = !built && set->aim() != set_->aim();
  const char* what = built ? "build" : aimed ? "aim" : "extension";
  char line[160];
  std::snprintf(line, sizeof line, "%s of %d tokens took over at position %d", what, set->keys(),
                end_);
  // Of one kind in a row the last is kept.
  if (!takeovers_.empty() && takeovers_.back().compare(0, std::strlen(what), what) == 0) takeovers_.back() = line;
  else takeovers_.push_back(line);
  build_seconds_ += set->seconds;
  set_ = std::move(set);
}

// Builds and extensions start by counts of tokens alone.
void PartitionIndex::start_if_due() {
  if (pending_ || !recipe_->refuses(*samples_, committed_).empty()) return;
  const int32_t keys = committed_, begin = codes_.begin();
  const auto recipe = recipe_;
  const SetPtr old = set_;
  const bool build = old == nullptr || keys - old->built >= static_cast<int32_t>(recipe->growth * old->built);
  // Lists are aimed anew so that they take over when queries leave the positions that they were made for.
  const int32_t horizon = takeover_horizon(keys);
  const bool aim = !build && old->horizon() > 0 && recipe->aim(end_) + horizon >= old->aim() + old->horizon();
  if (!build && !aim && keys - old->keys() < recipe->step(keys)) return;
  const auto samples = samples_;
  const Rows rows = rows_;
  const LayerShape shape = shape_;
  const IndexIsa* isa = environment_.isa;
  const auto codes = std::make_shared<const Codes>(codes_.fork());
  pending_.start(*environment_.builders, end_ + horizon, [=](BuildJob& job) -> SetPtr {
    const double start = wall_seconds();
    const RunTasks run = [&job](int32_t count, const std::function<void(int32_t)>& body) {
      job.parallel(count, [&](int32_t task) {
        if (!job.cancelled()) body(task);
      });
    };
    auto set = std::make_shared<PartitionSet>();
    set->built = build ? keys : old->built;
    set->known = keys;
    if (!build && !aim) set->decisions = old->decisions;
    for (int32_t head = 0; head < shape.kv_heads; head++) {
      if (job.cancelled()) return nullptr;
      const PartitionSource source = {isa, &rows, head, shape.head_dim, begin, keys};
      const Partition* before = build ? nullptr : old->heads[static_cast<size_t>(head)].get();
      if (!build && before == nullptr) {
        set->heads.push_back(nullptr);
        if (aim) set->decisions.push_back(old->decisions[static_cast<size_t>(head)]);
        continue;
      }
      if (!build && (!aim || before->horizon == 0)) {
        set->heads.push_back(extend(*before, source, run));
        if (aim) set->decisions.push_back(old->decisions[static_cast<size_t>(head)]);
        continue;
      }
      std::string decision;
      set->heads.push_back(recipe->build({source, &shape, samples.get(), codes.get(), before, &run}, decision));
      set->decisions.push_back(std::move(decision));
    }
    set->seconds = wall_seconds() - start;
    return set;
  });
}

void PartitionIndex::search(const Query& query, const Hits& hits, Report& report) {
  const bool sampled = query.goal.kind == Goal::kError || query.goal.sample_tail;
  double recall = 1;
  scanned_.clear();
  listed_.clear();
  for (int32_t head = 0; head < shape_.kv_heads; head++) {
    const Partition* p = set_ == nullptr ? nullptr : set_->heads[static_cast<size_t>(head)].get();
    const bool scanned = p == nullptr || !(sampled ? p->serves_samples : p->serves_best);
    (scanned ? scanned_ : listed_).push_back(head);
    if (!scanned) recall = p->recall < recall || std::isnan(p->recall) ? p->recall : recall;
  }
  std::vector<Report> reports(listed_.size());
  environment_.pool->run(static_cast<int>(listed_.size()), [&](int32_t task, int worker) {
    const int32_t head = listed_[static_cast<size_t>(task)];
    const Partition* p = set_->heads[static_cast<size_t>(head)].get();
    // A sample gains nothing from more lists: what the first one lacks, the homes propose.
    const int32_t probes = recipe_->probes > 0 ? recipe_->probes : sampled && p->graph == nullptr ? 1 : 0;
    const SearchScope scope = {environment_.isa, &shape_, &rows_, &codes_, p, head, committed_, probes, recipe_->lift};
    searches_[static_cast<size_t>(worker)].run(scope, query, hits, reports[static_cast<size_t>(task)]);
  });
  const FlatScope scope = {&environment_, &shape_, &rows_, &codes_, committed_};
  scan_.run(scope, scanned_.data(), static_cast<int32_t>(scanned_.size()), query, hits, report);
  if (query.goal.kind == Goal::kError && query.goal.value == 0) report.certificate = KVASIR_CERTIFICATE_EXACT;
  else if (sampled) report.certificate = KVASIR_CERTIFICATE_UNBIASED;
  else if (listed_.empty() || query.goal.value >= committed_) report.certificate = KVASIR_CERTIFICATE_EXACT;
  else if (std::isfinite(recall) && query.goal.value <= recipe_->calibrated) report.certificate = KVASIR_CERTIFICATE_CALIBRATED;
  else report.certificate = KVASIR_CERTIFICATE_NONE;
  if (report.certificate == KVASIR_CERTIFICATE_CALIBRATED) report.expected_recall = recall;
  for (const Report& r : reports) {
    report.keys_scored += r.keys_scored;
    report.keys_kept += r.keys_kept;
    report.bytes_read += r.bytes_read;
  }
}

std::unique_ptr<Index> PartitionIndex::fork(const Rows& rows) const {
  auto copy = std::make_unique<PartitionIndex>(environment_, shape_, rows, recipe_, codes_.kind());
  copy->begin_ = begin_;
  copy->end_ = end_;
  copy->codes_ = codes_.fork();
  copy->samples_ = samples_;
  copy->set_ = set_;
  copy->pending_ = pending_;
  copy->committed_ = committed_;
  copy->takeovers_ = takeovers_;
  return copy;
}

IndexStats PartitionIndex::stats() const {
  IndexStats s;
  s.tokens = end_ - begin_;
  s.bytes = static_cast<double>(codes_.bytes() + samples_->bytes());
  s.pending = end_ - begin_ - (set_ == nullptr ? 0 : set_->keys());
  s.build_seconds = build_seconds_;
  s.inserted = set_ == nullptr ? 0 : committed_ - set_->built;
  const std::string refusal = recipe_->refuses(*samples_, committed_);
  if (set_ == nullptr) s.decisions.push_back(refusal.empty() ? "being built: scanning" : refusal + ": scanning");
  s.decisions.insert(s.decisions.end(), takeovers_.begin(), takeovers_.end());
  if (set_ == nullptr) return s;
  for (const auto& p : set_->heads) s.bytes += p == nullptr ? 0 : static_cast<double>(p->bytes());
  s.decisions.insert(s.decisions.end(), set_->decisions.begin(), set_->decisions.end());
  return s;
}

}  // namespace kvasir
