"""Watching a run: the status page and /metrics of a node that trains, `atoll status`, and what stands in the dashboard."""

import html.parser
import http.client
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import cluster
import status_picture
from cluster import ClusterTest, run_atoll, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONG = {"training__steps": 1_000_000}  # Until it is stopped.
NONSENSE = [
    b"\r\n\r\n", b"hello\r\n\r\n", b"\0" * 1000, b"GET", b"GET /metrics HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 50_000 + b" HTTP/1.1\r\n\r\n",
    b"POST /metrics HTTP/1.1\r\nContent-Length: 999999999\r\n\r\nabc", b"GET /../../etc/passwd HTTP/1.1\r\n\r\n",
    b"GET /status.json?x=" + b"%00" * 100 + b" HTTP/1.1\r\n\r\n", b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /metrics HTTP/1.1\r\nRange: bytes=99999999999999999999-\r\n\r\n",
]


def url_of(node):
    def told():
        found = re.search(r"how the run goes: http://([\d.]+):(\d+)/", node.output.read_text(errors="replace"))
        if not found and node.is_over():
            raise AssertionError(f"it ended: {node.tail()}")
        return found

    found = wait_until(told, "the address of the status page")
    return found[1], int(found[2])


def get(address, path, method="GET"):
    connection = http.client.HTTPConnection(*address, timeout=cluster.DEADLINE_SECONDS)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()
    finally:
        connection.close()


def status_of(address):
    status, kind, text = get(address, "/status.json")
    assert (status, kind) == (200, "application/json"), text
    return json.loads(text)


def samples_of(text):
    """Name and labels of each sample, and its value."""
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if not line.startswith("#")}


