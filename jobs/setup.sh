#!/bin/bash
# Installs what is missing, makes the Python environment and builds mrp; a second run does only what
# changed.
#
#   bash jobs/setup.sh [further Debian packages]
#   MRP_BUILD_DIR=build-other bash jobs/setup.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${XDG_CACHE_HOME:-$HOME/.cache}/mrp/venv
build=${MRP_BUILD_DIR:-build}
packages=(
  git g++ make cmake ninja-build pkg-config ccache python3 python3-dev python3-venv
  openmpi-bin libopenmpi-dev libscalapack-openmpi-dev libopenblas-dev libhdf5-openmpi-dev hdf5-tools
  libcli11-dev libfmt-dev libspdlog-dev libyaml-cpp-dev nlohmann-json3-dev libxxhash-dev libssl-dev
  libgtest-dev libgmock-dev libelpa-dev libgoogle-perftools-dev
  "$@"
)

# Runs a command up to four times: downloads fail now and then.
retry() {
  local pause
  for pause in 5 15 45; do
    "$@" && return
    echo "setup: \"$*\" failed, next try in $pause s"
    sleep "$pause"
  done
  "$@"
}

# Prints those of the packages that are not installed.
missing_packages() {
  local package
  for package in "${packages[@]}"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
      echo "$package"
  done
}

install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    echo "setup: not a Debian system; needed are the equivalents of: ${packages[*]}"
    return
  fi
  local missing
  mapfile -t missing < <(missing_packages)
  if [[ ${#missing[@]} -eq 0 ]]; then
    echo "setup: all ${#packages[@]} Debian packages are installed"
  elif [[ $EUID -ne 0 ]]; then
    echo "error: Debian packages are missing, this machine, ask an administrator to run:" \
      "apt-get install ${missing[*]}" >&2
    exit 5
  else
    echo "setup: installing Debian packages: ${missing[*]}"
    retry apt-get update -qq
    retry env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      "${missing[@]}"
  fi
}

# The environment is as the requirements say when its stamp holds their hash.
make_environment() {
  local wanted stamp=$venv/requirements.sha256
  wanted=$(sha256sum <jobs/py/requirements.txt)
  mkdir -p "$(dirname "$venv")"
  exec 9>"$venv.lock"
  flock 9
  if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    echo "setup: Python environment $venv is up to date"
  else
    echo "setup: making the Python environment $venv (about 5 GB with PyTorch)"
    [[ -x $venv/bin/python ]] || python3 -m venv "$venv"
    retry "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
      -r jobs/py/requirements.txt
    echo "$wanted" >"$stamp"
  fi
  flock -u 9
}

build_program() {
  echo "setup: building $build"
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DMRP_PYTHON="$venv/bin/python"
  cmake --build "$build" --target mrp
}

install_packages
make_environment
build_program
echo "setup: $build/mrp is ready"
