"""The cases of a swarm trial. Each gets a Trial (swarm_case.py); its docstring says what is bad in it."""

import os
import pathlib
import re
import resource
import shutil
import signal
import socket

from cluster import TINY
from swarm_case import HEALTHY
from swarm_peer import FakePeer, overhear_hello
from swarm_proxy import Proxy, listening_port
from swarm_wire import STATE, frame, run_hash

RUN = run_hash(TINY["name"])
CASES = {}


def node_number(directory):
    """By which others know the node; its file says it beside the public key."""
    return int(re.search("^# [0-9a-f]{64} ([0-9a-f]{16})$", (directory / "node_key").read_text(), re.MULTILINE)[1], 16)


def case(function):
    CASES[function.__name__] = function
    return function


@case
def healthy(trial):
    """Three nodes and nobody else: what the others are compared with."""
    trial.start()
    trial.begin()
    trial.go_on()
    trial.expect(not trial.left_out(), "that nobody is left out")


@case
def unreachable(trial):
    """One node names a port at which nobody listens, another one the port of a healthy node: they dial the others."""
    trial.start()
    trial.begin()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        bad = [trial.start_bad("closed", node__advertise="127.0.0.1:%d" % closed.getsockname()[1]),
               trial.start_bad("stolen", node__advertise="127.0.0.1:%d" % listening_port(trial.healthy[0].process.pid))]
        trial.wait(lambda: all(node.lines("standing") and node.lines("round") for node in bad), "notices and results of both")
        trial.go_on()
    for node, why in zip(bad, (r"dials the others.*cannot be dialled.*refused", r"dials the others.*another program answers there")):
        name = node.directory.name
        trial.expect(any(re.search(why, line["reason"]) for line in node.lines("standing")), f"that {name} is told '{why}'")
        trial.expect(node.lines("round")[-1]["contributed"], f"that {name} contributes")


def behind_proxy(trial, name, bytes_per_second):
    proxy = Proxy(bytes_per_second)
    trial.proxies.append(proxy)
    node = trial.start_bad(name, node__advertise=proxy.address)
    proxy.node_port = lambda: listening_port(node.process.pid)
    return proxy


def bad_line(trial, name, bytes_per_second):
    trial.start()
    trial.begin()
    proxy = behind_proxy(trial, name, bytes_per_second)
    trial.wait_for_log(f"goes on without {name}")
    trial.go_on()
    trial.facts["data links"] = proxy.swallowed
    trial.expect_left_out(name, "does not deliver its contribution")


@case
def mute(trial):
    """A node joins that does all that the coordinator asks, and gives nobody a chunk."""
    bad_line(trial, "mute", 0)


@case
def mute_first(trial):
    """The same node was there before all others, so that it owns chunks of each round."""
    trial.start_coordinator(swarm__start_members=4)
    behind_proxy(trial, "mute", 0)
    trial.wait_for_log("mute registered")
    trial.start_healthy()
    trial.begin(after_rounds=1)
    trial.go_on()
    trial.expect_left_out("mute", "does not deliver")


@case
def slow(trial):
    """A node gives its chunks at 500 bytes per second: each takes many seconds, and bytes come all the time."""
    bad_line(trial, "slow", 500)


def fake(trial, name, **lies):
    """A FakePeer beside the healthy nodes. What a node says first is learnt once per trial."""
    if not hasattr(trial, "overheard"):
        trial.overheard = overhear_hello(lambda address: trial.start_node("overheard", swarm__coordinator=address).process)
    return trial.start_fake(FakePeer(name, trial.address, trial.overheard, **lies))


@case
def liar_version(trial):
    """A fake has version 10^9 of the state; another one's is as far ahead as the steps that it names allow."""
    trial.start(swarm__start_grace_seconds=3)
    trial.begin()
    digest = bytes([7] * 32)
    far = fake(trial, "far", hello={"states": [{"version": 10**9, "digest": digest}]})
    trial.wait(lambda: far.is_over, "the end of the one far ahead")
    near = fake(trial, "near", hello={"states": [{"version": 10**5, "digest": digest}], "step": 5 * 10**5})
    trial.wait(lambda: near.is_over, "the end of the one not so far ahead")
    trial.go_on()
    trial.expect(any("no node of this run can have" in reason for reason in far.reasons()), "that 10^9 is called impossible")
    trial.expect(any("swarm.adopt_newer" in reason for reason in near.reasons()), "that the operator's word is asked for")
    trial.expect(max(node.last_round() for node in trial.healthy) < 10**5, "versions that were made")


