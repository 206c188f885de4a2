#!/usr/bin/env python3
"""A member of a run that believes nobody: it fetches what each round is made of, and computes it again, bit by bit.

    python3 tools/swarm_auditor.py --coordinator HOST:PORT --run NAME

It is written from docs/formats alone and shares nothing with the program. It registers as a node without a data port, so
that it receives results and contributes nothing, and asks each contributor for what it contributed while the round is open. It follows
whoever coordinates; HOST:PORT is what the run's config says. Runs with `swarm.security none` only. A JSON line per event; it ends with a summary when it is told to (SIGTERM):
  audited     of a round: fragment, round, digest of the state after it, chunks, and of those `unchecked`, whose parts were not all
              to be had; their headers, digests and what becomes of them are checked all the same
  finding     kind (wrong_sum, wrong_weight, wrong_digest, counted_twice, damaged) and text
  unaudited   of a round that was committed before this member had it
  state       it took over a state: fragment, version; and whether it had to fetch blocks
"""

import argparse
import asyncio
import hashlib
import json
import random
import signal
import sys
from array import array

import swarm_wire
from swarm_evidence import Audit, Counted, Evidence, Finding
from swarm_links import Links, NotThere, insist, receive, within
from swarm_round import Rules, State, outer_step
from swarm_search import Search
from swarm_wire import CONTRIBUTION, DIGEST_UNKNOWN, NO_VERSION, PAST, PROTOCOL, RESULT, STATE, frame, run_hash


class OpenRound:
    """One that is open: fetches all that it is made of. `on_complete` is called once per attempt, when all of it is there, or when the
    results are and the rest has not come within `lead` seconds: others do not wait for this member for long."""

    def __init__(self, opened, links, lead, on_complete):
        self.opened, self.links, self.lead, self.on_complete = opened, links, lead, on_complete
        self.told, self.timer = -1, None
        self.evidence = Evidence(opened)
        self.authority = {**opened.authority(), "chunk": 0}
        self.attempts = [opened.attempt] * len(self.evidence.owners)
        self.tasks = {}
        for chunk in range(len(self.attempts)):
            self.want_result(chunk)
            for index in self.reachable(opened.contributors):
                self.tasks[chunk, index] = asyncio.ensure_future(self.fetch_contribution(chunk, index))

    @staticmethod
    def reachable(contributors):
        """Nobody can dial the others, and this member listens nowhere: chunks that have their parts stay unchecked."""
        return [index for index, one in enumerate(contributors) if one["data"][0]]

    def name(self, chunk):
        return {**self.authority, "attempt": self.attempts[chunk], "chunk": chunk}

    def want_result(self, chunk):
        if chunk in self.tasks:
            self.tasks[chunk].cancel()
        self.evidence.results.pop(chunk, None)
        self.tasks[chunk] = asyncio.ensure_future(self.fetch_result(chunk))

    async def fetch_contribution(self, chunk, index):
        contributor = self.opened.contributors[index]
        data = await insist(self.links.fetch, contributor["data"], CONTRIBUTION, **self.name(chunk))
        self.evidence.take_contribution(chunk, index, data)
        self.look()

    async def fetch_result(self, chunk):
        owner = self.opened.contributors[self.evidence.owners[chunk]]
        data = await insist(self.links.fetch, owner["data"], RESULT, **self.name(chunk))
        self.evidence.results[chunk] = bytes([RESULT]) + data
        self.look()

    def reown(self, message):
        self.stop_timer()
        self.authority["attempt"] = message.attempt
        self.evidence.excluded |= {entry["peer"] for entry in message.excluded}
        for chunk, owner in enumerate(message.owners):
            if owner["index"] != 255:
                self.evidence.move(chunk, owner["index"])
                self.attempts[chunk] = message.attempt
                self.want_result(chunk)
        self.look()

    def look(self):
        """Who is out of the round may be dead: nobody waits for what he contributed."""
        needed = [index for index, one in enumerate(self.opened.contributors) if one["peer"] not in self.evidence.excluded]
        chunks = range(len(self.attempts))
        if any(chunk not in self.evidence.results for chunk in chunks):
            return
        if all((chunk, index) in self.evidence.contributions for chunk in chunks for index in needed):
            self.tell()
        elif not self.timer:
            self.timer = asyncio.get_running_loop().call_later(self.lead, self.tell)

    def tell(self):
        self.stop_timer()
        if self.told < self.authority["attempt"]:
            self.told = self.authority["attempt"]
            self.on_complete(self)

    def stop_timer(self):
        if self.timer:
            self.timer.cancel()
        self.timer = None

    def is_told(self):
        return self.told == self.authority["attempt"]

    def close(self):
        self.stop_timer()
        for task in self.tasks.values():
            task.cancel()


