// Moves queries from where they were asked to where queries will be asked, so that what is trained on a prompt serves the
// tokens that follow it.
#pragma once
#include <cstdint>

#include "index.h"

namespace kvasir {

// Turns one query or key [head_dim], rotated for its position, by `distance` positions: R(p + distance) x = R(distance) R(p) x
// (Su et al. 2021, "RoFormer", 3.4.2). Only the rotated dims change; without rope nothing does.
void rotate(const LayerShape& shape, float* row, double distance);
// The same for rows [count, head_dim].
void rotate_all(const LayerShape& shape, float* rows, int32_t count, double distance);

// Moves queries [count, head_dim], asked at `positions`, to positions spread evenly over [from, from + horizon). The target of a
// query depends on its place alone: multiples of the golden ratio modulo 1.
void spread(const LayerShape& shape, float* queries, const int32_t* positions, int32_t count, int32_t from, int32_t horizon);

}  // namespace kvasir
