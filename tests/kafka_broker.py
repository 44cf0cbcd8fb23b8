"""A real Kafka broker, or a cluster of some, on this machine's loopback, for the tests and for `make kafka-up`.

    python -m tests.kafka_broker up [--port 9092]    start it (or find it running), print its address
    python -m tests.kafka_broker down                stop it
    python -m tests.kafka_broker run COMMAND…        a throw-away broker for one command, its address in KAFKA_ADDRESS
    python -m tests.kafka_broker check               say which tests are left out here, and why

Java 17 and Maven bring it (jars are cached in `.kafka/libs`); where they are missing and Docker answers,
testcontainers does; where there is neither, `why_unavailable` says so and tests are skipped with that reason,
unless COUPON_LEDGER_REQUIRE_KAFKA=1 asks for an error.

Always true: it listens on 127.0.0.1 only, never creates a topic by itself, and what was started here is
stopped here, by its process id.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import fcntl
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = ROOT / ".kafka"
LIBS: Final = HOME / "libs"
POM: Final = Path(__file__).with_name("kafka") / "pom.xml"
REQUIRE: Final = "COUPON_LEDGER_REQUIRE_KAFKA"
READY_S: Final = 180.0
TERM_S: Final = 10.0

_BRIEF: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

_PROPERTIES: Final = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
min.insync.replicas={in_sync}
offsets.topic.replication.factor={nodes}
offsets.topic.num.partitions=1
transaction.state.log.replication.factor={nodes}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor={nodes}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
"""


class BrokerUnavailable(Exception):
    """No broker can be started here; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Node:
    """One of a cluster's nodes, each broker and controller. `controllers`: ports, of nodes 1 and up."""

    number: int
    controllers: tuple[int, ...]
    cluster: str

    @classmethod
    def all(cls, count: int) -> list[Node]:
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        controllers = tuple(_free_port() for _ in range(count))
        return [cls(number, controllers, cluster) for number in range(1, count + 1)]


