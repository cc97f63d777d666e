"""What the daemons of a test cluster are told: virtual nodes with fake GPUs, and partitions.

`main` and `low`, which `main` preempts, share two nodes, where most of the tests happen. So that
what takes long can go on meanwhile, `fragile` has two that a test may break, and `apart` has one
that nothing disturbs. Nothing lies in /etc: `SLURM_CONF` leads to the settings.
"""

import contextlib
import os
import random
import shutil
import socket
from pathlib import Path

PROGRAMS = (
    *("munged", "slurmctld", "slurmd", "slurmdbd", "mariadb", "mariadbd", "mariadb-install-db"),
    *("sbatch", "squeue", "scancel", "scontrol", "sacct", "sacctmgr", "sinfo", "srun", "munge"),
)
SYSTEM = "/usr/sbin:/sbin"
"""Where daemons are, which is not on everybody's PATH."""

NODES = ("n1", "n2", "n3", "n4", "n5")
CPUS, GPUS, MEMORY_MB = 4, 2, 20_000

# How long a requeued job waits before it starts again is bound to how long credentials are valid.
# Virtual nodes have more CPUs than the machine, so configuration counts and no cgroup is needed.
_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock,cred_expire=5
CredType=cred/munge
CommunicationParameters={bound}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldDebug=info
SlurmdDebug=info
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=200
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
ReturnToService=2
InactiveLimit=0
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={root}/munge.sock
AccountingStorageTRES=gres/gpu
GresTypes=gpu
{nodes}
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE DefaultTime=60 State=UP PriorityTier=1
PartitionName=fragile Nodes=n[3-4] MaxTime=INFINITE DefaultTime=60 State=UP PriorityTier=1
PartitionName=apart Nodes=n5 MaxTime=INFINITE DefaultTime=60 State=UP PriorityTier=1
PartitionName=low Nodes=n[1-2] MaxTime=INFINITE DefaultTime=60 State=UP PriorityTier=0
"""
_NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Boards=1 "
    "SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory={memory} "
    "Gres=gpu:{gpus} State=UNKNOWN"
)
_DBD_CONF = """\
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock
CommunicationParameters={bound}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
PidFile={root}/slurmdbd.pid
"""


def unavailable() -> str | None:
    """Why no cluster can be started here; None where one can."""
    path = environment()["PATH"]
    missing = [it for it in PROGRAMS if shutil.which(it, path=path) is None]
    if missing:
        return f"no Slurm here ({', '.join(missing)}): bash tests/slurm/install.sh, as root"
    if os.getuid() != 0:
        return "a Slurm of one's own needs root"
    return None


def environment(root: Path | None = None) -> dict[str, str]:
    """What finds Slurm's programs, and of a cluster its configuration and database."""
    found = {key: it for key, it in os.environ.items() if not key.startswith("SLURM_")}
    found["PATH"] = f"{found.get('PATH', '')}:{SYSTEM}"
    found["LC_ALL"] = "C"
    if root is not None:
        found["SLURM_CONF"] = f"{root}/slurm.conf"
        found["MYSQL_UNIX_PORT"] = f"{root}/mysql.sock"
    return found


def write(root: Path) -> None:
    """Write what the daemons of a cluster in a new folder are told."""
    host = socket.gethostname().split(".")[0]
    for name in ("state", "log", "dev", *(f"spool/{node}" for node in NODES)):
        (root / name).mkdir(parents=True)
    for i in range(GPUS):  # slurmd wants devices and looks at what a link leads to
        (root / "dev" / f"gpu{i}").symlink_to("/dev/null")
    ctld, dbd, *ports = _free_ports(2 + len(NODES))
    bound = "DisableIPv6" + (",NoInAddrAny,NoCtldInAddrAny" if _named_locally() else "")
    facts = {"root": root, "host": host, "ctld": ctld, "dbd": dbd, "bound": bound}
    sizes = {"host": host, "cpus": CPUS, "gpus": GPUS, "memory": MEMORY_MB}
    nodes = [
        _NODE.format(name=name, port=port, **sizes) for name, port in zip(NODES, ports, strict=True)
    ]
    (root / "slurm.conf").write_text(_CONF.format(nodes="\n".join(nodes), **facts))
    (root / "slurmdbd.conf").write_text(_DBD_CONF.format(**facts))
    (root / "slurmdbd.conf").chmod(0o600)
    (root / "gres.conf").write_text(
        f"NodeName={','.join(NODES)} Name=gpu File={root}/dev/gpu[0-{GPUS - 1}]\n"
    )
    (root / "cgroup.conf").write_text("CgroupAutomount=no\nConstrainCores=no\n")
    (root / "munge.key").write_bytes(os.urandom(128))
    (root / "munge.key").chmod(0o600)


def _named_locally() -> bool:
    """Whether daemons that listen where this machine's own name leads are reached from here alone.

    Where they would not, they have to listen everywhere to be reached.
    """
    try:
        return socket.gethostbyname(socket.gethostname()).startswith("127.")
    except OSError:
        return False


def _free_ports(n: int) -> list[int]:
    """Ports that nobody listens on, below those that the system hands out by itself."""
    found: list[int] = []
    while len(found) < n:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            found.append(port)
    return found if len(set(found)) == n else _free_ports(n)
