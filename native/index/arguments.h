// Arguments of the C interface as objects, checked, whatever memory an index works on. They throw Error{KVASIR_ARGUMENT}.
#pragma once
#include <memory>
#include <string>

#include "index.h"

namespace kvasir {

LayerShape parse_shape(const double* shape, const double* frequencies);
Goal parse_goal(const double* goal);
void append_segment(const LayerShape& shape, Rows& rows, std::shared_ptr<const Segment> segment);
// Text into a caller's buffer, all of it; throws Error{KVASIR_CAPACITY} where it does not fit.
void copy_whole(char* buf, int32_t cap, const std::string& text, const char* what);

}  // namespace kvasir
