"""The way to a login node, against a real OpenSSH server: keys, host keys, hops, shells, cuts."""

from __future__ import annotations

import base64
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatcher.effects.conversation import command
from dispatcher.effects.ledger import LedgerCluster
from dispatcher.effects.ssh import SshChannel, SshCredentials, SshTarget, open_ssh
from dispatcher.errors import ClusterError, DispatchError, SshError
from dispatcher.known_hosts import known_keys
from dispatcher.ports import AlreadySubmitted, Claimed, InProgress, Submitted
from tests.conftest import missing, started
from tests.integration.clusters import KEY, SYSTEM_PATH, TREE, Tree, claim_request, submission, submit
from tests.rig.latency import LatencyProxy
from tests.rig.parts import PartMissing, free_ports
from tests.rig.pretend_slurm import PretendSlurm
from tests.rig.sshd import KEY_KINDS, PASSPHRASE, USERS, Agent, Sshd, wait_for_count


def target(server: Sshd, *, user: str = "", port: int = 0, known: str | None = None, **more: object) -> SshTarget:
    at = port or server.port
    return SshTarget(server.host, user or server.user, server.known_hosts_at(at) if known is None else known, at, **more)  # type: ignore[arg-type]


def credentials(server: Sshd, kind: str = "ed25519") -> SshCredentials:
    key = server.key(kind)
    return SshCredentials(key.private, key.passphrase, key.certificate)


def cluster_of(to: SshTarget, given: SshCredentials, job_dir: Path | str, scheduler: str = "local") -> LedgerCluster:
    return LedgerCluster(lambda: open_ssh(to, given, command()), str(job_dir), scheduler, patience=5)


def refusal(to: SshTarget, given: SshCredentials, timeout: float = 20) -> SshError:
    with pytest.raises(SshError) as caught:
        open_ssh(to, given, command(), timeout).close()
    return caught.value


# --------------------------------------------------------------------------- keys


@pytest.mark.parametrize("kind", [kind for kind in KEY_KINDS if kind != "stranger"])
def test_every_kind_of_key_opens(kind: str, sshd: Sshd, tmp_path: Path) -> None:
    cluster = cluster_of(target(sshd), credentials(sshd, kind), tmp_path)
    assert cluster.sweep().runs == ()
    cluster.close()


def test_a_key_of_an_agent_opens(sshd: Sshd, tmp_path: Path) -> None:
    try:
        with Agent(sshd.key("stranger"), sshd.key("rsa")) as agent:
            cluster = cluster_of(target(sshd), SshCredentials(agent=str(agent.socket)), tmp_path)
            assert cluster.sweep().runs == ()
            cluster.close()
            both = SshCredentials(sshd.key("stranger").private, agent=str(agent.socket))
            open_ssh(target(sshd), both, command()).close()
    except PartMissing as why:
        missing(why)
    gone = refusal(target(sshd), SshCredentials(agent=str(tmp_path / "no-agent")))
    assert gone.code == "ssh.agent"
    open_ssh(target(sshd), SshCredentials(sshd.key().private, agent=str(tmp_path / "no-agent")), command()).close()


def mangled(private: str) -> dict[str, str]:
    lines = private.strip().splitlines()
    return {
        "as it is": private,
        "carriage returns": private.replace("\n", "\r\n"),
        "no last newline": private.rstrip("\n"),
        "two letters for newline": private.replace("\n", "\\n"),
        "quoted": f'"{private}"',
        "indented": "".join(f"    {line}\n" for line in lines),
        "one line": " ".join(lines),
        "blank lines": "\n\n" + "\n\n".join(lines) + "\n\n",
        "byte order mark": "\ufeff" + private,
        "base64 again": base64.b64encode(private.encode()).decode(),
        "with words around": f"my key:\n{private}\nthe end",
    }


