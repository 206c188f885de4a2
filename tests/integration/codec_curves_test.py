"""int8 pseudo-gradients train as well as fp32 ones: loss curves of two runs on the quickstart's model."""

import json
import pathlib
import unittest

from cluster import ClusterTest

QUICKSTART = pathlib.Path(__file__).parents[2] / "configs" / "quickstart.json"


class CodecCurvesTest(ClusterTest):
    CORPUS = ClusterTest.CORPUS * 3

    def nodes(self, codec, names):
        config = json.loads(QUICKSTART.read_text())
        config["data"]["sources"] = [{"prefix": str(self.folder / "corpus")}]
        config["data"]["validation_fraction"] = 0.1
        config["training"] = {"steps": 60, "batch_rows": 4, "micro_batch_rows": 4}
        config["optimizer"] = {"learning_rate": 1e-3, "schedule": {"kind": "constant", "warmup_steps": 10}}
        config["outer"] = {"inner_steps": 10, "codec": codec}
        config["evaluation"] = {"every_steps": 10, "rows": 16}
        config["node"] = {"threads": 1, "listen": "127.0.0.1:0", "device": "cpu"}
        self.config.write_text(json.dumps(config))
        self.start_coordinator(swarm__start_members=len(names))
        nodes = [self.start_node(f"{codec}-{name}", swarm__start_members=len(names)) for name in names]
        self.assert_finished(*nodes)
        if len(nodes) > 1:
            self.assert_digests_agree(nodes, at_least=6)
        return nodes

    # One node, so that both runs train on the same samples in the same order; its work goes through the codec all the same.
    def test_int8_follows_fp32(self):
        plain, quantised = ([line["validation_loss"] for line in self.nodes(codec, "a")[0].lines("evaluation")]
                            for codec in ("fp32", "int8"))
        self.assertEqual(len(plain), len(quantised))
        self.assertLess(plain[-1], 0.8 * plain[0])
        self.assertNotEqual(plain[-1], quantised[-1])
        for a, b in zip(plain, quantised):
            self.assertAlmostEqual(a, b, delta=0.02 * a)

    def test_int8_sends_a_quarter(self):
        plain, quantised = (sum(line["bytes_sent"] for line in self.nodes(codec, "ab")[0].lines("round"))
                            for codec in ("fp32", "int8"))
        self.assertLess(quantised, 0.27 * plain)


if __name__ == "__main__":
    unittest.main()
