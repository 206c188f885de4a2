"""`atoll serve` as clients see it: the completions API, what it refuses, and that what it says is what the model says."""

import concurrent.futures
import http.client
import json
import math
import re
import signal
import socket
import subprocess
import unittest

import cluster
from cluster import ClusterTest, run_atoll, wait_until

CONTEXT = 32  # As the tiny config has it.
BEGIN = 256
NONSENSE = [
    b"", b"\0" * 100, b"{", b"[]", b"null", b'{"prompt": "\xff\xfe"}', b'{"prompt": "a", "temperature": NaN}',
    b'{"prompt": "a", "temperature": 1e999}', b'{"prompt": "a", "temperature": -1}', b'{"prompt": "a", "max_tokens": 1e18}',
    b'{"prompt": "a", "max_tokens": 33}', b'{"prompt": "a", "max_tokens": -1}', b'{"prompt": [272]}', b'{"prompt": [-1]}',
    b'{"prompt": [1.5]}', b'{"prompt": []}', b'{"prompt": [[]]}', b'{"prompt": {"a": 1}}', b'{"prompt": 7}', b"{}",
    b'{"prompt": "a", "n": 2}', b'{"prompt": "a", "logprobs": 1000}', b'{"prompt": "a", "stop": [""]}', b'{"prompt": "a", "x": 1}',
    b'{"prompt": "a", "prompt": "b"}', b'{"prompt": ' + b"[" * 50_000, b'{"prompt": "' + b"a" * 100 + b'"}',
    b'{"prompt": "a", "echo": "yes"}', b'{"prompt": ["a", 1]}', b'{"prompt": "a", "seed": 1.5}',
]


