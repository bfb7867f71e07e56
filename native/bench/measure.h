// How one way of searching does on one recorded KV head; one JSON line of it.
#pragma once
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "oracle.h"

namespace kvasir_bench {

// What one search returned. Rows: one for all heads of the group (shared), or one each.
struct Answer {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> bias;  // empty: none
  double scored = 0, bytes = 0, estimated = std::numeric_limits<double>::quiet_NaN();
  int certificate = 0;
  double expected_recall = std::numeric_limits<double>::quiet_NaN();
};

struct Figures {
  std::vector<double> recall, mass, error, scored, kept, bytes, estimated, warm, cold, expected;
  double build_seconds = 0, bytes_per_key = 0, insert_us = std::numeric_limits<double>::quiet_NaN();
  int certificate = 99;
  std::string decisions;

  // The k best keys are what recall is about; 100 for goals that name no number.
  void add(const HeadRows& rows, const Truth& truth, const Answer& answer, uint32_t k) {
    const bool shared = answer.tokens.size() == 1;
    for (uint32_t g = 0; g < rows.group; g++) {
      const size_t r = shared ? 0 : g;
      const auto& tokens = answer.tokens[r];
      const int32_t count = static_cast<int32_t>(tokens.size());
      recall.push_back(truth.recall(g, tokens.data(), count, k));
      mass.push_back(truth.mass(g, tokens.data(), count));
      error.push_back(truth.error(rows, g, tokens.data(), answer.bias.empty() ? nullptr : answer.bias[r].data(), count));
    }
    for (const auto& tokens : answer.tokens) kept.push_back(static_cast<double>(tokens.size()));
    scored.push_back(answer.scored);
    bytes.push_back(answer.bytes);
    if (std::isfinite(answer.estimated)) estimated.push_back(answer.estimated);
    if (std::isfinite(answer.expected_recall)) expected.push_back(answer.expected_recall);
    certificate = std::min(certificate, answer.certificate);
  }
};

// Times `search` warm (best of several runs) and cold (once, after the caches were emptied): microseconds of CPU.
inline void time_search(const std::function<void()>& search, Evictor* evictor, Figures* figures) {
  if (evictor != nullptr) {
    static volatile uint64_t sink;
    sink = evictor->run();
    const double start = thread_seconds();
    search();
    figures->cold.push_back(1e6 * (thread_seconds() - start));
    (void)sink;
  }
  search();
  double best = 1e9, spent = 0;
  for (int i = 0; i < 40 && (i < 3 || spent < 4e-3); i++) {
    const double start = thread_seconds();
    search();
    const double took = thread_seconds() - start;
    best = std::min(best, took);
    spent += took;
  }
  figures->warm.push_back(1e6 * best);
}

inline std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '\n') out += "\\n";
    else if (c == '"' || c == '\\') (out += '\\') += c;
    else if (static_cast<unsigned char>(c) >= 32) out += c;
  }
  return out;
}

inline void print_number(const char* name, double value) {
  if (std::isfinite(value)) std::printf(",\"%s\":%.6g", name, value);
}

