"""Recipes for rented machines: they parse, say what the container's first process understands, and the commands of the docs exist."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import unittest

from cluster import ATOLL, ClusterTest, run_atoll

try:
    import yaml
except ImportError:
    yaml = None

ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
START = DEPLOY / "container" / "atoll-start"


class RecipesTest(unittest.TestCase):
    def variables(self):
        """What atoll-start documents, and reads."""
        text = START.read_text()
        documented = set(re.findall(r"(?m)^#   (ATOLL_\w+)", text))
        read = set(re.findall(r"\$\{?(ATOLL_\w+)", text)) | {"ATOLL_RUN_SECRET"}
        self.assertEqual(documented, read)
        return documented

    def assert_known(self, names, where):
        self.assertTrue(names, where)
        self.assertEqual(set(names) - self.variables(), set(), where)

    def test_json(self):
        pod = json.loads((DEPLOY / "runpod" / "pod.json").read_text())
        self.assertEqual(pod["ports"], ["70000/tcp"])
        self.assert_known(pod["env"], "pod.json")

    @unittest.skipUnless(yaml, "there is no PyYAML")
    def test_yaml(self):
        sky = yaml.safe_load((DEPLOY / "skypilot" / "node.yaml").read_text())
        self.assert_known(sky["envs"] | sky["secrets"], "node.yaml")
        self.assertIn(str(sky["resources"]["ports"]), sky["envs"]["ATOLL_LISTEN"])
        documents = {(document["kind"], document["metadata"]["name"]): document
                     for document in yaml.safe_load_all((DEPLOY / "kubernetes" / "atoll.yaml").read_text())}
        self.assertEqual(set(documents), {("Service", "atoll-coordinator"), ("Deployment", "atoll-coordinator"), ("StatefulSet", "atoll-node")})
        for kind in ("Deployment", "StatefulSet"):
            spec, = [document["spec"] for key, document in documents.items() if key[0] == kind]
            pod = spec["template"]
            self.assertEqual(spec["selector"]["matchLabels"], pod["metadata"]["labels"])
            container, = pod["spec"]["containers"]
            self.assert_known([one["name"] for one in container["env"]], kind)
            volumes = {one["name"] for one in pod["spec"]["volumes"]}
            volumes |= {one["metadata"]["name"] for one in spec.get("volumeClaimTemplates", [])}
            self.assertEqual({mount["name"] for mount in container["volumeMounts"]}, volumes)
        service = documents["Service", "atoll-coordinator"]["spec"]
        self.assertEqual(service["selector"], documents["Deployment", "atoll-coordinator"]["spec"]["template"]["metadata"]["labels"])

    def test_scripts(self):
        scripts = [START, DEPLOY / "vast" / "rent", DEPLOY / "slurm" / "atoll.sbatch"]
        for script in scripts:
            shell = "bash" if "bash" in script.read_text().splitlines()[0] else "sh"
            self.assertEqual(subprocess.run([shell, "-n", str(script)], capture_output=True, text=True).stderr, "", script)
        if shutil.which("shellcheck"):
            result = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True)
            self.assertEqual(result.stdout, "")
        self.assert_known(set(re.findall(r"-e (ATOLL_\w+)=", (DEPLOY / "vast" / "rent").read_text())), "rent")

    def test_the_image_is_made_of_what_is_there(self):
        text = (DEPLOY / "container" / "Dockerfile").read_text()
        for source in re.findall(r"(?m)^COPY (?!--from)(\S+) ", text):
            self.assertTrue((ROOT / source).exists(), source)
        self.assertIn("RUN tools/make_deb /dist", text)
        self.assertIn(f'ENTRYPOINT ["/usr/bin/{START.name}"]', text)

    def test_the_docs_name_options_that_exist(self):
        pages = [ROOT / "docs" / "renting.md", ROOT / "docs" / "operating.md", DEPLOY / "slurm" / "atoll.sbatch", START]
        checked = 0
        for page in pages:
            text = page.read_text().replace("\\\n", " ")
            for command, words in re.findall(r"(?m)\batoll (train|coordinate|doctor|prepare|convert|simulate|keys [a-z-]+)\b([^\n`#|]*)", text):
                help_text = run_atoll(*command.split(), "--help").stdout
                for option in re.findall(r"(?<= )--[a-z-]+", words):
                    self.assertIn(f"{option} ", help_text.replace("\n", " "), f"{page.name}: atoll {command} {option}")
                    checked += 1
        self.assertGreater(checked, 30)


class StartTest(ClusterTest):
    """The container's first process, without a container."""

    def start(self, timeout=120, **variables):
        binaries = self.folder / "bin"
        binaries.mkdir(exist_ok=True)
        if not (binaries / "atoll").exists():
            (binaries / "atoll").symlink_to(ATOLL)
        environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "ATOLL_RUN_DIRECTORY": str(self.folder / "runs"),
                       **{key: str(value) for key, value in variables.items()}}
        return subprocess.run(["sh", str(START)], env=environment, capture_output=True, text=True, timeout=timeout)

    def test_a_node_is_examined_and_trains(self):
        self.start_coordinator(training__steps=10)
        result = self.start(ATOLL_CONFIG=self.config, ATOLL_COORDINATOR=self.address, ATOLL_NAME="rented", ATOLL_LISTEN="127.0.0.1:0",
                            ATOLL_OPTIONS="--set training.steps=10")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"(?m)^OK   coordinator")
        self.assertRegex(result.stdout, r"(?m)^OK   config")
        self.assertIn("[rented]", result.stderr)
        self.assertIn("atoll train has ended: exit code 0; it is done", result.stderr)

    def test_config_and_data_are_fetched(self):
        if not shutil.which("curl"):
            self.skipTest("there is no curl")
        fetched = self.folder / "fetched" / "run.json"
        result = self.start(ATOLL_CONFIG=fetched, ATOLL_CONFIG_URL=f"file://{self.config}", ATOLL_OPTIONS="--set training.steps=2")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(fetched.read_text(), self.config.read_text())
        self.assertEqual(list(fetched.parent.glob("*.part")), [])
        result = self.start(ATOLL_CONFIG=self.folder / "none.json", ATOLL_CONFIG_URL=f"file://{self.folder}/nothing")
        self.assertNotEqual(result.returncode, 0)
        self.assertFalse((self.folder / "none.json").exists())

    def test_what_is_missing_is_named(self):
        result = self.start(ATOLL_CONFIG=self.folder / "none.json")
        self.assertEqual(result.returncode, 2)
        self.assertIn("ATOLL_CONFIG_URL", result.stderr)
        result = self.start(ATOLL_CONFIG=self.config, ATOLL_ROLE="king")
        self.assertEqual(result.returncode, 2)

    def test_with_arguments_it_is_atoll(self):
        result = subprocess.run(["sh", str(START), "--version"], env={**os.environ, "PATH": f"{pathlib.Path(ATOLL).parent}:{os.environ['PATH']}"},
                                capture_output=True, text=True)
        self.assertEqual(result.stdout.strip(), (ROOT / "VERSION").read_text().strip())


if __name__ == "__main__":
    unittest.main()