class ServeTest(ClusterTest):
    """A node that was trained for a moment, and a server of it."""

    def setUp(self):
        super().setUp()
        self.node = self.start_node("run", solo=True, training__steps=60, optimizer__learning_rate=1e-2)
        self.assert_finished(self.node)
        self.server = self.start_server()

    def start_server(self, *arguments):
        server = subprocess.Popen(
            [cluster.ATOLL, "serve", "--checkpoint", str(self.node.directory), "--port", "0", "--json", "--device", "cpu",
             "--threads", "1", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.end, server)
        line = server.stdout.readline()
        self.assertTrue(line, "the server did not start")
        self.port = int(json.loads(line)["url"].rsplit(":", 1)[1])
        return server

    @staticmethod
    def end(server):
        if server.poll() is None:
            server.kill()
        server.communicate()

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=cluster.DEADLINE_SECONDS)
        try:
            connection.request(method, path, body if isinstance(body, (bytes, type(None))) else json.dumps(body))
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def ask(self, method, path, body=None):
        status, text = self.request(method, path, body)
        self.assertEqual(status, 200, text)
        return json.loads(text)

    def complete(self, **fields):
        return self.ask("POST", "/v1/completions", {"temperature": 0, **fields})

    def logits_after(self, ids):
        result = run_atoll("inspect", "logits", self.node.directory, "--ids", ",".join(map(str, ids)), "--json", "--device", "cpu")
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)["logits"]

    def assert_stops(self, server):
        server.send_signal(signal.SIGTERM)
        output, errors = server.communicate(timeout=cluster.DEADLINE_SECONDS)
        self.assertEqual(server.returncode, 0, errors)

    def test_what_it_is(self):
        self.assertEqual(self.ask("GET", "/health"), {"status": "ok"})
        model, = self.ask("GET", "/v1/models")["data"]
        self.assertEqual((model["id"], model["max_model_len"]), ("run-step-60", CONTEXT))
        info = self.ask("GET", "/tokenizer_info")
        self.assertEqual(info["vocab_size"], 258)
        # What lm-evaluation-harness does with it.
        for text, expected in [(info["bos_token"], [256]), (info["eos_token"], [257]), ("h\u00e9", [104, 0xc3, 0xa9])]:
            self.assertEqual(self.ask("POST", "/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"], expected)
        self.assertEqual(self.ask("POST", "/tokenize", {"prompt": "a"})["tokens"], [BEGIN, 97])
        self.assertEqual(self.ask("POST", "/detokenize", {"tokens": [BEGIN, 104, 0xc3, 0xa9, 0xff]})["prompt"], "h\u00e9\ufffd")
        for path, body in [("/tokenize", {}), ("/tokenize", {"prompt": 5}), ("/detokenize", {"tokens": [9999]}), ("/detokenize", [])]:
            self.assertEqual(self.request("POST", path, body)[0], 400)
        self.assert_stops(self.server)

    def test_logprobs_are_those_of_the_model(self):
        ids = [BEGIN, *b"int main(voi"]
        choice, = self.complete(prompt=ids, max_tokens=1, echo=True, logprobs=3)["choices"]
        told = choice["logprobs"]
        self.assertEqual(len(told["token_logprobs"]), len(ids) + 1)
        self.assertIsNone(told["token_logprobs"][0])
        self.assertIsNone(told["top_logprobs"][0])
        next_id, = self.ask("POST", "/tokenize", {"prompt": told["tokens"][-1], "add_special_tokens": False})["tokens"]
        for at, token in enumerate(ids[1:] + [next_id], 1):
            logits = self.logits_after(ids[:at])
            largest = max(logits)
            lse = largest + math.log(sum(math.exp(logit - largest) for logit in logits))
            self.assertAlmostEqual(told["token_logprobs"][at], logits[token] - lse, places=4)
            self.assertAlmostEqual(max(told["top_logprobs"][at].values()), largest - lse, places=4)
        self.assertEqual(logits.index(max(logits)), next_id)
        self.assertTrue(choice["text"].startswith("int main(voi"))
        offsets = told["text_offset"]
        self.assertEqual(offsets, sorted(offsets))
        for name, offset in zip(told["tokens"][1:], offsets[1:]):
            self.assertTrue(choice["text"].startswith(name, offset), (name, offset))
        # The harness with max_tokens 0.
        choice, = self.complete(prompt=ids, max_tokens=0, echo=True, logprobs=1)["choices"]
        self.assertEqual(choice["text"], "int main(voi")
        self.assertEqual(choice["logprobs"]["token_logprobs"], told["token_logprobs"][:-1])

    def test_prompts_of_all_forms_and_what_follows(self):
        alone = [self.complete(prompt=prompt, max_tokens=8)["choices"][0]["text"] for prompt in ("int ", "#inc", "a")]
        together = self.complete(prompt=["int ", "#inc", "a"], max_tokens=8)
        self.assertEqual([choice["text"] for choice in together["choices"]], alone)
        self.assertEqual([choice["index"] for choice in together["choices"]], [0, 1, 2])
        self.assertEqual(together["usage"], {"prompt_tokens": 5 + 5 + 2, "completion_tokens": 24, "total_tokens": 36})
        as_ids = self.complete(prompt=[[BEGIN, *b"int "], [BEGIN, *b"#inc"]], max_tokens=8)
        self.assertEqual([choice["text"] for choice in as_ids["choices"]], alone[:2])
        written = run_atoll("generate", "--checkpoint", self.node.directory, "--prompt", "int ", "--tokens", 8, "--temperature", 0, "--json")
        self.assertEqual(json.loads(written.stdout)["text"], alone[0])
        stop = alone[0][3:5]
        stopped, = self.complete(prompt="int ", max_tokens=8, stop=[stop])["choices"]
        self.assertEqual((stopped["text"], stopped["finish_reason"]), (alone[0][:alone[0].index(stop)], "stop"))
        seeds = [self.complete(prompt="int ", max_tokens=20, temperature=2, seed=seed)["choices"][0]["text"] for seed in (1, 1, 2)]
        self.assertEqual(seeds[0], seeds[1])
        self.assertNotEqual(seeds[0], seeds[2])
        full = self.complete(prompt=[65] * CONTEXT, max_tokens=0, echo=True)["choices"][0]["text"]
        self.assertEqual(full, "A" * CONTEXT)

    def test_a_stream_says_the_same(self):
        whole, = self.complete(prompt="int ", max_tokens=12)["choices"]
        status, text = self.request("POST", "/v1/completions", {"prompt": "int ", "max_tokens": 12, "temperature": 0, "stream": True})
        self.assertEqual(status, 200)
        events = re.findall(r"^data: (.*)$", text, re.M)
        self.assertEqual(events[-1], "[DONE]")
        choices = [json.loads(event)["choices"][0] for event in events[:-1]]
        self.assertEqual("".join(choice["text"] for choice in choices), whole["text"])
        self.assertEqual([choice["finish_reason"] for choice in choices], [None] * (len(choices) - 1) + ["length"])

    def test_many_at_once_get_what_one_gets(self):
        expected = self.complete(prompt="int ", max_tokens=10)["choices"]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for found in pool.map(lambda _: self.complete(prompt="int ", max_tokens=10)["choices"], range(48)):
                self.assertEqual(found, expected)

    def test_nonsense_is_refused_and_does_no_harm(self):
        for body in NONSENSE:
            status, text = self.request("POST", "/v1/completions", body)
            self.assertEqual(status, 400, (body[:80], text))
            error = json.loads(text)["error"]
            self.assertTrue(error["message"], body[:80])
            self.assertEqual(error["type"], "invalid_request_error")
        for method, path, expected in [("GET", "/", 404), ("GET", "/v1/completions", 405), ("POST", "/health", 405),
                                       ("DELETE", "/v1/models", 405)]:
            self.assertEqual(self.request(method, path)[0], expected)
        for raw in (b"nonsense\r\n\r\n", b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
                    b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n{}"):
            with socket.create_connection(("127.0.0.1", self.port), timeout=cluster.DEADLINE_SECONDS) as connection:
                try:
                    connection.sendall(raw)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1000)
                except ConnectionError:
                    pass
        with self.assertRaises((ConnectionError, AssertionError, http.client.HTTPException)):
            self.ask("POST", "/v1/completions", b'{"prompt": "' + b"a" * (17 << 20) + b'"}')
        self.assertEqual(len(self.complete(prompt="int ", max_tokens=3)["choices"]), 1)
        self.assert_stops(self.server)

    def test_a_client_that_goes_away_stops_its_work(self):
        self.assert_stops(self.server)
        server = self.start_server("--sequences", 1, "--queue", 1)
        # As many prompts as fit a request, all of them long: minutes of work for nobody.
        body = json.dumps({"prompt": ["a"] * 256, "max_tokens": 30, "stop": ["\x00\x01\x02"]}).encode()
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            # It is in work once nothing else may wait beside it.
            wait_until(lambda: self.request("POST", "/v1/completions", {"prompt": ["a", "b"], "max_tokens": 1})[0] == 503,
                       "a full queue")
        wait_until(lambda: self.request("POST", "/v1/completions", {"prompt": ["a", "b"], "max_tokens": 1})[0] == 200,
                   "room after the client went away")
        self.assert_stops(server)

    def test_generate_slides_its_window_at_the_contexts_end(self):
        tokens = CONTEXT + 4
        written = run_atoll("generate", "--checkpoint", self.node.directory, "--prompt", "int f", "--tokens", tokens,
                            "--temperature", 0, "--json")
        ids = [BEGIN, *b"int f", *json.loads(written.stdout)["text"].encode()]
        self.assertEqual(len(ids), 6 + tokens)
        for at in (7, CONTEXT, CONTEXT + 1, len(ids) - 1):
            logits = self.logits_after(ids[max(0, at - CONTEXT):at])[:258]
            self.assertEqual(logits.index(max(logits)), ids[at], at)

    def test_what_makes_no_server(self):
        serve = ["serve", "--checkpoint", self.node.directory, "--device", "cpu"]
        for arguments, message in [(["--port", self.port], "cannot listen"), (["--context", 33], "--context is 33"),
                                   (["--address", "203.0.113.9", "--port", 0], "cannot listen"),
                                   (["--sequences", 9, "--batch-rows", 8], "--sequences is 9"),
                                   (["--tokenizer", "nowhere.json"], "nowhere.json")]:
            result = run_atoll(*serve, *arguments)
            self.assertEqual(result.returncode, 2, (arguments, result.stderr))
            self.assertIn(message, result.stderr)
        missing = run_atoll("serve", "--checkpoint", self.folder / "nothing")
        self.assertEqual(missing.returncode, 2)


if __name__ == "__main__":
    unittest.main()