inline void print_line(const std::string& file, const std::string& spec, const std::string& goal, const RecordedLayer& layer,
                       uint32_t kv_head, uint32_t rest, const Figures& f) {
  std::printf("{\"file\":\"%s\",\"spec\":\"%s\",\"goal\":\"%s\",\"layer\":%u,\"kvHead\":%u,\"group\":%u,\"dim\":%u,\"tokens\":%u,\"rest\":%u",
              escaped(file).c_str(), escaped(spec).c_str(), escaped(goal).c_str(), layer.layer, kv_head, layer.group(),
              layer.head_dim, layer.tokens, rest);
  print_number("recall", mean(f.recall));
  print_number("worstRecall", *std::min_element(f.recall.begin(), f.recall.end()));
  print_number("mass", mean(f.mass));
  print_number("error", mean(f.error));
  print_number("scored", mean(f.scored));
  print_number("kept", mean(f.kept));
  print_number("bytesRead", mean(f.bytes));
  print_number("estimated", mean(f.estimated));
  print_number("expectedRecall", mean(f.expected));
  print_number("warmUs", median(f.warm));
  print_number("coldUs", median(f.cold));
  print_number("buildSeconds", f.build_seconds);
  print_number("bytesPerKey", f.bytes_per_key);
  print_number("insertUs", f.insert_us);
  std::printf(",\"certificate\":%d,\"errors\":[", f.certificate);
  for (size_t i = 0; i < f.error.size(); i++) std::printf(i == 0 ? "%.3g" : ",%.3g", f.error[i]);
  std::printf("],\"decisions\":\"%s\"}\n", escaped(f.decisions).c_str());
  std::fflush(stdout);
}

// Options of the command line: FILE --spec S… --goal G… --queries N --every N --cold.
struct Options {
  std::string file;
  std::vector<std::string> specs, goals;
  uint32_t queries = 8, every = 1, first = 0;
  bool cold = false;

  Options(int argc, char** argv) {
    for (int i = 1; i < argc; i++) {
      const std::string arg = argv[i];
      if (arg == "--cold") {
        cold = true;
      } else if (arg.rfind("--", 0) != 0) {
        file = arg;
      } else if (i + 1 == argc) {
        usage("a value is missing");
      } else if (arg == "--spec") {
        specs.push_back(argv[++i]);
      } else if (arg == "--goal") {
        goals.push_back(argv[++i]);
      } else if (arg == "--queries") {
        queries = static_cast<uint32_t>(std::atoi(argv[++i]));
      } else if (arg == "--every") {
        every = static_cast<uint32_t>(std::atoi(argv[++i]));
      } else if (arg == "--first") {
        first = static_cast<uint32_t>(std::atoi(argv[++i]));
      } else {
        usage(arg.c_str());
      }
    }
    if (file.empty() || specs.empty() || goals.empty() || queries < 1 || every < 1) usage("FILE, --spec and --goal are needed");
  }

  [[noreturn]] static void usage(const char* why) {
    std::fprintf(stderr,
                 "Cannot run: %s. Use FILE --spec SPEC… --goal topN|topN:sample|errorX… [--queries 8] [--every 1] [--first 0] [--cold]\n",
                 why);
    std::exit(2);
  }
};

// "top100", "top100:sample" (the tail is sampled), "error0.05".
struct GoalText {
  bool topk = false, sample = false;
  double value = 0;

  explicit GoalText(const std::string& text) {
    topk = text.rfind("top", 0) == 0;
    if (!topk && text.rfind("error", 0) != 0) Options::usage(text.c_str());
    char* end = nullptr;
    value = std::strtod(text.c_str() + (topk ? 3 : 5), &end);
    sample = std::string(end) == ":sample";
    if (value <= 0 || (*end != '\0' && !sample)) Options::usage(text.c_str());
  }
  uint32_t k() const { return topk ? static_cast<uint32_t>(value) : 100; }
};

// Calls body(layer, kv head) for every so-manieth KV head of a file.
template <class Body>
void each_head(const Recorded& heads, const Options& options, Body body) {
  uint32_t i = 0;
  for (const RecordedLayer& layer : heads.layers()) {
    for (uint32_t kv = 0; kv < layer.kv_heads; kv++, i++) {
      if (i % options.every == options.first % options.every) body(layer, kv);
    }
  }
}

// Decode queries to look at, evenly spread, in order.
inline std::vector<uint32_t> chosen_queries(const RecordedLayer& layer, const Options& options) {
  std::vector<uint32_t> chosen;
  for (uint32_t j = 0; j < options.queries; j++) chosen.push_back((2 * j + 1) * layer.decoded / (2 * options.queries));
  return chosen;
}

}  // namespace kvasir_bench
