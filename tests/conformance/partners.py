"""What network tests of WebAssembly/wasi-testsuite have as a partner: HTTP servers they call, and a client that calls them.

Its doc/specification.md has the operations; the form of `servers` and `request` is read off its test runner.
"""

import http.client
import http.server
import os
import signal
import socket
import subprocess
import threading
import time


class Servers:
    """The servers of a test, each at a port of its own, until the end of a `with`."""

    def __init__(self, wanted):
        self.wanted, self.environment, self.running, self.dead = wanted, {}, [], []

    def __enter__(self):
        for server in self.wanted:
            if server.get("kind") == "closed":
                # Bound and not listened on: nobody else gets the port, and nothing answers.
                dead = socket.socket()
                dead.bind(("127.0.0.1", 0))
                self.dead.append(dead)
                place = dead.getsockname()
            else:
                running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
                running.daemon_threads = True
                running.endpoints = {
                    (end.get("method", "GET").upper(), end.get("path", "/")): end for end in server["endpoints"]
                }
                threading.Thread(target=running.serve_forever, daemon=True).start()
                self.running.append(running)
                place = running.server_address
            self.environment[f"HTTP_SERVER_{server['name'].upper()}"] = "%s:%d" % place
        return self

    def __exit__(self, *_):
        for server in self.running:
            server.shutdown()
            server.server_close()
        for dead in self.dead:
            dead.close()


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        body, trailers = self.body()
        end = self.server.endpoints.get((self.command, self.path))
        if end is None:
            return self.whole(404, {}, b"")
        mode = end.get("mode", "static")
        if mode == "echo-body":
            return self.whole(200, {}, body)
        if mode == "echo-headers":
            told = [("x-request-method", self.command), ("x-request-path", self.path)]
            told += [(f"x-echo-{name.lower()}", value) for name, value in self.headers.items()]
            told += [(f"x-trailer-{name}", value) for name, value in trailers]
            return self.whole(200, told, b"")
        response = end.get("response", "")
        if isinstance(response, str):
            response = {"body": response}
        status, headers = response.get("status", 200), response.get("headers", {}).items()
        if "chunks" in response:
            return self.pieces(status, headers, response["chunks"], response.get("trailers", {}))
        return self.whole(status, headers, response.get("body", "").encode())

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer

    def body(self):
        """The request's body, and its trailers."""
        if "chunked" not in self.headers.get("transfer-encoding", "").lower():
            return self.rfile.read(int(self.headers.get("content-length", 0))), []
        body, trailers = b"", []
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while (line := self.rfile.readline().decode()).strip():
            name, _, value = line.partition(":")
            trailers.append((name.strip().lower(), value.strip()))
        return body, trailers

    def begin(self, status, headers, more):
        self.send_response(status)
        for name, value in [*headers, *more, ("connection", "close")]:
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        return self.command != "HEAD"

    def whole(self, status, headers, body):
        if self.begin(status, headers, [("content-length", str(len(body)))]):
            self.wfile.write(body)

    def pieces(self, status, headers, chunks, trailers):
        more = [("transfer-encoding", "chunked")]
        if trailers:
            more.append(("trailer", ", ".join(trailers)))
        if self.begin(status, headers, more):
            for chunk in chunks:
                self.wfile.write(f"{len(chunk.encode()):x}\r\n{chunk}\r\n".encode())
            self.wfile.write(("0\r\n" + "".join(f"{n}: {v}\r\n" for n, v in trailers.items()) + "\r\n").encode())


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def play(command, environment, operations, port, patience):
    """Does a test's operations one after the other; gives what was not as it should be."""
    problems, connections = [], {}
    with open(os.devnull, "rb") as nothing:
        process = subprocess.Popen(
            command, env=environment, stdin=nothing, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    try:
        for operation in operations:
            kind = operation["type"]
            if kind == "connect":
                host, _, number = process.stdout.readline().decode().strip().rpartition(":")
                connections[operation["id"]] = socket.create_connection((host, int(number)), patience)
            elif kind == "send":
                connections[operation["id"]].sendall(operation["payload"].encode())
            elif kind == "recv":
                payload = operation["payload"].encode()
                got = b""
                while len(got) < len(payload) and (more := connections[operation["id"]].recv(len(payload))):
                    got += more
                if got != payload:
                    problems.append(f"received {got!r}, not {payload!r}")
            elif kind == "request":
                problems += request(operation, port, process, patience)
            elif kind == "kill":
                process.send_signal(signal.Signals[operation.get("signal", "SIGTERM")])
            elif kind == "wait":
                code, wanted = process.wait(patience), operation.get("exit_code", 0)
                if code != wanted:
                    problems.append(f"exit code {code}, not {wanted}")
            elif kind != "run":
                problems.append(f"unknown operation {kind}")
    except (OSError, ValueError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
        problems.append(f"{type(error).__name__}: {error}")
    finally:
        for connection in connections.values():
            connection.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        errors = process.communicate()[1].decode(errors="replace").strip()
    if problems and errors:
        problems.append(" | ".join(errors.splitlines()[:6]))
    return "; ".join(problems)


def request(operation, port, process, patience):
    """One request to the test, which may still be on its way to listen."""
    end = time.monotonic() + patience
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > end:
                return ["does not listen"]
            time.sleep(0.02)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
    body = operation.get("body", "").encode() or None
    method, path = operation.get("method", "GET"), operation.get("path", "/")
    connection.request(method, path, body, operation.get("headers", {}))
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    wanted = operation.get("response", {})
    problems = []
    if answer.status != wanted.get("status", 200):
        problems.append(f"{method} {path} answers {answer.status}, not {wanted.get('status', 200)}")
    for name, value in wanted.get("headers", {}).items():
        if answer.getheader(name) != value:
            problems.append(f"{method} {path}: {name} is {answer.getheader(name)!r}, not {value!r}")
    if not problems and text != wanted.get("body", ""):
        problems.append(f"{method} {path} says {text!r}, not {wanted.get('body', '')!r}")
    return problems