class JavaBroker:
    """One broker process. `kill`, `pause` and `stop` keep its data, so `start` goes on with the same log.

    `stays`: also when this process ends; else broker and data are gone then, even where it is killed.
    `brief`: for little work, it starts at half the cost, and is slower at much.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        *,
        stays: bool = False,
        brief: bool = False,
        node: Node | None = None,
    ) -> None:
        self._folder = folder
        self._port = port or _free_port()
        [self._node] = [node] if node else Node.all(1)
        self._stays = stays
        self._java = ["java", *(_BRIEF if brief else ()), "-Xmx512m", "-cp", f"{LIBS}/*"]
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start the process without waiting: a node of a cluster is ready once most of the others run too."""
        properties = self._folder / "server.properties"
        if not properties.exists():
            self._format(properties)
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(properties)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C ends the tests first, they end the broker
            )
        if not self._stays:
            # The pipe that it reads from closes with this process.
            command = f"cat; kill -9 {self._process.pid}; rm -rf {shlex.quote(str(self._folder))}"
            self._guard = subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, start_new_session=True)

    def stop(self) -> None:
        if self._process is not None:
            stop_process(self._process.pid, self._process)
            self._dismiss()

    def kill(self) -> None:
        """As a power cut would: no goodbye."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._dismiss()

    def _dismiss(self) -> None:
        self._process = None
        if self._guard is not None:
            os.killpg(self._guard.pid, signal.SIGKILL)
            self._guard.communicate()
            self._guard = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """Stop it and remove its data."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _format(self, properties: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        node = self._node
        text = _PROPERTIES.format(
            node=node.number,
            voters=",".join(f"{number}@127.0.0.1:{port}" for number, port in enumerate(node.controllers, 1)),
            port=self._port,
            controller=node.controllers[node.number - 1],
            nodes=len(node.controllers),
            in_sync=(len(node.controllers) + 1) // 2,
            data=self._folder / "data",
        )
        unfinished = properties.with_suffix(".new")
        unfinished.write_text(text, encoding="utf-8")
        command = ["java", *_BRIEF, "-cp", f"{LIBS}/*", "kafka.tools.StorageTool", "format"]
        done = subprocess.run(
            [*command, f"--cluster-id={node.cluster}", "-c", str(unfinished)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BrokerUnavailable(f"formatting the broker's folder failed: {done.stdout}{done.stderr}")
        unfinished.rename(properties)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while not _answers(self.address):
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self._folder / "broker.log").read_text(errors="replace")[-2000:]
                self.stop()
                raise BrokerUnavailable(f"the broker did not start on {self.address}:\n{tail}")
            time.sleep(0.05)


class Cluster:
    """Brokers that hold each other's replicas. Any of `brokers` may be stopped, killed and started again."""

    def __init__(self, folder: Path, count: int = 3) -> None:
        self._folder = folder
        self.brokers = [JavaBroker(folder / str(n.number), brief=True, node=n) for n in Node.all(count)]

    @property
    def address(self) -> str:
        return ",".join(broker.address for broker in self.brokers)

    def start(self) -> None:
        """Start those that do not run."""
        for broker in self.brokers:
            if broker.pid is None:
                broker.launch()
        for broker in self.brokers:
            broker.wait_until_ready()

    def remove(self) -> None:
        """End all of them and remove their data."""
        for broker in self.brokers:
            if broker.pid is not None:
                broker.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class DockerBroker:
    """The same in a container, where Java is missing and Docker is there."""

    def __init__(self) -> None:
        from testcontainers.kafka import KafkaContainer

        container = KafkaContainer("confluentinc/cp-kafka:7.6.0").with_kraft()
        self._container: Any = container.with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")

    @property
    def address(self) -> str:
        return str(self._container.get_bootstrap_server())

    def start(self) -> None:
        self._container.start()

    def remove(self) -> None:
        self._container.stop()


Broker = JavaBroker | DockerBroker


def why_no_java() -> str | None:
    """Why no broker can run as a process of its own here; None where it can."""
    java = shutil.which("java")
    if java is None:
        return "no `java` on the PATH (17 or newer is needed)"
    version = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', version)
    if found is None or int(found[1]) < 17:
        return f"Java 17 or newer is needed, `java` is {version.splitlines()[0] if version else 'silent'}"
    if shutil.which("mvn") is None and not _jars_complete():
        return "no `mvn` on the PATH to fetch Kafka's jars"
    return None


def why_no_docker() -> str | None:
    docker = shutil.which("docker")
    if docker is None:
        return "no `docker` on the PATH"
    try:
        answer = subprocess.run([docker, "info"], capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return "Docker does not answer"
    return None if answer.returncode == 0 else "Docker does not answer"


def why_unavailable() -> str | None:
    """Why there can be no broker here; None where there can be one."""
    no_java = why_no_java()
    no_docker = why_no_docker() if no_java else None
    return f"no Kafka broker: {no_java}; {no_docker}" if no_java and no_docker else None


def java_broker(folder: Path | None = None, port: int | None = None, *, brief: bool = False) -> JavaBroker:
    """A started broker; its data is removed at exit unless a folder is given."""
    fetch_jars()
    home = folder or Path(tempfile.mkdtemp(prefix="coupon-ledger-kafka-"))
    broker = JavaBroker(home, port, stays=folder is not None, brief=brief)
    if folder is None:
        atexit.register(broker.remove)
    broker.start()
    return broker


def java_cluster(count: int = 3) -> Cluster:
    """A started cluster; its data is removed at exit."""
    fetch_jars()
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="coupon-ledger-kafka-")), count)
    atexit.register(cluster.remove)
    cluster.start()
    return cluster


def session_broker(*, brief: bool = False) -> Broker:
    """A started broker of whichever kind can run here. Raises `BrokerUnavailable`."""
    if why_no_java() is None:
        return java_broker(brief=brief)
    if reason := why_unavailable():
        raise BrokerUnavailable(reason)
    broker = DockerBroker()
    atexit.register(broker.remove)
    broker.start()
    return broker


