"""How a process ends: by which signals, how soon, and that the log says why."""

import pathlib
import signal
import subprocess
import unittest

from cluster import ATOLL, ClusterTest, DEADLINE_SECONDS, wait_until

FOREVER = {"training__steps": 1000000}


def on_hangup(action):
    """For Popen. Whether the tests themselves run under nohup is inherited otherwise."""
    return {"preexec_fn": lambda: signal.signal(signal.SIGHUP, action)}


class StoppingTest(ClusterTest):
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


if __name__ == "__main__":
    unittest.main()