@pytest.mark.parametrize("kind", ["ed25519", "rsa-pem", "rsa-pem-passphrase"])
@pytest.mark.parametrize("how", list(mangled("")))
def test_a_key_is_repaired_as_it_was_pasted(how: str, kind: str, sshd: Sshd) -> None:
    from dispatcher.effects.sshkeys import load_key

    key = sshd.key(kind)
    if kind == "rsa-pem-passphrase" and how == "one line":
        pytest.skip("the headers of an old PEM file cannot be told from its body any more")
    loaded = load_key(mangled(key.private)[how], key.passphrase)
    assert loaded.get_base64() == key.public.split()[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "neither a private key nor an agent"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@there", "This is the public key"),
        ("-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----", "This is the public key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA", "cut off"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----", "damaged"),
        ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----", "damaged"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none", "PuTTY"),
        ("/home/me/.ssh/id_ed25519", "a path"),
        ("hunter2", "no private key"),
    ],
)
def test_what_is_no_key_is_told(text: str, words: str, sshd: Sshd) -> None:
    error = refusal(target(sshd), SshCredentials(text))
    assert error.code in ("ssh.key-unreadable", "ssh.no-key")
    assert words in error.cause
    assert "hunter2" not in error.cause


@pytest.mark.parametrize("kind", ["ed25519-passphrase", "rsa-pem-passphrase"])
def test_passphrases(kind: str, sshd: Sshd) -> None:
    private = sshd.key(kind).private
    assert refusal(target(sshd), SshCredentials(private)).code == "ssh.key-needs-passphrase"
    assert refusal(target(sshd), SshCredentials(private, "wrong")).code == "ssh.key-wrong-passphrase"
    open_ssh(target(sshd), SshCredentials(private, PASSPHRASE), command()).close()
    open_ssh(target(sshd), SshCredentials(sshd.key().private, "one too many"), command()).close()


def test_a_certificate_of_another_kind(sshd: Sshd) -> None:
    certificate = sshd.key("certificate").certificate
    assert refusal(target(sshd), SshCredentials(sshd.key("rsa").private, None, certificate)).code == "ssh.certificate"
    assert refusal(target(sshd), SshCredentials(sshd.key().private, None, "no certificate")).code == "ssh.certificate"


def test_a_key_that_is_not_accepted_is_named(sshd: Sshd) -> None:
    error = refusal(target(sshd), credentials(sshd, "stranger"))
    fingerprint = subprocess.run(["ssh-keygen", "-lf", str(sshd.key("stranger").path)], capture_output=True, text=True, check=True)
    assert error.code == "ssh.auth-failed"
    assert fingerprint.stdout.split()[1] in error.cause
    assert "ssh-ed25519" in error.cause
    assert f"{sshd.user}@{sshd.host}" in error.cause


# --------------------------------------------------------------------------- host keys


def test_an_unknown_host_is_named_and_not_trusted(sshd: Sshd) -> None:
    before = sshd.log.count("userauth-request") + sshd.connections()
    error = refusal(target(sshd, known=""), credentials(sshd))
    assert error.code == "ssh.host-key-unknown"
    public = sshd.known_hosts.split(" ", 1)[1].strip()
    shown = subprocess.run(["ssh-keygen", "-lf", "-"], input=public, capture_output=True, text=True, check=True).stdout.split()[1]
    assert shown in error.cause
    assert f"[{sshd.host}]:{sshd.port} {public}" in error.next_step
    assert sshd.log.count("userauth-request") + sshd.connections() == before
    other = refusal(target(sshd, known="other.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==\nnonsense\n"), credentials(sshd))
    assert other.code == "ssh.host-key-unknown"
    assert "cannot be read" in other.cause


def test_a_changed_host_key(sshd: Sshd) -> None:
    with started(Sshd()) as other:
        stolen = other.known_hosts_at(sshd.port)
    error = refusal(target(sshd, known=stolen), credentials(sshd))
    assert error.code == "ssh.host-key-changed"
    assert error.cause.count("SHA256:") == 2


