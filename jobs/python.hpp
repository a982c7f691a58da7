// The Python programs beside mrp.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace mrp::jobs {

/// Runs jobs/py/`script` to its end; each line of its output goes to `line`. One rank calls it.
/// @throws Error with the program's own message and exit code for bad usage and input; one that
/// names MRP_PYTHON for anything else that went wrong.
void run_python(const std::string& script, const std::vector<std::string>& arguments,
                const std::function<void(const std::string&)>& line);

}  // namespace mrp::jobs