@case
def liar_step(trial):
    """A fake member says that it is at step 10^12."""
    trial.start()
    trial.begin()
    liar = fake(trial, "liar", ready={"step": 10**12})
    trial.wait(lambda: liar.is_over, "the end of the liar")
    trial.go_on()
    trial.expect_left_out("liar", r"it says that it is at step 1000000000000")


@case
def liar_weight(trial):
    """A fake member says that it trained on 2^56 tokens."""
    trial.start()
    trial.begin()
    liar = fake(trial, "liar", ready={"weight_tokens": 2**56})

    def rounds_with_it():
        return [line for line in trial.healthy[0].lines("round") if liar.peer in line["members"]]

    trial.wait(lambda: len(rounds_with_it()) >= 3, "three rounds with the liar")
    trial.go_on()
    trial.expect_left_out("liar", "says that it trained on")
    trial.facts["rounds with it"] = len(rounds_with_it())
    trial.facts["largest weight"] = max(line["weight_tokens"] for line in rounds_with_it())
    trial.facts["usual weight"] = trial.healthy[0].lines("round")[0]["weight_tokens"]
    trial.expect(trial.facts["largest weight"] <= 32 * trial.facts["usual weight"], "a weight of no more than 16 nodes' for the liar")


@case
def liar_scale(trial):
    """A fake member contributes numbers of 10^36."""
    trial.start()
    trial.begin()
    liar = fake(trial, "liar", scale=1e36)

    def outliers():
        """Whoever sums a chunk says who was too far from the others in it."""
        return [outlier["member"] for node in trial.healthy for line in node.lines("round") for outlier in line.get("outliers", [])]

    trial.wait(lambda: len(outliers()) >= 3, "three rounds in which somebody is an outlier")
    trial.go_on()
    trial.facts["times"] = len(outliers())
    trial.expect(set(outliers()) == {liar.peer}, "that nobody but the liar is an outlier")


@case
def liar_garbage(trial):
    """A fake member contributes bytes that are no numbers."""
    trial.start()
    trial.begin()
    liar = fake(trial, "liar", scale=float("nan"))
    trial.wait_for_log("goes on without liar")
    trial.go_on()
    trial.expect_left_out("liar", "does not deliver its contribution")


@case
def liar_crowd(trial):
    """Two fake members, fewer than the healthy ones, say with one voice after each round that the state is another one."""
    trial.start()
    trial.begin()
    crowd = set()
    liars = [fake(trial, name, digest=bytes([7] * 32), crowd=crowd) for name in ("liar1", "liar2")]
    for liar in liars:
        trial.wait_for_log(f"{liar.name} must catch up")
    trial.go_on()
    trial.facts["times"] = {liar.name: trial.log().count(f"{liar.name} must catch up") for liar in liars}


@case
def liar_replay(trial):
    """Somebody says a healthy node's Hello again and again."""
    trial.start()
    trial.begin()
    key = node_number(trial.folder / "a")
    for _ in range(5):
        copy = fake(trial, "a", hello={"node_key": key})
        trial.wait(lambda: copy.is_over, "the end of the copy")
        trial.expect(any("is in use" in reason for reason in copy.reasons()), "that a living node's key is in use")
    trial.go_on()
    trial.facts["times"] = len(trial.fakes)


@case
def cloned(trial):
    """A running node's directory is copied, and a node started in the copy."""
    trial.start()
    trial.begin()
    shutil.copytree(trial.folder / "a", trial.folder / "copy")
    copy = trial.start_bad("copy")
    trial.wait(copy.is_over, "the end of the copy")
    trial.go_on()
    trial.expect(copy.process.returncode == 2, "exit code 2 of the copy")
    trial.expect(len(set(re.findall(r"127\.0\.0\.1:\d+", "".join(re.findall(r"is in use.*", copy.log()))))) == 2,
                 "that the copy is told both addresses")