class Auditor:
    def __init__(self, coordinator, run, name, say):
        host, port = coordinator.rsplit(":", 1)
        self.run, self.name, self.say = run_hash(run), name, say
        self.search = Search((host, int(port)), self.hello, self.is_newest)
        self.node_key = random.getrandbits(63) | 1
        self.links = Links(self.run)
        self.rules, self.config = None, bytes(32)
        self.states = {}  # By fragment.
        self.terms = {}   # By fragment: in which term its state was known to be the majority's.
        self.rounds = {}  # By fragment: the open one.
        self.undecided = {}  # By fragment: one that ended without a Commit for us when its results were here, and whether we had said so.
        self.counted = Counted()
        self.totals = {"rounds": 0, "unaudited": 0, "chunks": 0, "unchecked": 0, "findings": 0}
        self.peer, self.term, self.epoch, self.step, self.samples, self.progress = swarm_wire.NOBODY, 0, 0, 0, 0, 0
        self.coordinator = 0  # Whose term it is.
        self.last = {"last_term": 0, "last_epoch": 0, "last_member_count": 0, "last_electorates": []}
        self.writer, self.tasks, self.fragment_count, self.interval = None, [], 1, 1.0

    def report(self, findings):
        for finding in findings:
            self.totals["findings"] += 1
            self.say(event="finding", kind=finding.kind, text=finding.text)

    # -- Its life.

    async def live(self):
        while True:
            try:
                await self.attend()
            except (OSError, EOFError, ValueError) as error:
                self.say(event="lost", reason=str(error) or type(error).__name__)
            finally:
                self.leave_rounds()
            await asyncio.sleep(0.2)  # Before it dials again.

    def leave_rounds(self):
        for task in self.tasks:
            task.cancel()
        for fragment in list(self.rounds):
            self.give_up_round(fragment, False)
        for fragment, (evidence, _) in self.undecided.items():  # The next coordinator may not know of it.
            self.undecided[fragment] = (evidence, False)
        self.tasks = []
        self.links.close()
        if self.writer:
            self.writer.transport.abort()
            self.writer = None

    def hello(self, is_home):
        # It says that it has no state, so that a run never goes on from what only this member has.
        nothing = [{"version": NO_VERSION, "digest": DIGEST_UNKNOWN}] * self.fragment_count
        return frame("Hello", self.run, term=self.term, protocol=PROTOCOL, node_key=self.node_key, node_name=self.name, config=self.config,
                     listen=("", 0), step=0, samples=self.samples, states=nothing, **self.last,
                     remembers=self.last["last_term"] > 0, coordinator=self.coordinator, is_home=is_home, was_reachable=1, held=[])

    def is_newest(self, welcome):
        """Nobody goes back to a coordinator that came before one that he has followed, nor from one of two with one term to the other."""
        is_another = self.coordinator not in (0, welcome.coordinator)
        return welcome.term > self.term or (welcome.term == self.term and not is_another)

    async def attend(self):
        """From Hello to the link's end."""
        found = await self.search.find()
        self.writer = found.writer
        if found.message.name == "Reject":
            return self.on_reject(found.message)
        self.on_Welcome(found.message)
        silence = found.message.dead_after_ms / 1000
        while True:
            message = await within(silence, receive(found.reader))
            self.term = max(self.term, message.term)
            if message.name == "Reject":
                return self.on_reject(message)
            getattr(self, "on_" + str(message.name), lambda _: None)(message)

    def tell(self, message, **values):
        if self.writer:
            self.writer.write(frame(message, self.run, **{"source": self.peer, "epoch": self.epoch, **values}))

    async def beat(self):
        while True:
            self.tell("Heartbeat", step=self.step, loss=1.0, progress=self.progress, owes_contribution=0, owes_result=0, silent=0,
                      unreachable=0, lacks=0)
            await asyncio.sleep(self.interval)  # A heartbeat has an interval.

    def on_reject(self, message):
        """The first Hello is refused, and so tells the run's config."""
        if not message.shared_config or self.rules:
            raise ConnectionError(message.reason)
        self.rules = Rules(message.shared_config)
        self.config = hashlib.sha256(message.shared_config.encode()).digest()
        self.fragment_count = len(self.rules.elements)

    def on_Welcome(self, message):
        self.peer = self.links.peer = message.peer
        self.term, self.coordinator, self.epoch = message.term, message.coordinator, 0
        self.interval = message.heartbeat_interval_ms / 1000
        self.tasks.append(asyncio.ensure_future(self.beat()))

    def on_Membership(self, message):
        self.epoch = message.epoch
        self.last = {"last_term": message.term, "last_epoch": message.epoch, "last_member_count": len(message.members),
                     "last_electorates": message.electorates}
        self.search.places = [one["data"] for one in message.members if one["is_reachable"]]

    def on_Samples(self, message):
        """The number only grows, or the coordinator is a new one that knew less."""
        self.samples = max(self.samples, message.first + message.count)

    # -- Rounds.

    def on_Open(self, message):
        self.close_round(message.fragment)
        self.rounds[message.fragment] = OpenRound(message, self.links, self.interval, self.on_complete)

    def on_Reown(self, message):
        one = self.rounds.get(message.fragment)
        if not one or one.evidence.round != message.round:
            return
        one.reown(message)

    def on_Abort(self, message):
        self.close_round(message.fragment)

    def close_round(self, fragment):
        one = self.rounds.pop(fragment, None)
        if one:
            one.close()
        return one

    def give_up_round(self, fragment, is_told):
        """The run may have committed it without this member: then it is judged by what others keep of it."""
        one = self.close_round(fragment)
        if len(one.evidence.results) == len(one.attempts):
            self.undecided[fragment] = (one.evidence, is_told)

    def on_complete(self, one):
        self.progress += 1
        self.tell("Done", **one.authority, results=one.evidence.results_digest())

    def on_Commit(self, message):
        fragment, one = message.fragment, self.close_round(message.fragment)
        if not one or one.evidence.round != message.round:
            raise ValueError("a commit of what this member does not hold")
        one.evidence.digest = message.results
        state = self.states[fragment] = self.judge(one.evidence, self.states[fragment], message.step)
        self.step = max(self.step, message.step)
        self.tell("Applied", round=message.round, fragment=fragment, digest=state.digest(fragment))

    def judge(self, evidence, before, step):
        """Says what is to be said of a round; the state after it."""
        audit = Audit(self.rules, evidence, before, self.counted)
        self.report(audit.findings)
        state, refused = outer_step(self.rules, evidence.fragment, before, evidence.encoded_results(), step)
        self.totals["rounds"] += 1
        self.totals["chunks"] += len(refused)
        self.totals["unchecked"] += audit.unchecked
        self.say(event="audited", fragment=evidence.fragment, round=evidence.round, digest=state.digest(evidence.fragment).hex(),
                 chunks=len(refused), members=len(evidence.contributors), unchecked=audit.unchecked, refused=sum(refused))
        return state

    # -- Catching up.

    def on_CatchUp(self, message):
        for fragment, one in list(self.rounds.items()):
            self.give_up_round(fragment, one.is_told() and message.states[fragment]["version"] >= one.evidence.round)
        for task in self.tasks[1:]:
            task.cancel()
        self.tasks[1:] = [asyncio.ensure_future(self.catch_up(message))]

    async def catch_up(self, message):
        states = []
        for fragment, wanted in enumerate(message.states):
            await self.bring(fragment, wanted, [donor["data"] for donor in message.donors if donor["data"][0]], message.term)
            states.append({"version": wanted["version"], "digest": self.states[fragment].digest(fragment)})
        self.step = message.step
        self.tell("Synced", states=states)

    def judge_own(self, fragment, wanted, term):
        """What this member has, unless it is of no use."""
        state = self.states.get(fragment)
        if not state or state.version > wanted["version"]:
            return None
        is_wrong = wanted["digest"] not in (DIGEST_UNKNOWN, state.digest(fragment))
        if state.version < wanted["version"] or not is_wrong:
            return state
        if self.terms.get(fragment) == term:
            self.report([Finding("wrong_digest", f"the state that version {state.version} of fragment {fragment} makes is not the majority's")])
        return None

    async def bring(self, fragment, wanted, donors, term):
        """The state of this version, with the results of the rounds that were missed where they are kept."""
        version, turn = wanted["version"], 0
        state = self.judge_own(fragment, wanted, term)
        while True:
            while state and state.version < version:
                state = await self.replay(fragment, state, donors)
            is_right = state and state.version == version and wanted["digest"] in (DIGEST_UNKNOWN, state.digest(fragment))
            if is_right:
                break
            turn += 1
            state = await self.fetch_state(fragment, donors[turn % len(donors):] + donors[:turn % len(donors)])
            await asyncio.sleep(0.05)  # Where the donors are ahead, the coordinator names a newer version soon.
        if turn and fragment in self.states:  # The run has left what this member had.
            self.counted.go_back(fragment, min(version, self.states[fragment].version) - 1)
        self.states[fragment] = state
        self.terms[fragment] = None if wanted["digest"] == DIGEST_UNKNOWN else term
        self.say(event="state", fragment=fragment, version=version, is_fetched=turn > 0)

    async def from_any(self, donors, kind, **name):
        for donor in donors:
            try:
                return await self.links.fetch(donor, kind, **name)
            except (NotThere, OSError):
                continue
        raise NotThere

    async def replay(self, fragment, state, donors):
        """The state after one round more; None where nobody keeps that round any more."""
        number, results, step = state.version + 1, [], 0
        try:
            for chunk in range(len(self.rules.chunks(fragment))):
                data = await self.from_any(donors, PAST, round=number, fragment=fragment, chunk=chunk)
                step = int.from_bytes(data[:8], "little")
                results.append(None if data[8] else data[9:])
        except NotThere:
            return None
        evidence, is_told = self.undecided.pop(fragment, (None, False))
        if evidence and evidence.round == number and self.is_committed(evidence, results, is_told):
            evidence.digest = evidence.results_digest()
            return self.judge(evidence, state, step)
        self.totals["unaudited"] += 1
        self.say(event="unaudited", fragment=fragment, round=number)
        return outer_step(self.rules, fragment, state, results, step)[0]

    def is_committed(self, evidence, results, is_told):
        """Whether what this member was given is what others keep. Who has said that it holds the results of a round, and has heard of no
        other owner since, holds those that are committed."""
        is_same = all(kept in (None, given) for kept, given in zip(results, evidence.encoded_results()))
        if is_told and not is_same:
            self.report([Finding("wrong_digest", f"round {evidence.round} of fragment {evidence.fragment}: an owner gave this member another "
                                                 "result than the one that was committed")])
        return is_same

    async def fetch_state(self, fragment, donors):
        """Blocks come at whatever version their donor has; None if not all have the same."""
        versions, parameters, momentum = set(), array("f"), array("f")
        for block, (_, count) in enumerate(self.rules.blocks(fragment)):
            try:
                data = await self.from_any(donors, STATE, fragment=fragment, chunk=block)
            except NotThere:
                return None
            versions.add(int.from_bytes(data[:8], "little"))
            parameters.frombytes(data[8:8 + 4 * count])
            momentum.frombytes(data[8 + 4 * count:])
        return State(versions.pop(), parameters, momentum) if len(versions) == 1 else None


def say(**values):
    print(json.dumps(values), flush=True)


async def run(arguments):
    auditor = Auditor(arguments.coordinator, arguments.run, arguments.name, say)
    life = asyncio.ensure_future(auditor.live())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, life.cancel)
    try:
        await life
    except asyncio.CancelledError:
        pass
    say(event="summary", **auditor.totals)
    return 1 if auditor.totals["findings"] else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coordinator", required=True, metavar="HOST:PORT")
    parser.add_argument("--run", required=True, metavar="NAME", help="the run's name, as its config has it")
    parser.add_argument("--name", default="auditor", help="by which others know it")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