def test_a_host_that_has_no_key_of_the_known_kind(sshd: Sshd) -> None:
    with started(Sshd(host_keys=("rsa",))) as other:
        known = other.known_hosts_at(sshd.port)
    error = refusal(target(sshd, known=known), credentials(sshd))
    assert error.code == "ssh.host-key-changed"
    assert "ssh-rsa" in error.cause


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_only_known_kinds_of_host_key_are_negotiated(kind: str) -> None:
    with started(Sshd(host_keys=("ed25519", "ecdsa", "rsa"))) as server:
        (line,) = [line for line in server.known_hosts.splitlines() if kind in line]
        open_ssh(target(server, known=line), credentials(server), command()).close()


def test_hashed_wildcard_revoked_and_aliased_names(sshd: Sshd, tmp_path: Path) -> None:
    given = credentials(sshd)
    hosts = tmp_path / "known_hosts"
    hosts.write_text(sshd.known_hosts)
    subprocess.run(["ssh-keygen", "-H", "-q", "-f", str(hosts)], check=True, capture_output=True)
    assert sshd.host not in hosts.read_text()
    key = sshd.known_hosts.split(" ", 1)[1].strip()
    for known in (hosts.read_text(), f"[127.0.0.?]:*,!nobody {key}", f"127.0.0.1 {key}"):
        open_ssh(target(sshd, known=known), given, command()).close()
    open_ssh(target(sshd, known=f"login.example.com {key}", alias="login.example.com"), given, command()).close()
    revoked = f"{sshd.known_hosts}@revoked * {key}\n"
    assert refusal(target(sshd, known=revoked), given).code == "ssh.host-key-revoked"
    assert refusal(target(sshd, known=f"[127.0.0.1]:{sshd.port},![127.0.0.*]:* {key}"), given).code == "ssh.host-key-unknown"
    authority = refusal(target(sshd, known=f"@cert-authority * {key}"), given)
    assert "@cert-authority" in authority.cause
    assert known_keys(hosts.read_text(), sshd.host, sshd.port) == known_keys(sshd.known_hosts, sshd.host, sshd.port)


# --------------------------------------------------------------------------- not reached