def links_to(trial, victim, count):
    """Data links from several addresses, so that no bound on one of them helps. Those that the victim closes count as well."""
    port, links = listening_port(victim.process.pid), []
    for number in range(count):
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.bind((f"127.0.0.{2 + number % 4}", 0))
        link.connect(("127.0.0.1", port))
        links.append(link)
        trial.proxies.append(link)
        send(link, frame("DataHello", RUN, source=0, peer=0))
    return links


def send(link, data):
    try:
        link.sendall(data)
    except OSError:
        pass  # It was refused, or is full.


def memory_mib(process, which):
    return int(re.search(which + r":\s*(\d+)", pathlib.Path(f"/proc/{process.pid}/status").read_text())[1]) / 1024


@case
def flood_unread(trial):
    """400 links want blocks of a node's state, again and again, and read nothing."""
    trial.start(swarm__stall_seconds=10)  # The node needs a moment to see that they do not read.
    trial.begin()
    victim = trial.healthy[0]
    before = memory_mib(victim.process, "VmRSS")
    wants = frame("Want", RUN, source=0, kind=STATE) * 100
    for link in links_to(trial, victim, 400):
        link.setblocking(False)
        send(link, wants)
    trial.wait(lambda: memory_mib(victim.process, "VmRSS") > before + 8, "blocks that are queued")
    trial.go_on()
    trial.facts["MiB before"] = round(before)
    trial.facts["MiB at most"] = round(memory_mib(victim.process, "VmHWM"))
    trial.expect(memory_mib(victim.process, "VmHWM") < before + 256, "that the victim's memory grows by less than 256 MiB")


@case
def flood_idle(trial):
    """A node may have 256 descriptors, and 400 links take what they get of them and say nothing more."""
    trial.start_coordinator()
    trial.start_healthy(HEALTHY[:1], checkpoint__every_steps=20)
    trial.start_healthy(HEALTHY[1:])
    trial.begin()
    victim = trial.healthy[0]
    resource.prlimit(victim.process.pid, resource.RLIMIT_NOFILE, (256, 256))
    before = len(victim.lines("checkpoint"))
    links_to(trial, victim, 400)
    trial.facts["descriptors"] = len(os.listdir(f"/proc/{victim.process.pid}/fd"))
    trial.wait(lambda: len(victim.lines("checkpoint")) >= before + 2, "two checkpoints")
    trial.go_on()
    trial.facts["checkpoints"] = len(victim.lines("checkpoint"))
    trial.expect(trial.facts["descriptors"] >= 100, "that the flood takes descriptors")


@case
def frozen(trial):
    """A node stands still and moves again later (SIGSTOP, SIGCONT)."""
    trial.start_coordinator(swarm__start_members=4)
    trial.start_healthy()
    stopped = trial.start_bad("frozen")
    trial.begin()
    trial.wait(lambda: any(line["contributed"] for line in stopped.lines("round")), "its contribution")
    stopped.signal(signal.SIGSTOP)
    trial.go_on()
    stopped.signal(signal.SIGCONT)
    last = max(node.last_round() for node in trial.healthy)
    trial.wait(lambda: any(line["round"] > last and line["contributed"] for line in stopped.lines("round")), "that it contributes again")
    trial.expect_left_out("frozen", "silent for|does not (deliver|finish)|registered again|closed by")


@case
def killed(trial):
    """A node is killed in the middle of the run (SIGKILL)."""
    trial.start_coordinator(swarm__start_members=4)
    trial.start_healthy()
    victim = trial.start_bad("killed")
    trial.begin()
    victim.kill()
    trial.go_on()
    trial.expect_left_out("killed", "closed by the other side|connection reset")


@case
def coordinator(trial):
    """The coordinator and a fourth node are killed; it starts again, and most of the last members are enough."""
    trial.start_coordinator(swarm__start_members=4)
    trial.start_healthy()
    victim = trial.start_bad("killed")
    trial.begin()
    trial.coordinators[0].process.kill()
    trial.coordinators[0].process.wait()
    victim.kill()
    before = max(node.last_round() for node in trial.healthy)
    trial.start_coordinator(listen=trial.address, swarm__start_members=4)
    trial.go_on()
    trial.expect(all(min((line["round"] for line in node.lines("round") if line["round"] > before), default=0) <= before + 2
                     for node in trial.healthy), "that the run goes on where it was")