def fetch_jars() -> None:
    """Kafka's jars into `.kafka/libs`, once for each version of the pom, whoever else wants them meanwhile."""
    HOME.mkdir(exist_ok=True)
    with (HOME / "fetching").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _jars_complete():
            _fetch_jars()


def _fetch_jars() -> None:
    shutil.rmtree(LIBS, ignore_errors=True)
    LIBS.mkdir(parents=True)
    goal = "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies"
    done = subprocess.run(
        ["mvn", "-q", "-B", "-f", str(POM), goal, f"-DoutputDirectory={LIBS}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BrokerUnavailable(f"fetching Kafka's jars with mvn failed: {done.stdout[-2000:]}{done.stderr}")
    shutil.copy(POM, LIBS / "pom.xml")


def _jars_complete() -> bool:
    # The pom is copied last: an interrupted download is not taken for a whole one.
    copied = LIBS / "pom.xml"
    return copied.exists() and copied.read_bytes() == POM.read_bytes()


def stop_process(pid: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """End this very process: SIGTERM (waking it where it is stopped), then SIGKILL."""

    def gone() -> bool:
        return process.poll() is not None if process else not _is_broker(pid)

    for name, patience_s in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, TERM_S)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, name)
            os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + patience_s
        while not gone():
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return


def _is_broker(pid: int) -> bool:
    """Whether this pid is (still) a Kafka broker: a pid read from a file may long be someone else's."""
    command = subprocess.run(
        ["ps", "-o", "stat=,args=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return "kafka.Kafka" in command and not command.startswith("Z")


def _answers(address: str) -> bool:
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    try:
        client = KafkaAdminClient(bootstrap_servers=address, bootstrap_timeout_ms=3000)
    except KafkaError:
        return False
    client.close()
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def up(port: int) -> str:
    pid_file = HOME / "broker.pid"
    address = f"127.0.0.1:{port}"
    if (pid := _running()) is not None:
        recorded = pid_file.read_text().split()[1]
        if recorded != address:
            raise BrokerUnavailable(f"a broker (pid {pid}) already runs on {recorded}; take it down first")
        return address
    if _taken(port):
        raise BrokerUnavailable(f"port {port} is taken by another program; name another with --port")
    folder = HOME / "data"
    properties = folder / "server.properties"
    if properties.exists() and f"//{address}," not in properties.read_text():
        raise BrokerUnavailable(f"{folder} belongs to a broker on another port; remove that folder first")
    broker = java_broker(folder, port)
    pid_file.write_text(f"{broker.pid} {address}\n")
    return address


def down() -> bool:
    """Whether there was a broker to stop."""
    pid = _running()
    if pid is not None:
        stop_process(pid)
    (HOME / "broker.pid").unlink(missing_ok=True)
    return pid is not None


def run(command: Sequence[str]) -> int:
    """Run a command with a broker of its own; returns its exit code."""
    broker = session_broker()
    try:
        return subprocess.run(command, env={**os.environ, "KAFKA_ADDRESS": broker.address}, check=False).returncode
    finally:
        broker.remove()


def _running() -> int | None:
    try:
        pid = int((HOME / "broker.pid").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pid if _is_broker(pid) else None


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kafka_broker", description="A local Kafka broker.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up").add_argument("--port", type=int, default=9092)
    commands.add_parser("down")
    commands.add_parser("run").add_argument("argv", nargs=argparse.REMAINDER)
    commands.add_parser("check")
    options = parser.parse_args(arguments)
    if options.command == "down":
        print("stopped" if down() else "no broker was running")
        return 0
    if options.command == "check":
        reason = why_unavailable()
        print(f"LEFT OUT: the tests marked `kafka`, since there is {reason}" if reason else "Kafka tests: included")
        return 0
    try:
        if options.command == "run":
            return run(options.argv)
        if reason := why_no_java():
            raise BrokerUnavailable(f"no Kafka broker: {reason}")
        print(up(options.port))
    except BrokerUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
