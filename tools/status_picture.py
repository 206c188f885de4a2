#!/usr/bin/env python3
"""A picture of the status page, of a run that is over or goes on: headless Chromium looks at the page with what `atoll status` says.

    python3 tools/status_picture.py --atoll build/release/src/cli/atoll runs/quickstart-DATE/north --output docs/pictures/status-page.png
"""

import argparse
import contextlib
import http.server
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

PAGE = pathlib.Path(__file__).resolve().parents[1] / "src/train/status_page.html"
LOADED_MS = 3000  # Of the browser's own time, which does not pass while it waits for an answer.


def chromium():
    """The browser's path, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def served(status):
    """The address of the page, with this text as its status.json."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            is_page = self.path == "/"
            body = PAGE.read_bytes() if is_page else status.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8" if is_page else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def browse(url, *options, is_dark=False, size=(1240, 1400)):
    """Runs the browser on the page, and returns what it prints."""
    with tempfile.TemporaryDirectory() as profile:
        command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
                   f"--window-size={size[0]},{size[1]}", f"--blink-settings=preferredColorScheme={0 if is_dark else 1}",
                   f"--virtual-time-budget={LOADED_MS}", *options, url]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=240).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="the run directory of a node")
    parser.add_argument("--atoll", required=True, help="the program")
    parser.add_argument("--output", required=True, help="a PNG")
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    if not chromium():
        print("there is no Chromium: apt-get install chromium", file=sys.stderr)
        return 2
    done = subprocess.run([arguments.atoll, "status", arguments.run, "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        return done.returncode
    with served(done.stdout) as url:
        browse(url, f"--screenshot={pathlib.Path(arguments.output).resolve()}", is_dark=arguments.dark)
    return 0


if __name__ == "__main__":
    sys.exit(main())
