// mrp: removes a topic from a large language model. One binary, a subcommand for each stage.
#include <exception>

#include "dist/session.hpp"
#include "jobs/command_line.hpp"

int main(int argc, char** argv) {
  try {
    const mrp::dist::Session session(argc, argv);
    return mrp::jobs::run_command(argc, argv, session.threads());
  } catch (...) {
    mrp::dist::abort_job(std::current_exception());
  }
}
