import zlib

import pytest

from experiments import config_fields, errors, launchers

Config = config_fields.RuntimeConfig

SLURM = {"SLURM_JOB_ID": "5000", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "SLURM_STEP_NODELIST": "n[07-09,11]"}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_NAMESPACE": "j",
}
TPU = {"TPU_WORKER_HOSTNAMES": "t0, t1", "TPU_WORKER_ID": "1"}


@pytest.mark.parametrize(
    ("config", "environ", "expected"),
    [
        (Config(), {}, None),
        (Config(), {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "4"}, None),  # A shell inside an allocation, without srun.
        (Config(), {**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, None),
        (Config(), {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
        (Config(), SLURM, (f"n07:{61000 + 5000 % 4096}", 4, 2)),
        (Config(), MPI, (f"127.0.0.1:{61000 + zlib.crc32(b'j') % 4096}", 2, 1)),
        (Config(), TPU, ("t0:8476", 2, 1)),
        (Config(coordinator="h:1"), {**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, ("h:1", 2, 1)),
        (Config(coordinator="h:1", num_processes=3, process_id=0), SLURM, ("h:1", 3, 0)),  # Flags win.
        (Config(coordinator="h:1", num_processes=1, process_id=0), {}, None),
        (Config(num_processes=1), {}, None),
        (Config(coordinator="auto"), {}, (None, None, None)),
    ],
)
def test_flags_and_launchers_decide_who_meets_where(config, environ, expected):
    meeting = launchers.rendezvous(config, environ)
    assert (meeting and (meeting.address, meeting.count, meeting.index)) == expected


@pytest.mark.parametrize(
    ("config", "environ"),
    [
        (Config(coordinator="h:1"), {}),
        (Config(num_processes=2, process_id=0), {}),
        (Config(), {**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}),  # Several hosts, and none is named.
    ],
)
def test_half_a_rendezvous_is_refused(config, environ):
    with pytest.raises(errors.InputError, match="--runtime.coordinator=HOST:PORT"):
        launchers.rendezvous(config, environ)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("n[001-004,7],x1", "n001"),
        ("n[3]", "n3"),
        ("x1,n[1-2]", "x1"),
        ("g[1-2]-ib", "g1-ib"),
    ],
)
def test_first_host_of_a_slurm_list(nodes, first):
    assert launchers.first_host(nodes) == first
