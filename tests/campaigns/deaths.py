"""Deaths in a cluster: sweeps must end as if nothing had happened.

`python -m tests.campaigns.deaths --deaths=100 --nodes=2 -- --sweep=failout_rate --runs=5` starts Ray's nodes on
loopback and trains there, again and again, while workers are killed or stopped, nodes die, go and come, and the driver
is killed and given its command again. Every `accuracies.csv` must be, byte for byte, that of a process alone.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from tests.helpers.process import ROOT

KINDS = ("worker killed", "worker stopped", "raylet killed", "node removed", "driver killed")


def processes(name):
    """Numbers of the processes whose command line begins so."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().decode(errors="replace").startswith(name):
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


class Deaths:
    """A cluster on loopback, a command that trains on it, and what is done to both."""

    def __init__(self, nodes, flags, folder, draw):
        from ray.cluster_utils import Cluster

        # With Ray's own, 15, workers hardly train beside other tests: 230 s instead of 43 s.
        os.environ.setdefault("RAY_worker_niceness", "0")
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(nodes)]
        self.flags, self.folder, self.draw = [*flags, f"--ray={self.cluster.address}"], folder, draw
        self.struck = collections.Counter()
        self.log = (folder / "log").open("ab")
        self.start("cluster_0")

    def start(self, name):
        """Gives the command for a results folder."""
        self.name = name
        command = [sys.executable, str(ROOT / "launch.py"), *self.flags, f"--results_dir={self.folder / name}"]
        self.driver = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def strike(self, kind):
        """Does something of this kind, if there is something to do it to."""
        workers = processes("ray::Worker")
        if kind in KINDS[:2]:
            if not workers:
                return
            os.kill(self.draw.choice(workers), signal.SIGKILL if kind == KINDS[0] else signal.SIGSTOP)
        elif kind == "driver killed":
            self.driver.kill()
            self.driver.wait()
            self.start(self.name)
        else:
            node = self.draw.choice(self.nodes)
            self.nodes.remove(node)
            if kind == "raylet killed":
                node.kill_raylet()
                time.sleep(self.draw.uniform(0, 3))
            self.cluster.remove_node(node, allow_graceful=False)
            self.nodes.append(self.cluster.add_node(num_cpus=1))
        self.struck[kind] += 1
        print(f"{time.strftime('%X')} {kind} ({self.struck.total()})", flush=True)

    def close(self):
        """Ends everything."""
        self.driver.kill()
        self.driver.wait()
        self.cluster.shutdown()
        self.log.close()


def reached(folder):
    """By share under way, how many epochs of it are kept."""
    return {
        epochs: max((int(each.name) for each in epochs.glob("[0-9]*") if each.name.isdigit()), default=0)
        for epochs in folder.glob("*/checkpoints/share_*/epochs")
    }


def run(nodes, deaths, flags, folder, seed=0, pause=(1.0, 8.0), kinds=KINDS, in_training=False):
    """Runs a campaign; `in_training` strikes when every node has kept an epoch since the strike before.

    Returns:
      How often each kind was done, and how many sweeps ended as they should.
    """
    draw = random.Random(seed)
    subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *flags, f"--results_dir={folder / 'alone'}"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    (alone,) = (folder / "alone").glob("*/*/accuracies.csv")
    under = Deaths(nodes, flags, folder, draw)
    sweeps, before = 0, {}
    try:
        while True:
            until = time.monotonic() + draw.uniform(*pause)
            while under.driver.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            if under.driver.poll() is not None:
                said = (folder / "log").read_text(errors="replace")[-3000:]
                assert under.driver.returncode == 0, said
                own = folder / under.name / alone.relative_to(folder / "alone")
                assert own.read_bytes() == alone.read_bytes(), f"{own} differs from {alone}"
                sweeps += 1
                print(f"sweep {sweeps} ended as it should", flush=True)
                if under.struck.total() >= deaths:
                    return under.struck, sweeps
                under.start(f"cluster_{sweeps}")
            elif under.struck.total() < deaths:
                now = reached(folder / under.name)
                if not in_training or (len(now) == nodes and all(now[each] > before.get(each, 0) for each in now)):
                    before = now
                    under.strike(draw.choice(kinds))
    finally:
        under.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--deaths", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--in_training", action="store_true", help="strike only while every node trains")
    parser.add_argument("--folder", type=pathlib.Path, help="where results and what drivers say stay; else nowhere")
    parser.add_argument("flags", nargs="*", default=["--sweep=failout_rate", "--runs=5"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or pathlib.Path(temporary)
        folder.mkdir(exist_ok=True)
        pause = (0.0, 0.1) if asked.in_training else (1.0, 8.0)
        struck, sweeps = run(
            asked.nodes, asked.deaths, asked.flags, folder, asked.seed, pause, asked.kinds, asked.in_training
        )
    print(f"{sweeps} sweeps ended byte for byte as alone, under {struck.total()} deaths: {dict(struck)}")


if __name__ == "__main__":
    main()
