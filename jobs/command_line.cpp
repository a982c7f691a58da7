#include "jobs/command_line.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <optional>

#include "dist/agree.hpp"
#include "dist/communicator.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "io/file.hpp"
#include "jobs/continuation.hpp"
#include "jobs/failure.hpp"
#include "jobs/model_setup.hpp"
#include "jobs/stages.hpp"

namespace mrp::jobs {
namespace {

constexpr const char* kExample =
    "example:\n"
    "  mpirun -n 2 mrp run job.yaml\n"
    "  mpirun -n 2 mrp solve job.yaml --set subspace.dimension=16\n"
    "  mrp inspect job.work/subspaces.h5";

struct Request {
  std::string command;
  std::filesystem::path path;
  std::vector<std::string> overrides;
  bool force = false;
  int ranks = 0;  ///< that plan plans for; 0: those of the world
  bool json = false;
};

CLI::App* add_job_command(CLI::App& app, Request& request, const std::string& name,
                          const std::string& help) {
  CLI::App* command = app.add_subcommand(name, help);
  command->add_option("job", request.path, "job file (YAML); its keys: mrp config")->required();
  command->add_option("--set", request.overrides, "override a key: --set subspace.dimension=16")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all();
  command->footer(fmt::format("example:\n  mpirun -n 2 mrp {} job.yaml --set seed=1", name));
  return command;
}

void add_stage_command(CLI::App& app, Request& request, const std::string& name,
                       const std::string& help) {
  add_job_command(app, request, name, help)
      ->add_flag("--force", request.force, "run even if the result is up to date");
}

void add_commands(CLI::App& app, Request& request) {
  app.set_version_flag("--version", MRP_VERSION);
  app.footer(kExample);
  app.require_subcommand(0, 1);
  add_stage_command(app, request, "run", "All stages that are not up to date, then the result");
  for (const Stage& stage : all_stages()) {
    add_stage_command(app, request, stage.name, "Stage: " + stage.help);
  }
  CLI::App* plan = add_job_command(app, request, "plan",
                                   "What the stages will compute, move and hold; runs none");
  plan->add_option("--ranks", request.ranks, "plan for so many ranks like these")
      ->check(CLI::PositiveNumber);
  plan->add_flag("--json", request.json, "print the numbers as JSON");
  CLI::App* inspect = app.add_subcommand("inspect", "What a checkpoint or any of our files holds");
  inspect->add_option("path", request.path, "a checkpoint, *.safetensors, *.h5 or *.json")
      ->required();
  inspect->footer("example:\n  mrp inspect job.work/states.h5");
  app.add_subcommand("config", "All keys of a job file: allowed values, default, meaning")
      ->footer("example:\n  mrp config");
}

/// False if everything that was asked for has been printed.
bool parse(int argc, char** argv, const dist::Communicator& world, Request& request) {
  CLI::App app("mrp: removes a topic from a large language model", "mrp");
  add_commands(app, request);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    if (world.is_root()) app.exit(success);
    return false;
  } catch (const CLI::ParseError& error) {
    throw dist::UsageError(fmt::format("{}; see mrp --help", error.what()));
  }
  if (app.get_subcommands().empty()) {
    if (world.is_root()) fmt::print("{}", app.help());
    return false;
  }
  request.command = app.get_subcommands().front()->get_name();
  return true;
}

/// Collective. Once for each state of the checkpoint that the job goes on from.
void compare_continued(Job& job) {
  const std::string& base = job.expected.at("base");
  if (job.config.continued.empty() || job.world->broadcast(job.manifest.compared) == base) return;
  require_unmodified(job.config.model, *job.world);
  dist::agree(*job.world, [&] {
    if (!job.world->is_root()) return;
    job.manifest.compared = base;
    job.manifest.write(job.work.manifest());
  });
}

void run_job(const Request& request, const dist::Communicator& world, int threads) {
  const std::string text = world.broadcast(dist::agree(
      world, [&] { return world.is_root() ? io::read_text(request.path) : std::string(); }));
  const JobConfig config =
      dist::agree(world, [&] { return parse_job(request.path, text, request.overrides); });
  Job job{config, Workspace(config.work), &world, threads, request.force, {}, {}, {}};
  std::optional<WorkLock> lock;
  const auto expected = dist::agree(world, [&] {
    if (!world.is_root()) return nlohmann::json();
    require_own_output(config.output);
    if (request.command != "plan") lock.emplace(config.work);
    job.manifest = io::Manifest::read(job.work.manifest());
    const nlohmann::json fingerprints = expected_fingerprints(config);
    check_model(config);
    return fingerprints;
  });
  job.expected = nlohmann::json::parse(world.broadcast(expected.dump()));

  if (request.command == "plan") {
    plan(job, request.ranks, request.json);
    return;
  }
  compare_continued(job);
  const auto& stages = all_stages();
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const bool asked = request.command == stages[i].name;
    if (asked && !has_stage(job, stages[i].name)) {
      throw dist::UsageError(fmt::format(
          "{}: this job has no stage {}; its keys preset, project and refine.train decide that",
          request.path.string(), stages[i].name));
    }
    const bool included = !stages[i].on_request && has_stage(job, stages[i].name);
    if (asked || (request.command == "run" && included)) {
      run_stage(job, stages, i);
    }
  }
  dist::agree(world, [&] {
    if (world.is_root() && request.command == "run") fmt::print("{}", result_table(job));
  });
}

void dispatch(const Request& request, const dist::Communicator& world, int threads) {
  if (request.command == "inspect" || request.command == "config") {
    dist::agree(world, [&] {
      if (!world.is_root()) return;
      fmt::print("{}", request.command == "config" ? key_table() : inspect(request.path));
    });
  } else {
    run_job(request, world, threads);
  }
}

}  // namespace

int run_command(int argc, char** argv, int threads) {
  const dist::Communicator world = dist::Communicator::world();
  const dist::Communicator failures = dist::Communicator::world();
  dist::log::open(world.rank());
  try {
    Request request;
    if (parse(argc, argv, world, request)) dispatch(request, world, threads);
    return static_cast<int>(dist::ExitCode::done);
  } catch (...) {
    return end_after_failure(failures, std::current_exception());
  }
}

}  // namespace mrp::jobs
