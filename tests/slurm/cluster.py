"""A private Slurm cluster on one host: munged, slurmctld and two slurmd with their own ports."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")


def why_not():
    """Why no cluster can be started here, or None."""
    path = os.environ["PATH"] + ":/usr/sbin"
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if missing:
        return f"Slurm is not installed (missing: {', '.join(missing)}; Debian: slurm-wlm, munge)"
    return None if os.geteuid() == 0 else "starting slurmd needs root"


def free_ports(count):
    """Ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """Context manager: the daemons run while it is open; `env` makes Slurm's commands talk to them."""

    def __init__(self, folder, nodes=2):
        self.folder = pathlib.Path(folder)
        self.nodes = [f"mrpnode{i + 1}" for i in range(nodes)]
        self.daemons = []
        self.env = dict(os.environ, SLURM_CONF=str(self.folder / "slurm.conf"),
                        PATH=os.environ["PATH"] + ":/usr/sbin")

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        try:
            self._start_munge()
            self._write_configuration()
            self._start("slurmctld", "-D")
            for node in self.nodes:
                self._start("slurmd", "-D", "-N", node)
            self._wait_until_idle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons:
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _start(self, program, *arguments):
        log = open(self.folder / f"{program}{len(self.daemons)}.log", "wb")
        self.daemons.append(subprocess.Popen([program, *arguments], env=self.env, stdout=log,
                                             stderr=log, stdin=subprocess.DEVNULL))

    def _start_munge(self):
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self._start("munged", "--foreground", "--force", f"--key-file={key}",
                    f"--socket={self.folder}/munge.socket", f"--pid-file={self.folder}/munge.pid",
                    f"--seed-file={self.folder}/munge.seed", f"--log-file={self.folder}/munge.log")
        wait_for(lambda: (self.folder / "munge.socket").exists(), "munged did not start")

    def _write_configuration(self):
        control, *ports = free_ports(1 + len(self.nodes))
        host = socket.gethostname()
        lines = [
            "ClusterName=mrp", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmctldPort={control}",
            "SlurmUser=root", "SlurmdUser=root", "AuthType=auth/munge",
            f"AuthInfo=socket={self.folder}/munge.socket", "CredType=cred/munge",
            f"StateSaveLocation={self.folder}/state", f"SlurmdSpoolDir={self.folder}/spool-%n",
            f"SlurmctldPidFile={self.folder}/ctld.pid", f"SlurmdPidFile={self.folder}/%n.pid",
            "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none",
            "SelectType=select/cons_tres", "SelectTypeParameters=CR_Core", "ReturnToService=2",
            "MpiDefault=none", "SlurmdTimeout=300", "JobAcctGatherType=jobacct_gather/none",
            "SlurmdParameters=config_overrides",
        ]
        lines += [f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 "
                  "State=UNKNOWN" for node, port in zip(self.nodes, ports)]
        lines.append(f"PartitionName=all Nodes={','.join(self.nodes)} Default=YES State=UP "
                     "MaxTime=INFINITE")
        (self.folder / "state").mkdir(exist_ok=True)
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")

    def _wait_until_idle(self):
        def idle():
            answer = subprocess.run(["sinfo", "-h", "-N", "-o", "%N %T"], env=self.env,
                                    capture_output=True, text=True)
            return answer.stdout.split().count("idle") == len(self.nodes)

        wait_for(idle, f"the nodes did not become idle; logs are in {self.folder}")


def wait_for(condition, message, seconds=60):
    """Polls until `condition()`; RuntimeError(message) after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(message)
        time.sleep(0.2)
