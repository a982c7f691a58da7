// The command line of mrp.
#pragma once

namespace mrp::jobs {

/// Collective over all processes of the job. Parses the command line, does what it asks for and
/// returns the exit code; what is thrown below is printed here, once. `threads`: of a rank.
int run_command(int argc, char** argv, int threads);

}  // namespace mrp::jobs
