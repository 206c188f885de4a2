"""int8 pseudo-gradients train as well as fp32 ones: loss curves of two runs on the quickstart's model."""

import json
import pathlib
import unittest

from cluster import ClusterTest

QUICKSTART = pathlib.Path(__file__).parents[2] / "configs" / "quickstart.json"


class CodecCurvesTest(ClusterTest):
    CORPUS = ClusterTest.CORPUS * 3

    def losses(self, codec):
        config = json.loads(QUICKSTART.read_text())
        config["data"]["sources"] = [{"prefix": str(self.folder / "corpus")}]
        config["data"]["validation_fraction"] = 0.1
        config["training"] = {"steps": 60, "batch_rows": 4, "micro_batch_rows": 4}
        config["optimizer"] = {"learning_rate": 1e-3, "schedule": {"kind": "constant", "warmup_steps": 10}}
        config["outer"] = {"inner_steps": 10, "codec": codec}
        config["evaluation"] = {"every_steps": 10, "rows": 16}
        config["node"] = {"threads": 1, "listen": "127.0.0.1:0", "device": "cpu"}
        self.config.write_text(json.dumps(config))
        self.start_coordinator(swarm__start_members=2)
        nodes = [self.start_node(f"{codec}-{name}", swarm__start_members=2) for name in "ab"]
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, at_least=6)
        sent = sum(line["bytes_sent"] for line in nodes[0].lines("round"))
        return [line["validation_loss"] for line in nodes[0].lines("evaluation")], sent

    def test_int8_follows_fp32(self):
        plain, plain_bytes = self.losses("fp32")
        quantised, quantised_bytes = self.losses("int8")
        self.assertEqual(len(plain), len(quantised))
        self.assertLess(plain[-1], 0.8 * plain[0])
        for a, b in zip(plain, quantised):
            self.assertAlmostEqual(a, b, delta=0.02 * a)
        self.assertLess(quantised_bytes, 0.27 * plain_bytes)


if __name__ == "__main__":
    unittest.main()
