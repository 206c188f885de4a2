"""The node that coordinates is killed, or stopped, and the others go on without it."""

import json
import signal
import socket
import time
import unittest

from cluster import ClusterTest


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class FailOverTest(ClusterTest):
    def start(self, name, **settings):
        """The first one listens where the run's coordinator is said to be."""
        settings = {"training__steps": 100_000, "swarm__ready_grace_seconds": 3, "swarm__fail_over": "true",
                    "swarm__coordinator_patience_seconds": 120, **settings}
        if name == "a":
            settings["node__listen"] = self.address
        return self.start_node(name, **settings)

    def start_all(self, names, **settings):
        self.address = f"127.0.0.1:{free_port()}"
        nodes = {name: self.start(name, swarm__start_members=len(names), **settings) for name in names}
        for node in nodes.values():
            node.wait_for_round(3)
        return nodes

    def last_round(self, node):
        return max(line["round"] for line in node.lines("round"))

    def assert_goes_on(self, nodes):
        for node in nodes:
            node.wait_for_round(self.last_round(node) + 3)

    def test_another_node_coordinates_when_the_first_is_killed_and_it_comes_back_as_a_member(self):
        nodes = self.start_all("abc")
        nodes["a"].kill()
        killed_at = time.monotonic()
        self.assert_goes_on([nodes["b"], nodes["c"]])
        print(f"three rounds {time.monotonic() - killed_at:.1f} s after the coordinator was killed")
        nodes["a"] = self.start("a", swarm__start_members=3)
        nodes["a"].wait_for_round(self.last_round(nodes["b"]) + 3)
        self.assert_digests_agree(nodes.values(), at_least=6)
        logs = {name: (node.directory / "swarm.json").read_text() for name, node in nodes.items()}
        terms = {name: json.loads(log)["term"] for name, log in logs.items()}
        self.assertEqual(len(set(terms.values())), 1, terms)

    def test_a_node_that_is_stopped_hands_the_run_over(self):
        for names in ("ab", "abc"):
            with self.subTest(names):
                self.folder = self.folder / names
                self.folder.mkdir()
                nodes = self.start_all(names)
                nodes["a"].signal(signal.SIGTERM)
                self.assertEqual(nodes["a"].finish(), 0, nodes["a"].tail())
                self.assert_goes_on([node for name, node in nodes.items() if name != "a"])
                for node in nodes.values():
                    if not node.is_over():
                        node.kill()

    def test_of_two_nodes_the_tie_breaker_goes_on(self):
        nodes = self.start_all("ab", swarm__tie_breaker="b")
        nodes["a"].kill()
        self.assert_goes_on([nodes["b"]])


if __name__ == "__main__":
    unittest.main()
