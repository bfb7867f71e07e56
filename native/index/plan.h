// What type "planned" compares: structures of one KV head, tried with searches of held-out prompt queries, whose counted work is
// multiplied with the machine's costs.
#pragma once
#include <memory>
#include <vector>

#include "cost.h"
#include "knn.h"
#include "partition_index.h"

namespace kvasir {

// The latest held-out positions of one KV head, moved to where decode queries will be, and their best keys.
struct HeldOut {
  HeldOut(const PartitionInput& input, int32_t k, int32_t ahead, int32_t horizon);

  int32_t positions = 0, k = 0;
  std::vector<float> queries;  // [positions, group, dim]
  Neighbours best;             // of each query
};

struct Work {
  double keys = 0;       // scored a search
  double predicted = 0;  // nanoseconds
};

// A structure and what it does.
struct Choice {
  const Partition* partition = nullptr;
  const char* name = "";
  double recall = 0;
  Work best, sample;
  bool serves_best = false, serves_samples = false;

  // What samples are drawn from: sketches are of best keys alone.
  const char* structure() const;
};

struct Trial {
  const PartitionInput& input;
  const HeldOut& held;
  const SearchCost& cost;
  double lift;
  double fresh;  // tokens that a search scans beside a structure, on average: they wait for an extension

  // Searches the partition for all of `held`.
  Choice of(const Partition& partition, const char* name) const;
  // The same lists found or scored otherwise: best keys are counted anew, samples are as they were.
  Choice again(const Choice& like, const Partition& partition) const;
  // Nanoseconds of a scan.
  double scan(bool sample) const;
  // The one that takes less of a scan's time, best keys and samples together, with what it serves: a goal goes by a scan where the
  // structure does not promise less than `worth` of it, best keys also where it does not reach the recall.
  Choice better(Choice a, Choice b, double recall, double worth) const;

 private:
  Work count(const Partition& partition, bool sample, double* recall) const;
  double judge(Choice& choice, double recall, double worth) const;
};

}  // namespace kvasir