@contextlib.contextmanager
def listener(answer: Callable[[socket.socket], None] | None) -> Iterator[int]:
    """A port on which somebody accepts and then does `answer`, or nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    if answer is not None:
                        answer(connection)
                    else:
                        time.sleep(4)

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])


def test_nobody_listens(sshd: Sshd) -> None:
    (port,) = free_ports(1)
    error = refusal(target(sshd, port=port), credentials(sshd))
    assert error.code == "ssh.unreachable"
    assert "refused" in error.cause


def test_a_name_that_does_not_exist(sshd: Sshd) -> None:
    error = refusal(SshTarget("no-such-host.invalid", "ci", ""), credentials(sshd))
    assert error.code == "ssh.unreachable"
    assert "no-such-host.invalid" in error.cause


@pytest.mark.parametrize(
    "answer",
    [
        None,
        lambda connection: connection.close(),
        lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        lambda connection: connection.sendall(b"SSH-2.0-x\r\n" + b"\0" * 100),
    ],
    ids=["silence", "closed", "http", "nonsense"],
)
def test_somebody_else_listens(answer: Callable[[socket.socket], None] | None, sshd: Sshd, capfd: pytest.CaptureFixture[str]) -> None:
    with listener(answer) as port:
        error = refusal(target(sshd, port=port, known=""), credentials(sshd), timeout=2)
    assert error.code == "ssh.unreachable"
    assert "Traceback" not in capfd.readouterr().err


# --------------------------------------------------------------------------- jump host


def test_through_a_jump_host(sshd: Sshd, tmp_path: Path) -> None:
    with started(Sshd()) as jump:
        given = credentials(sshd)
        key = sshd.key()
        with (jump.folder / "authorized_keys").open("a") as authorized:
            authorized.write(key.public)
        before, jumped = sshd.mark(), jump.mark()
        cluster = cluster_of(target(sshd, jump=target(jump)), given, tmp_path)
        assert cluster.sweep().runs == ()
        cluster.close()
        wait_for_count(1, lambda: sshd.connections(before))
        wait_for_count(1, lambda: jump.connections(jumped))
        assert jump.sessions(jumped) == 0
        unknown = refusal(target(sshd, jump=target(jump, known="")), given)
        assert unknown.code == "ssh.host-key-unknown"
        assert f":{jump.port}" in unknown.cause
        last = refusal(target(sshd, known="", jump=target(jump)), given)
        assert last.code == "ssh.host-key-unknown"
        assert f":{sshd.port}" in last.cause
        (closed,) = free_ports(1)
        behind = refusal(target(sshd, port=closed, jump=target(jump)), given)
        assert behind.code == "ssh.unreachable"
        assert f"{jump.user}@{jump.host}:{jump.port} does not reach {sshd.host}:{closed}" in behind.cause
        assert refusal(target(sshd, jump=target(jump)), credentials(sshd, "stranger")).code == "ssh.auth-failed"


# --------------------------------------------------------------------------- what is at the other end


@pytest.mark.parametrize("name", list(USERS))
def test_login_shells_of_every_kind(name: str, sshd: Sshd, tmp_path: Path) -> None:
    try:
        user = sshd.login(name)
    except PartMissing as why:
        missing(why, may_be_required=False)
    cluster = cluster_of(target(sshd, user=user), credentials(sshd), tmp_path / "job 'dir'")
    if name == "nologin":
        with pytest.raises(ClusterError) as caught:
            cluster.sweep()
        assert caught.value.code == "cluster.bad-answer"
        assert "This account is currently not available" in caught.value.cause
    else:
        assert isinstance(submit(cluster, body="true"), Submitted)
    cluster.close()


def test_a_banner_is_no_answer(tmp_path: Path) -> None:
    with started(Sshd(banner="Unauthorized access is prohibited.\n" * 50)) as server:
        cluster = cluster_of(target(server), credentials(server), tmp_path)
        assert cluster.sweep().runs == ()
        cluster.close()


def test_a_key_that_may_only_run_something_else(tmp_path: Path) -> None:
    with started(Sshd()) as server:
        given = credentials(server)
        authorized = server.folder / "authorized_keys"
        for forced in ('command="echo only backups here"', 'restrict,command="internal-sftp"', 'command="sleep 60"'):
            authorized.write_text(f"{forced} {server.key().public}")
            cluster = cluster_of(target(server), given, tmp_path)
            if "sleep" not in forced:
                with pytest.raises(ClusterError) as caught:
                    cluster.sweep()
                assert caught.value.code == "cluster.bad-answer"
                assert "only backups here" in caught.value.cause or "sftp" in forced
            cluster.close()


@pytest.mark.parametrize(("folder", "code"), [("full_disk", "cluster.disk-full"), ("read_only", "cluster.not-writable")])
def test_disks_without_room_or_right(folder: str, code: str, sshd: Sshd) -> None:
    if sshd.user != "root":
        missing("the full and the read-only disk need root")
    cluster = cluster_of(target(sshd), credentials(sshd), getattr(sshd, folder) / "job")
    with pytest.raises(ClusterError) as caught:
        submit(cluster)
    assert caught.value.code == code
    cluster.close()


# --------------------------------------------------------------------------- one connection, one exec, few round trips


def test_one_connection_and_one_exec_for_everything(sshd: Sshd, tmp_path: Path) -> None:
    before = sshd.mark()
    cluster = cluster_of(target(sshd), credentials(sshd), tmp_path)
    cluster.start()
    submit(cluster, body="true")
    cluster.sweep()
    cluster.fetch(KEY, 0, 10, 10)
    cluster.find("pr-7")
    cluster.save(KEY, "{}", "x")
    cluster.retire(KEY)
    cluster.close()
    wait_for_count(1, lambda: sshd.connections(before))
    assert sshd.sessions(before) == 1


def test_round_trips(sshd: Sshd, latency: Callable[..., LatencyProxy], tmp_path: Path) -> None:
    """TCP, key exchange 2, authentication, channel, exec with the window for data, first answer; then one for each request."""
    rtt = 0.3

    def seconds(port: int) -> tuple[float, float]:
        cluster = cluster_of(target(sshd, port=port), credentials(sshd), tmp_path)
        begun = time.monotonic()
        answer = cluster.claim(claim_request(f"{port:016x}"))
        claimed = time.monotonic()
        assert isinstance(answer, Claimed)
        cluster.submit(submission(answer, f"{port:016x}", body="true"))
        submitted = time.monotonic()
        cluster.close()
        return claimed - begun, submitted - claimed

    near, far = seconds(sshd.port), seconds(latency(sshd.port, rtt=rtt).port)
    assert (far[0] - near[0]) / rtt < 7.9, (near, far)
    assert (far[1] - near[1]) / rtt < 1.9


def test_nothing_is_written_to_disk_and_nobody_is_asked(sshd: Sshd, tmp_path: Path) -> None:
    """In a process of its own, whose every opened file is looked at, with a terminal's absence as the only way to ask."""
    (tmp_path / "key").write_text(sshd.key("ed25519-passphrase").private)
    (tmp_path / "known").write_text(sshd.known_hosts)
    program = """
import os, sys
written = []
def look(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.append(arguments[0])
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "pty.spawn"):
        written.append(event)
key, known = open(sys.argv[1]).read(), open(sys.argv[2]).read()
from dispatcher.effects.ssh import *
from dispatcher.errors import SshError
sys.addaudithook(look)
for passphrase in (None, "wrong", sys.argv[5]):
    try:
        open_ssh(SshTarget("127.0.0.1", sys.argv[4], known, int(sys.argv[3])), SshCredentials(key, passphrase), "true").close()
        print("open")
    except SshError as error:
        print(error.code)
print([path for path in written if "__pycache__" not in str(path)])
"""
    argv = [sys.executable, "-c", program, str(tmp_path / "key"), str(tmp_path / "known"), str(sshd.port), sshd.user, PASSPHRASE]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, start_new_session=True)
    assert done.stdout.split("\n")[:4] == ["ssh.key-needs-passphrase", "ssh.key-wrong-passphrase", "open", "[]"], done.stderr


