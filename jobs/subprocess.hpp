// Another program, run without a shell.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace mrp::jobs {

struct Outcome {
  int exit_code = 0;  ///< 128 + signal when a signal ended it
  std::string last_error_line;
};

/// Runs `arguments` (the first is the program, searched on PATH) to its end with this process's
/// environment. Each line of its standard output goes to `line` as it comes; standard error is kept
/// back but for its last line.
/// @throws ResourceError if the program cannot be started.
Outcome run_program(const std::vector<std::string>& arguments,
                    const std::function<void(const std::string&)>& line);

}  // namespace mrp::jobs
