"""Two "hosts": network namespaces with a name of their own, between which MPI's sockets carry all messages.

The wire between them has a delay of 1 ms and a rate of 1 Gbit/s: the kernel's netem if it has that, else wire.py.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fastmlp.config import OPTIMIZERS
from fastmlp.distributed import Alone
from tests.distributed import launch, wire
from tests.distributed.losses import KINDS, losses

OWN = f"fastmlp-{os.getpid()}"  # another run of the tests has others
HOSTS = {f"{OWN}-a": "10.77.31.1", f"{OWN}-b": "10.77.31.2"}
MIDDLE, ENDS = f"{OWN}-wire", ("end-a", "end-b")
DELAY_MS, RATE_MBIT = 1, 1_000
# MPICH would find shared memory between processes of one machine, in whatever namespace
SOCKETS = {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "wire"}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def remove(*names: str) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def has_netem() -> bool:
    """Whether the kernel can delay packets by itself."""
    if shutil.which("tc") is None:
        return False
    arguments = ["qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    done = subprocess.run(["ip", "netns", "exec", MIDDLE, "tc", *arguments], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def hosts() -> Iterator[str]:
    """Two hosts and the wire between them; yields what makes the delay."""
    if sys.platform != "linux" or shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux, root and ip (Debian: iproute2)")
    launch.mpiexec()
    try:
        for name in (MIDDLE, *HOSTS):
            ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        remove(MIDDLE, *HOSTS)
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    with contextlib.ExitStack() as stack:
        stack.callback(remove, MIDDLE, *HOSTS)
        for end, (name, address) in zip(ENDS, HOSTS.items(), strict=True):
            ip("link", "add", "name", end, "netns", MIDDLE, "type", "veth", "peer", "name", "wire", "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "wire", "up")
            ip("-n", name, "route", "add", "default", "dev", "wire")
            ip("-n", MIDDLE, "link", "set", end, "up")
        if has_netem():
            ip("-n", MIDDLE, "link", "add", "bridge", "type", "bridge")
            ip("-n", MIDDLE, "link", "set", "bridge", "up")
            for end in ENDS:
                ip("-n", MIDDLE, "link", "set", end, "master", "bridge")
                limits = ["netem", "delay", f"{DELAY_MS}ms", "rate", f"{RATE_MBIT}mbit", "limit", "100000"]
                ip("netns", "exec", MIDDLE, "tc", "qdisc", "add", "dev", end, "root", *limits)
            yield "netem"
            return
        arguments = [sys.executable, wire.__file__, *ENDS, str(DELAY_MS), str(RATE_MBIT)]
        command = ["ip", "netns", "exec", MIDDLE, *arguments]
        carrier = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(carrier.kill)
        assert carrier.stdout is not None
        assert carrier.stdout.readline() == "ready\n"
        yield "wire.py"


def in_namespace(folder: Path) -> Path:
    """Write what mpiexec calls in the place of ssh: it starts a command on one of the hosts."""
    script = folder / "on-host.sh"
    names = "\n".join(f"{address}) name={name};;" for name, address in HOSTS.items())
    script.write_text(
        "#!/bin/sh\n"
        'while [ "${1#-}" != "$1" ]; do shift; done\n'  # options of ssh
        f"case $1 in\n{names}\nesac\n"
        "shift\n"
        'exec ip netns exec $name unshare --uts sh -c "hostname $name && exec $*"\n'
    )
    script.chmod(0o755)
    return script


def on_hosts(folder: Path, *arguments: object) -> tuple[int, str, str]:
    """Run mpiexec on the first host, with a rank on each."""
    first, *_ = HOSTS.values()
    options = ["-localhost", first, "-hosts", ",".join(HOSTS.values())]
    launcher = ["-launcher", "ssh", "-launcher-exec", str(in_namespace(folder))]
    variables = [word for name, value in SOCKETS.items() for word in ("-genv", name, value)]
    command = ["ip", "netns", "exec", next(iter(HOSTS)), launch.mpiexec(), *options, *launcher, *variables]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=folder,
        env=launch.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=launch.SECONDS,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def received_by(host: str) -> int:
    """Return the bytes that have come over the wire to a host."""
    shown = subprocess.run(
        ["ip", "-n", host, "-j", "-s", "link", "show", "wire"], check=True, capture_output=True, text=True
    )
    [link] = json.loads(shown.stdout)
    return int(link["stats64"]["rx"]["bytes"])


def test_promise_20_losses_over_a_network_are_those_of_one_process(
    tmp_path: Path, hosts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = on_hosts(tmp_path, *launch.python(2, "-m", "tests.distributed.losses"))
    assert (status, err) == (0, "")
    found = json.loads(out)
    for kind in KINDS:
        for rule in OPTIMIZERS:
            want = losses(Alone(), kind, rule)
            np.testing.assert_allclose(
                found["losses"][f"{kind} {rule}"], want, rtol=1e-5 if rule == "sgd" else 1e-4, err_msg=f"{kind} {rule}"
            )
    for host in HOSTS:
        assert received_by(host) > found["received"]  # all of it, and the headers; else memory was shared
    with capsys.disabled():
        print(f"\n    two hosts, {DELAY_MS} ms and {RATE_MBIT} Mbit/s by {hosts}", end=" ")


def test_promise_20_a_run_on_two_hosts_names_them_and_resumes_on_one(tmp_path: Path, hosts: str) -> None:
    from tests.runs import flags, window_options, write_text

    write_text(tmp_path)
    arguments = ["story.txt", *flags(window_options()), "--out", "run"]
    status, out, err = on_hosts(tmp_path, *launch.train(2, *arguments))
    assert (status, err) == (0, "")
    assert " in each of 2 ranks on 2 machines" in out
    status, out, err = launch.finished(*launch.train(1, *arguments, "--resume", "--steps", 35), folder=tmp_path)
    assert (status, err) == (0, "")
    assert "resuming  after step 30" in out