# --------------------------------------------------------------------------- cuts


@pytest.fixture(scope="module")
def pretended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sshd, PretendSlurm]]:
    """A login node with a scheduler of which we know every job."""
    slurm_like = PretendSlurm(tmp_path_factory.mktemp("slurm"))
    with started(Sshd(env={"PATH": f"{slurm_like.bin}:{SYSTEM_PATH}"})) as server:
        yield server, slurm_like


def deliver(to: SshTarget, given: SshCredentials, job_dir: Path, key: str) -> str:
    for _ in range(4):
        cluster = cluster_of(to, given, job_dir, "slurm")
        answer = cluster.claim(claim_request(key))
        if isinstance(answer, Claimed):
            answer = cluster.submit(submission(answer, key))
        cluster.close()
        if not isinstance(answer, InProgress):
            assert isinstance(answer, (Submitted, AlreadySubmitted)), answer
            return answer.job_id
    raise AssertionError("still in progress")


@pytest.mark.timeout(600)
def test_the_wire_breaks_at_every_place(pretended: tuple[Sshd, PretendSlurm], latency: Callable[..., LatencyProxy], tmp_path: Path) -> None:
    """The answer is either a job or an error that says the connection is to blame, and the next delivery finds the one job."""
    server, slurm_like = pretended
    given = credentials(server)
    proxy = latency(server.port)
    to = target(server, port=proxy.port)
    deliver(to, given, tmp_path, "f" * 16)
    carried = proxy.carried()
    outcomes: dict[str, int] = {}
    for number, direction in enumerate(("up", "down")):
        whole = carried[direction]
        for count in sorted({*range(1, whole, max(1, whole // 12)), *range(max(1, whole - 600), whole + 200, 100)}):
            key = f"{number * 1000000 + count:016x}"
            already = len(slurm_like.jobs)
            proxy.cut_after(count, direction)
            try:
                cluster = cluster_of(to, given, tmp_path, "slurm")
                answer = cluster.claim(claim_request(key))
                assert isinstance(answer, Claimed)
                assert isinstance(cluster.submit(submission(answer, key)), Submitted)
                outcomes["submitted"] = outcomes.get("submitted", 0) + 1
            except DispatchError as error:
                outcomes[error.code] = outcomes.get(error.code, 0) + 1
            cluster.close()
            proxy.cut_after(1 << 40, direction)
            deliver(to, given, tmp_path, key)
            assert len(slurm_like.jobs) == already + 1, (count, direction)
    assert set(outcomes) >= {"submitted", "ssh.unreachable", "ssh.cut"}, outcomes
    assert set(outcomes) <= {"submitted", "ssh.unreachable", "ssh.cut", "ssh.auth-failed"}, outcomes


def test_the_login_node_drops_us_while_sbatch_runs(pretended: tuple[Sshd, PretendSlurm], tmp_path: Path) -> None:
    server, slurm_like = pretended
    already = len(slurm_like.jobs)
    slurm_like.mode("sbatch", "slow")
    cluster = cluster_of(target(server), credentials(server), tmp_path, "slurm")
    answer = cluster.claim(claim_request())
    assert isinstance(answer, Claimed)
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(cluster.submit(submission(answer))))
    thread.start()
    while not list((tmp_path / "runs").glob("*/commit.*")):
        time.sleep(0.05)
    server.drop_connections()
    thread.join()
    cluster.close()
    slurm_like.mode("sbatch", "")
    assert len(slurm_like.jobs) == already + 1
    assert results == [Submitted(slurm_like.jobs[-1])], "the second connection has found the first one's job"


def test_a_cut_upload_is_sent_again(pretended: tuple[Sshd, PretendSlurm], latency: Callable[..., LatencyProxy], tmp_path: Path) -> None:
    import os

    server, slurm_like = pretended
    already = len(slurm_like.jobs)
    proxy = latency(server.port)
    tree = Tree({f"f{number}": os.urandom(100_000) for number in range(20)})
    cluster = cluster_of(target(server, port=proxy.port), credentials(server), tmp_path, "slurm")
    answer = cluster.claim(claim_request(tree=tree))
    assert isinstance(answer, Claimed)
    proxy.cut_after(1_000_000, "up")
    assert isinstance(cluster.submit(submission(answer, tree=tree)), Submitted)
    cluster.close()
    assert len(slurm_like.jobs) == already + 1
    assert tree.unpacked(tmp_path / "runs" / KEY / "code")


def test_a_cut_in_mid_answer(sshd: Sshd, latency: Callable[..., LatencyProxy], tmp_path: Path) -> None:
    proxy = latency(sshd.port)
    cluster = cluster_of(target(sshd, port=proxy.port), credentials(sshd), tmp_path)
    cluster.sweep()
    proxy.cut()
    for _ in range(2):
        with pytest.raises(SshError) as caught:
            cluster.sweep()
        assert caught.value.code == "ssh.cut"
        assert "still finishes" in caught.value.cause
    cluster.close()


def test_the_channel_is_closed_twice_without_harm(sshd: Sshd) -> None:
    channel = open_ssh(target(sshd), credentials(sshd), "cat")
    assert isinstance(channel, SshChannel)
    channel.write(b"x" * 100_000)
    assert channel.read(5)
    channel.close()
    channel.close()
    with pytest.raises(OSError, match="closed"):
        channel.write(b"y")
    assert TREE.files
