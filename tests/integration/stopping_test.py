"""How a process ends: by which signals, how soon, and that the log says why."""

import pathlib
import signal
import socket
import subprocess
import sys
import threading
import unittest

from cluster import ATOLL, ClusterTest, DEADLINE_SECONDS, wait_until

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from swarm_wire import frame, receive  # noqa: E402

FOREVER = {"training__steps": 1000000}


def on_hangup(action):
    """For Popen. Whether the tests themselves run under nohup is inherited otherwise."""
    return {"preexec_fn": lambda: signal.signal(signal.SIGHUP, action)}


class SparingCoordinator:
    """Takes one node in, hands out samples once, and can tell it to fetch a state that nobody brings."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.donor = socket.create_server(("127.0.0.1", 0))  # Never answers.
        self.address = "127.0.0.1:%d" % self.server.getsockname()[1]
        self.control, self.hello, self.has_handed_out = None, None, False
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            self.control, _ = self.server.accept()
            while True:
                message = receive(self.control)
                getattr(self, f"on_{message.name}", lambda _: None)(message)
        except OSError:
            pass

    def tell(self, name, **values):
        self.control.sendall(frame(name, self.hello.run, term=1, epoch=1, **values))

    def on_Hello(self, message):
        self.hello = message
        self.tell("Welcome", peer=0, heartbeat_interval_ms=200, dead_after_ms=600_000, coordinator=1)
        self.tell("CatchUp", states=message.states, donors=[], step=0)

    def on_Synced(self, _):
        self.tell("Start", step=0, samples_void_below=0)

    def on_NeedSamples(self, message):
        if not self.has_handed_out:
            self.tell("Samples", first=0, count=message.count)
        self.has_handed_out = True

    def replace_state(self):
        states = [{"version": 7, "digest": bytes(range(32))} for _ in self.hello.states]
        self.tell("CatchUp", states=states, donors=[{"peer": 1, "data": self.donor.getsockname(), "node_key": 0}], step=35)

    def close(self):
        for one in (self.server, self.donor, self.control):
            if one:
                one.close()


class StoppingTest(ClusterTest):
    def test_a_state_that_is_half_replaced_is_not_saved(self):
        coordinator = SparingCoordinator()
        self.addCleanup(coordinator.close)
        self.address = coordinator.address
        # All samples are used up where the fragment is due, and its round may run beside further steps.
        node = self.start_node("run", outer__overlap_steps=1, outer__overlap_steps_max=3, swarm__security="none", **FOREVER)

        def heard(text):
            wait_until(lambda: node.is_over() or text in node.tail(), lambda: f"{text}:\n{node.tail()}")
            self.assertFalse(node.is_over(), node.tail())

        heard("waiting at step 5 for samples")
        coordinator.replace_state()
        heard("fetching the state in force; own progress is kept")
        node.signal(signal.SIGTERM)
        self.assertEqual(node.finish(), 3, node.tail())
        self.assertIn("stopped before it was complete", node.tail())
        self.assertEqual(node.lines("checkpoint"), [])

    def test_a_lost_terminal_saves_and_leaves(self):
        node = self.start_node("run", solo=True, **FOREVER, popen=on_hangup(signal.SIG_DFL))
        node.wait_for_step(2)
        node.signal(signal.SIGHUP)
        self.assertEqual(node.finish(), 0, node.tail())
        self.assertEqual(node.lines("checkpoint")[-1]["step"], node.lines("summary")[-1]["step"])
        self.assertIn("stopped by a signal", (node.directory / "log.txt").read_text())

    def test_under_nohup_a_lost_terminal_is_nothing(self):
        node = self.start_node("run", solo=True, **FOREVER, popen=on_hangup(signal.SIG_IGN))
        step = node.wait_for_step(2) and node.lines("inner_step")[-1]["step"]
        node.signal(signal.SIGHUP)
        node.wait_for_step(step + 3)
        self.assertFalse(node.is_over(), node.tail())

    def test_the_reason_of_an_error_is_in_the_log(self):
        node = self.start_node("run", solo=True, **FOREVER, node__run_directory=self.folder / "run")
        node.wait_for_step(2)
        (node.directory / "checkpoints").write_text("no folder can be made here")
        node.signal(signal.SIGTERM)
        self.assertEqual(node.finish(), 3, node.tail())
        self.assertIn("the node ends: cannot create the folder", (node.directory / "log.txt").read_text())

    def test_a_name_may_look_like_a_number(self):
        node = self.start_node("run", solo=True, training__steps=2, node__name="12345678")
        self.assert_finished(node)
        self.assertEqual({line["node"] for line in node.lines()}, {"12345678"})

    def test_without_validation_data_there_is_no_loss(self):
        node = self.start_node("run", solo=True, training__steps=2, data__validation_fraction=0)
        self.assert_finished(node)
        summary = node.lines("summary")[-1]
        self.assertIsNone(summary["validation_loss_before"])
        self.assertIsNone(summary["validation_loss_after"])

    def test_ctrl_c_ends_commands_that_have_nothing_to_save(self):
        node = self.start_node("run", solo=True, training__steps=2, model__sequence_length=256,
                               training__batch_rows=2, training__micro_batch_rows=2)
        self.assert_finished(node)
        run, corpus = str(node.directory), str(self.folder / "corpus")
        commands = {
            "generate": ["generate", "--checkpoint", run, "--tokens", "1000000000", "--prompt", "int"],
            "evaluate": ["evaluate", "--checkpoint", run, "--data", corpus, "--rows", "1000000000"],
            "bench": ["bench", "step", "--config", str(self.config), "--steps", "1000000000"],
            "inspect": ["inspect", "checkpoint", run],
        }
        for name, command in commands.items():
            child = subprocess.Popen([ATOLL, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            if name == "generate":
                child.stdout.read(4)  # It is at work: it has written more than its prompt.
            wait_until(lambda: child.poll() is not None or signal_is_in(child, "SigIgn", signal.SIGPIPE), f"{name} to start")
            if child.poll() is None:
                self.assertFalse(signal_is_in(child, "SigCgt", signal.SIGINT), f"{name} catches Ctrl-C")
            child.send_signal(signal.SIGINT)
            child.stdout.read()
            self.assertIn(child.wait(timeout=DEADLINE_SECONDS), [0, -signal.SIGINT], name)
            child.stdout.close()


def signal_is_in(child, field, number):
    """Whether the kernel has the signal in that mask of the process."""
    for line in pathlib.Path(f"/proc/{child.pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1], 16) >> (number - 1) & 1 == 1
    return False


class FinishedTest(ClusterTest):
    def test_a_node_that_had_finished_needs_nobody_when_it_is_started_again(self):
        run = {"training__steps": 20, "swarm__fail_over": "false", "swarm__coordinator_patience_seconds": 1, "swarm__dead_seconds": 1}
        coordinator = self.start_coordinator(**run)
        self.assert_finished(self.start_node("a", **run))
        coordinator.finish()
        again = self.start_node("a", **run)
        self.assert_finished(again)
        self.assertIn("All steps were done before", again.tail())
        # One that has steps to do does need the others.
        longer = self.start_node("b", **run)
        self.assertEqual(longer.finish(), 3, longer.tail())


if __name__ == "__main__":
    unittest.main()