def told_by_command(*directories):
    done = run_atoll("status", *directories, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


class Page(html.parser.HTMLParser):
    """What a page would load, and whether its elements are closed."""

    VOID = {"meta", "link", "br", "img", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.loads = [], []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.loads += [value for key, value in attributes if key in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"{tag} closes what is not open"


class WatchedRunTest(ClusterTest):
    def start_two(self, **settings):
        self.start_coordinator(swarm__start_members=2, **LONG)
        left = self.start_node("left", node__status_listen="127.0.0.1:0", node__price_per_gb=2.5, swarm__start_members=2, **LONG, **settings)
        right = self.start_node("right", swarm__start_members=2, **LONG)
        return left, right

    def stop(self, *nodes):
        for node in nodes:
            node.signal(signal.SIGTERM)
        self.assert_finished(*nodes)

    def test_page_numbers_and_command_say_what_the_lines_say(self):
        left, right = self.start_two()
        address = url_of(left)
        left.wait_for_round(3)
        wait_until(lambda: status_of(address)["rounds"]["count"] >= 3, "three rounds on the page")
        status, kind, text = get(address, "/metrics")
        self.assertEqual((status, kind), (200, "text/plain; version=0.0.4; charset=utf-8"))
        samples = samples_of(text)
        self.assertEqual(samples['atoll_run_info{run="tiny",node="left",device="%s"}' % left.lines("start")[0]["device"]], 1)
        self.assertGreaterEqual(samples["atoll_rounds_total"], 3)
        self.assertEqual(samples["atoll_members"], 2)
        self.assertEqual(samples["atoll_contributing"], 1)
        self.assertGreater(samples["atoll_round_sent_bytes_total"], 0)
        self.assertTrue(0 < samples["atoll_utilisation_ratio"] <= 1)
        self.assertLessEqual(samples['atoll_step_seconds{quantile="0.5"}'], samples['atoll_step_seconds{quantile="0.99"}'])
        page = status_of(address)
        self.assertEqual((page["run"], page["node"], page["state"], page["steps"]), ("tiny", "left", "training", 1_000_000))
        self.assertEqual(len(page["swarm"]["contributions"]), 2)
        self.assertGreater(page["rounds"]["price"], 0)
        # Another process, while both train, side by side.
        table = run_atoll("status", left.directory, right.directory)
        self.assertEqual(table.returncode, 0, table.stderr)
        self.assertRegex(table.stdout, r"(?m)^node +left +right$")
        self.assertRegex(table.stdout, r"(?m)^state +training +training$")
        self.assertRegex(table.stdout, r"(?m)^members +2, epoch \d+ +2, epoch \d+$")
        self.stop(left, right)
        for node, told in zip((left, right), told_by_command(left.directory, right.directory)):
            steps, rounds = node.lines("inner_step"), node.lines("round")
            summary, = node.lines("summary")
            self.assertEqual(told["directory"], str(node.directory))
            self.assertEqual(told["state"], "stopped")
            self.assertEqual((told["step"], told["loss"]), (steps[-1]["step"], steps[-1]["loss"]))
            self.assertEqual(told["tokens"], sum(line["tokens"] for line in steps))
            self.assertEqual(told["rounds"]["count"], len(rounds))
            self.assertEqual(told["rounds"]["sent_bytes"], sum(line["bytes_sent"] for line in rounds))
            self.assertAlmostEqual(told["rounds"]["exposed_seconds"], sum(line["exposed_seconds"] for line in rounds))
            self.assertEqual(told["utilisation"], summary["utilisation"])
            self.assertEqual(told["rounds"]["last"][-1]["round"], rounds[-1]["round"])
            self.assertEqual(told["unreadable_lines"], 0)

    def test_nonsense_and_slow_browsers_change_nothing(self):
        left, right = self.start_two()
        address = url_of(left)
        left.wait_for_round(1)
        self.assertEqual(get(address, "/nothing")[0], 404)
        self.assertEqual(get(address, "/metrics", "POST")[0], 405)
        for nonsense in NONSENSE:
            with socket.create_connection(address, timeout=cluster.DEADLINE_SECONDS) as caller:
                try:
                    caller.sendall(nonsense)
                    caller.shutdown(socket.SHUT_WR)
                    while caller.recv(65536):
                        pass
                except OSError:
                    pass  # It hung up before all was said.
            self.assertEqual(get(address, "/metrics")[0], 200, nonsense[:60])
        # More than there are threads, which say nothing, or take nothing of their answer.
        held = [socket.create_connection(address, timeout=cluster.DEADLINE_SECONDS) for _ in range(40)]
        for index, caller in enumerate(held):
            if index % 2:
                caller.sendall(b"GET /status.json HTTP/1.1\r\nHost: x\r\n\r\n")
        last = left.lines("round")[-1]["round"]
        left.wait_for_round(last + 3)
        for caller in held:
            caller.close()
        self.assertEqual(status_of(address)["state"], "training")
        self.stop(left, right)
        self.assert_digests_agree([left, right], at_least=3)

    def test_a_node_that_is_started_again_shows_what_was_before(self):
        first = self.start_node("left", solo=True, node__status_listen="127.0.0.1:0", **LONG)
        first.wait_for_step(20)
        self.stop(first)
        done = first.lines("inner_step")[-1]["step"]
        again = self.start_node("left", solo=True, node__status_listen="127.0.0.1:0", **LONG)
        wait_until(lambda: again.is_over() or len(again.lines("start")) == 2 and again.lines("inner_step")[-1]["step"] > done,
                   lambda: "steps of the second process: " + again.tail())
        output = again.output.read_text()
        port = int(re.findall(r"how the run goes: http://127.0.0.1:(\d+)/", output)[-1])
        wait_until(lambda: status_of(("127.0.0.1", port))["step"] > done, "its steps on the page")
        page = status_of(("127.0.0.1", port))
        self.assertEqual(page["starts"], 2)
        self.assertEqual(page["curves"]["loss"][0][0], 1)
        self.assertEqual(page["swarm"]["members"], [])
        self.assertGreaterEqual(page["checkpoints"]["count"], 1)
        steps = [x for x, _ in page["curves"]["loss"]]
        self.assertEqual(steps, sorted(set(steps)))
        self.stop(again)

    def test_addresses(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            refused = self.start_node("refused", solo=True, node__status_listen=f"127.0.0.1:{port}")
            self.assertEqual(refused.finish(), 2, refused.tail())
        self.assertIn(f"cannot listen on 127.0.0.1 port {port}", refused.tail())
        self.assertEqual([path.name for path in refused.directory.iterdir() if path.name != "output.txt"], [])
        wrong = self.start_node("wrong", solo=True, node__status_listen="nonsense")
        self.assertEqual(wrong.finish(), 2)
        self.assertIn("node.status_listen", wrong.tail())
        opened = self.start_node("open", solo=True, node__status_listen="0.0.0.0:0", training__steps=3)
        self.assert_finished(opened)
        self.assertIn("is open to whoever can reach this machine", opened.tail())
        self.assertEqual(told_by_command(opened.directory)[0]["state"], "finished")
        silent = self.start_node("silent", solo=True, training__steps=3)
        self.assert_finished(silent)
        self.assertNotIn("how the run goes", silent.tail())


class StatusCommandTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name, *lines):
        (self.folder / name).mkdir(exist_ok=True)
        with open(self.folder / name / "metrics.jsonl", "ab") as file:
            for line in lines:
                file.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        return self.folder / name

    def test_what_is_not_there(self):
        done = run_atoll("status", self.folder)
        self.assertEqual(done.returncode, 2)
        self.assertIn("no metrics.jsonl", done.stderr)

    def test_torn_lines_and_texts_that_would_move_the_cursor(self):
        base = {"time": "2026-01-31T12:00:00.000Z", "node": "le\x1b[2Jft"}
        directory = self.write("run", {"event": "incident", "what": "lost", "who": "\x1b]0;x\x07", "reason": "a\nb\u009b2J", **base},
                               b'{"event":"inner_st\n', b"\xff\xfe\n",
                               {"event": "inner_step", "step": 3, "loss": 1.25, "seconds": 2, **base}, b'{"event":"round"')
        done = run_atoll("status", directory)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(re.findall(r"[^\n -~\u2581-\u2588]", done.stdout), [])
        self.assertRegex(done.stdout, r"(?m)^loss +1.25$")
        self.assertRegex(done.stdout, r"(?m)^incidents +lost 1$")
        told, = told_by_command(directory)
        self.assertEqual(told["unreadable_lines"], 2)
        self.assertEqual(told["events"][0]["cause"], "a\nb\u009b2J")

    def test_a_coordinators_directory(self):
        (self.folder / "coordinator.jsonl").write_text(json.dumps(
            {"event": "incident", "time": "2026-01-31T12:00:00.000Z", "node": "coordinator", "what": "rejected", "who": "x", "reason": "other config"}))
        with open(self.folder / "coordinator.jsonl", "a") as file:
            file.write("\n")
        self.assertEqual(told_by_command(self.folder)[0]["swarm"]["incidents"], {"rejected": 1})

    def test_a_plot_of_two_runs(self):
        base = {"time": "2026-01-31T12:00:00.000Z", "node": "<n>", "seconds": 1}
        runs = [self.write(name, *({"event": "inner_step", "step": step, "loss": top / step, **base} for step in range(1, 30)),
                           {"event": "evaluation", "step": 29, "validation_loss": 1, **base}) for name, top in (("a", 5), ("b&", 7))]
        picture = self.folder / "plot.svg"
        done = run_atoll("plot", *runs, "--output", picture)
        self.assertEqual(done.returncode, 0, done.stderr)
        root = xml.etree.ElementTree.fromstring(picture.read_text())
        lines = [line.get("points").split() for line in root.iter("{http://www.w3.org/2000/svg}polyline")]
        self.assertEqual(sorted(len(line) for line in lines), [1, 1, 29, 29])  # No round: no utilisation.
        self.assertIn(f"{runs[1]}: <n> of , step 29", "".join(root.itertext()))
        self.assertEqual(run_atoll("plot", self.folder / "none", "--output", picture).returncode, 2)
        self.assertEqual(run_atoll("plot", *runs, "--output", self.folder / "none" / "plot.svg").returncode in (2, 3), True)
        self.assertEqual(run_atoll("plot", *runs).returncode, 2)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["a", "b&", "plot.svg"])

    def test_it_follows_what_comes(self):
        directory = self.folder / "later"
        command = subprocess.Popen([cluster.ATOLL, "status", str(directory), "--follow", "--json"], stdout=subprocess.PIPE, text=True)
        try:
            self.assertEqual(json.loads(command.stdout.readline())["step"], 0)
            step = {"event": "inner_step", "time": "2026-01-31T12:00:00.000Z", "node": "n", "loss": 1, "seconds": 1}
            self.write("later", {"step": 1, **step})
            self.assertEqual(json.loads(command.stdout.readline())["step"], 1)
            self.write("later", {"step": 2, **step})
            self.assertEqual(json.loads(command.stdout.readline())["step"], 2)
        finally:
            command.kill()
            command.wait()
            command.stdout.close()


class PageTest(unittest.TestCase):
    """The page alone, as the program has it."""

    TEXT = (ROOT / "src/train/status_page.html").read_text()

    def test_it_is_whole_and_loads_nothing_from_elsewhere(self):
        self.assertEqual([load for load in Page(self.TEXT).loads if not load.startswith("data:")], [])
        others = set(re.findall(r"https?://[^\"'\s]*", self.TEXT)) - {"http://www.w3.org/2000/svg"}
        self.assertEqual(others, set())
        self.assertNotIn("innerHTML", self.TEXT)  # Names and reasons come from other machines.
        for needed in ("prefers-color-scheme: dark", 'name="viewport"', "default-src 'none'"):
            self.assertIn(needed, self.TEXT)


NO_BROWSER = "there is no Chromium here (apt-get install chromium)"
HOSTILE = '<img src=x onerror="document.title=1"></script><b>&amp;'


class BrowserTest(ClusterTest):
    """The page in a browser: what a node serves, and what a stranger may write into it."""

    @unittest.skipUnless(status_picture.chromium(), NO_BROWSER)
    def test_the_page_of_a_node(self):
        node = self.start_node("left", solo=True, node__status_listen="127.0.0.1:0", evaluation__every_steps=10, **LONG)
        address = url_of(node)
        node.wait_for_step(20)
        wait_until(lambda: status_of(address)["step"] >= 20, "20 steps on the page")
        dom = status_picture.browse(f"http://{address[0]}:{address[1]}/", "--dump-dom")
        self.assertIn('<h1 id="name">tiny · left</h1>', dom)
        self.assertIn('class="state training">training<', dom)
        self.assertEqual(dom.count('class="tile"'), 11)
        self.assertEqual(len(re.findall(r'<polyline class="(?:first|second)" points="\d', dom)), 3)  # Loss, validation, tokens per second.
        node.signal(signal.SIGTERM)
        self.assert_finished(node)

    @unittest.skipUnless(status_picture.chromium(), NO_BROWSER)
    def test_texts_of_strangers_stay_texts(self):
        run = self.folder / "run"
        run.mkdir()
        base = {"time": "2026-01-31T12:00:00.000Z", "node": HOSTILE}
        lines = [{"event": "start", "run": HOSTILE, "version": HOSTILE, "device": HOSTILE, "steps": 5, **base},
                 {"event": "incident", "what": HOSTILE, "who": HOSTILE, "reason": HOSTILE, **base},
                 {"event": "round", "round": 1, "codec": HOSTILE, "plan": HOSTILE, "members": [1, 2], **base}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        with status_picture.served(run_atoll("status", run, "--json").stdout) as url:
            for is_dark in (False, True):
                dom = status_picture.browse(url, "--dump-dom", is_dark=is_dark, size=(360, 800))
                self.assertNotIn("<img", dom)
                self.assertIn("&lt;img src=x onerror=", dom)
                self.assertIn("<title>&lt;img", dom)
                self.assertEqual(dom.count('class="bad">incident'), 1)


def names_in(expression):
    """The metrics of a PromQL expression: what is left of selectors, ranges, functions and words."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", " ", expression)
    return set(re.findall(r"\batoll_[a-zA-Z0-9_:]+", bare))


class DashboardTest(ClusterTest):
    """deploy/grafana/atoll.json asks for nothing that a node does not tell."""

    def test_names(self):
        board = json.loads((ROOT / "deploy/grafana/atoll.json").read_text())
        node = self.start_node("node", solo=True, node__status_listen="127.0.0.1:0", **LONG)
        _, _, text = get(url_of(node), "/metrics")
        families = set(re.findall(r"^# TYPE (\S+) ", text, re.M))
        node.signal(signal.SIGTERM)
        self.assert_finished(node)
        expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        self.assertGreater(len(expressions), 15)
        for expression in expressions:
            self.assertTrue(names_in(expression), expression)
            self.assertLessEqual(names_in(expression), families, expression)
            self.assertEqual(expression.count("("), expression.count(")"), expression)
        for variable in board["templating"]["list"]:
            self.assertLessEqual(names_in(variable["query"]), families)
        self.assertLessEqual(set(re.findall(r"\batoll_[a-z_]+", (ROOT / "docs/watching.md").read_text())), families)
        ids = [panel["id"] for panel in board["panels"]]
        self.assertEqual(len(ids), len(set(ids)))
        places = [(panel["gridPos"]["x"] + panel["gridPos"]["w"]) for panel in board["panels"]]
        self.assertLessEqual(max(places), 24)


if __name__ == "__main__":
    unittest.main()
