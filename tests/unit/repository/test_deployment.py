"""What is in deploy/, docker-compose.yml and the Dockerfiles, as far as no engine is needed.

"Seen to fail" in a docstring names a fault that was put into a file to see the test fail.
Needs, where they are there: kubernetes-validate (PyPI), kustomize, docker-compose.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from impala_server.front_end.monitoring.prometheus_series import SERIES

ROOT = Path(__file__).resolve().parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("training", "jobset", "thin", "ranks")
SECRETS = ("ca.crt", "server.crt", "server.key", "actor.token", "evaluator.token", "admin.token")
TOKEN_FILES = ("--actor-token-file", "--evaluator-token-file", "--admin-token-file")
RUN_S = 30.0


def compose() -> dict[str, Any]:
    """Returns docker-compose.yml, anchors and merges resolved."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def manifests() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yields every Kubernetes object and the file it is in."""
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path, document


def pod_templates() -> dict[str, dict[str, Any]]:
    """Returns pod templates by file and name of the workload."""
    found = {}
    for path, document in manifests():
        if document["kind"] in ("StatefulSet", "Deployment"):
            name = f"{path.stem}/{document['metadata']['name']}"
            found[name] = document["spec"]["template"]
        elif document["kind"] == "JobSet":
            for job in document["spec"]["replicatedJobs"]:
                found[f"{path.stem}/{job['name']}"] = job["template"]["spec"]["template"]
    return found


SERVICES = sorted(compose()["services"])


@pytest.mark.parametrize("name", SERVICES)
def test_compose_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = compose()["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert "privileged" not in service
    assert service.get("network_mode") in (None, "none")
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "published to this machine only"


def test_compose_learner_asks_for_tls_and_token_and_gives_time_to_end() -> None:
    services = compose()["services"]

    for name in ("learner", "learner-gpu"):
        command = services[name]["command"].split()
        for option in ("--tls-cert", "--tls-key", *TOKEN_FILES):
            assert option in command
        assert "--resume-if-exists" in command
        assert services[name]["stop_grace_period"] == "30s"
        assert services[name]["restart"] == "on-failure"
    assert "insecure" not in (ROOT / "docker-compose.yml").read_text()


def test_images_of_others_are_named_by_digest() -> None:
    """A tag may name other bytes tomorrow. Before: two images were named by tag alone."""
    for name, service in compose()["services"].items():
        if "build" in service or service["image"].startswith("impala-rl-"):
            continue
        assert re.fullmatch(r"[a-z/]+:v?[0-9.]+@sha256:[0-9a-f]{64}", service["image"]), name


@pytest.mark.parametrize("name", ["actor", "evaluator"])
def test_compose_actor_and_evaluator_have_their_own_token_and_nothing_else(name: str) -> None:
    """Written to find the learner's volume mounted, or an evaluator with the role of an actor."""
    service = compose()["services"][name]

    assert service["volumes"] == [f"{name}-secrets:/secrets:ro"]
    assert f"--token-file=/secrets/{name}.token" in service["command"]
    (script,) = compose()["services"]["certs"]["command"]
    given = re.search(rf"give /{name}-secrets (.*)", script)
    assert given is not None
    assert given[1].split() == ["ca.crt", f"{name}.token"]


def test_compose_policy_server_and_thin_actors_use_tls_and_the_actors_token() -> None:
    services = compose()["services"]
    server, thin = services["policy-server"], services["thin-actor"]

    for option in ("--tls-cert", "--tls-key", "--actor-token-file", "--token-file", "--ca-file"):
        assert any(word.startswith(f"{option}=/secrets/") for word in server["command"]), option
    for option in ("--ca-file", "--token-file"):
        assert any(word.startswith(f"{option}=/secrets/") for word in thin["command"]), option
    assert thin["volumes"] == ["actor-secrets:/secrets:ro"]
    assert thin["deploy"] == {"replicas": 3}
    text = (ROOT / "thin_client" / "Dockerfile").read_text()
    assert not re.search(r"^COPY (common|server|actor_client|policy_server)", text, re.MULTILINE)


def compose_commands() -> list[list[str]]:
    """Returns each compose there is: the docker-compose command, the plugin of docker."""
    found = []
    for command in (["docker-compose"], ["docker", "compose"]):
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run([*command, "version"], capture_output=True, timeout=RUN_S)
        if done.returncode == 0:
            found.append(command)
    return found


@pytest.mark.parametrize("profile", ["", "gpu", "monitoring", "admin", "thin"])
def test_compose_file_parses(profile: str) -> None:
    commands = compose_commands()
    if not commands:
        pytest.skip("neither docker-compose nor docker compose is installed")
    for command in commands:
        options = ["--profile", profile] if profile else []
        done = subprocess.run(
            [*command, *options, "-f", "docker-compose.yml", "config", "--quiet"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=RUN_S,
        )
        assert done.returncode == 0, (command, done.stderr)


def test_images_share_their_packages_line_for_line() -> None:
    """Otherwise both would be built, stored and pulled twice."""
    stages = []
    for folder in ("server", "actor_client"):
        text = (ROOT / folder / "Dockerfile").read_text()
        stages.append(text[text.index("ARG BASE") : text.index("FROM packages AS own")])

    assert stages[0] == stages[1]
    assert "COPY server" not in (ROOT / "actor_client" / "Dockerfile").read_text()


@pytest.mark.parametrize("name", sorted(pod_templates()))
def test_pod_has_no_more_rights_than_it_needs(name: str) -> None:
    spec = pod_templates()[name]["spec"]

    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= set(container["resources"])
        secrets = [each for each in container["volumeMounts"] if each["name"] == "secrets"]
        assert [each["readOnly"] for each in secrets] == [True]
        assert not [word for word in container["args"] if "insecure" in word]
    component = pod_templates()[name]["metadata"]["labels"]["app.kubernetes.io/component"]
    (secret,) = [each["secret"]["secretName"] for each in spec["volumes"] if "secret" in each]
    # A policy server shows the learner's certificate; thin actors have the actors' token.
    lent = {"policy-server": "learner", "thin-actor": "actor"}
    assert secret == f"impala-{lent.get(component, component)}"


def test_manifests_keep_to_the_schemas_of_kubernetes() -> None:
    """JobSet is no kind of Kubernetes itself: its jobs are looked at as what they become.

    Seen to fail with `replica:` for `replicas:` and with a probe's `timeoutSecond`.
    """
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed (pip install it)"
    )
    version = kubernetes_validate.latest_version()
    num_validated = 0
    for path, document in manifests():
        if path.name == "kustomization.yaml":
            continue
        documents = [document]
        if document["kind"] == "JobSet":
            documents = [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "metadata": {"name": job["name"]},
                    "spec": job["template"]["spec"],
                }
                for job in document["spec"]["replicatedJobs"]
            ]
        for each in documents:
            kubernetes_validate.validate(each, version, strict=True)
            num_validated += 1
    assert num_validated >= 12


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomization_builds_with_the_secrets_that_certs_init_makes(
    overlay: str, tmp_path: Path
) -> None:
    if shutil.which("kustomize") is None:
        pytest.skip("kustomize is not installed")
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    for name in SECRETS:
        (tmp_path / "kubernetes" / "base" / "secrets" / name).write_text(f"{name}\n")

    done = subprocess.run(
        ["kustomize", "build", str(tmp_path / "kubernetes" / overlay)],
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )

    assert done.returncode == 0, done.stderr
    built = {
        (each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)
    }
    assert set(built[("Secret", "impala-learner")]["data"]) == set(SECRETS)
    for name in ("actor", "evaluator"):
        assert set(built[("Secret", f"impala-{name}")]["data"]) == {"ca.crt", f"{name}.token"}
    for (kind, _), each in built.items():
        assert kind == "Namespace" or each["metadata"]["namespace"] == "impala"


def run_sbatch_until_time_is_up(
    tmp_path: Path, script: str, variables: dict[str, str], learner: str
) -> list[str]:
    """Plays a batch script on nodes n1 to n5 with stand-ins for Slurm's commands and ours.

    Returns what they noted, after the signal that Slurm sends when the time is nearly up.
    """
    log = tmp_path / "log"
    wait_for_term = "trap 'echo $(basename $0) ended >> $LOG; exit 0' TERM; echo up >> $LOG"
    wait_for_term += "; for _ in $(seq 200); do sleep 0.1; done"
    num_nodes = int(variables["SLURM_JOB_NUM_NODES"])
    names = "\\n".join(f"n{number}" for number in range(1, num_nodes + 1))
    stand_ins = {
        "scontrol": f'case $1 in show) printf "{names}\\n";; *) echo "$@" >> $LOG;; esac',
        "srun": 'echo "srun $*" >> $LOG; while [[ $1 == --* ]]; do shift; done; exec "$@"',
        learner: wait_for_term,
        "impala-actor": wait_for_term,
        "impala-admin": 'echo "$@" >> $LOG; mkdir -p "$3"; touch "$3/admin.token"',
    }
    for name, body in stand_ins.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/usr/bin/env bash\n{textwrap.dedent(body)}\n")
        file.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4", "SLURM_JOB_NODELIST": "n[1-9]"}
    paths = {"LOG": str(log), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    job = subprocess.Popen(
        ["bash", str(ROOT / "deploy" / "slurm" / script), "CartPole-v1", "--seed", "3"],
        cwd=tmp_path,
        env={**os.environ, **slurm, **paths, **variables},
        start_new_session=True,
    )
    try:
        for _ in range(600):
            if log.exists() and log.read_text().count("up\n") == 2:
                break
            threading.Event().wait(0.05)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(RUN_S) == 0
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    return log.read_text().splitlines()


def test_sbatch_learner_on_the_first_node_ends_in_order_when_time_is_up(tmp_path: Path) -> None:
    """With stand-ins for Slurm's commands and ours; no Slurm was there to try it on.

    Seen to fail (exit code 138, nothing requeued) with a single `wait`: a signal ends it.
    """
    lines = run_sbatch_until_time_is_up(
        tmp_path, "impala.sbatch", {"SLURM_JOB_NUM_NODES": "3"}, "impala-server"
    )

    assert lines[0] == "certs init runs/slurm-7.secrets/n1 --name n1"
    (server,) = [line for line in lines if "impala-server --env" in line]
    (actors,) = [line for line in lines if "impala-actor --server" in line]
    assert "--nodelist=n1" in server
    assert server.endswith("--seed 3")
    for option in ("--tls-cert", *TOKEN_FILES, "--resume-if-exists"):
        assert option in server
    assert "--exclude=n1" in actors
    assert "--ntasks=8" in actors
    assert "--server n1:50051" in actors
    assert {"impala-server ended", "impala-actor ended"} <= set(lines)
    assert lines[-1] == "requeue 7"


def test_sbatch_of_ranks_starts_them_on_the_first_nodes_and_actors_on_the_others(
    tmp_path: Path,
) -> None:
    """With the same stand-ins. Seen to fail with actors on all nodes."""
    variables = {"SLURM_JOB_NUM_NODES": "5", "LEARNER_NODES": "2", "RANKS_PER_NODE": "4"}

    lines = run_sbatch_until_time_is_up(tmp_path, "ranks.sbatch", variables, "torchrun")

    assert lines[0] == "certs init runs/slurm-7.secrets/n1-n2 --name n1 --name n2"
    (ranks,) = [line for line in lines if " torchrun " in line]
    (actors,) = [line for line in lines if "impala-actor --server" in line]
    for part in (
        "--nodelist=n1,n2",
        "--nnodes 2",
        "--nproc-per-node 4",
        "--rdzv-endpoint n1:29400",
    ):
        assert part in ranks
    assert ranks.endswith("--seed 3")
    for option in ("-m impala_server", "--tls-cert", *TOKEN_FILES, "--resume-if-exists"):
        assert option in ranks
    assert "--exclude=n1,n2" in actors
    assert "--ntasks=12" in actors
    assert "--server n1:50051" in actors
    assert {"torchrun ended", "impala-actor ended"} <= set(lines)
    assert lines[-1] == "requeue 7"


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"SLURM_JOB_NUM_NODES": "2"}, "actors need one"),
        ({"SLURM_JOB_NUM_NODES": "3", "RANKS_PER_NODE": "3"}, "as many actors as ranks"),
    ],
)
def test_sbatch_of_ranks_without_room_for_actors_is_refused(
    tmp_path: Path, variables: dict[str, str], text: str
) -> None:
    (tmp_path / "scontrol").write_text("#!/bin/sh\nprintf 'n1\\nn2\\nn3\\n'\n")
    (tmp_path / "scontrol").chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4", "SLURM_JOB_NODELIST": "n[1-3]"}
    path = f"{tmp_path}:{os.environ['PATH']}"

    done = subprocess.run(
        ["bash", str(ROOT / "deploy/slurm/ranks.sbatch"), "CartPole-v1"],
        env={**os.environ, **slurm, **variables, "PATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )

    assert done.returncode == 78
    assert text in done.stderr


def test_jobset_of_ranks_names_its_pods_as_its_certificate_and_rendezvous_do() -> None:
    """Names are JobSet's: SET-JOB-INDEX-POD.SUBDOMAIN. Seen to fail with a set of another name."""
    (jobset,) = [
        document
        for path, document in manifests()
        if path.parent.name == "ranks" and document["kind"] == "JobSet"
    ]
    (learner,) = jobset["spec"]["replicatedJobs"]
    job = learner["template"]["spec"]
    subdomain = jobset["spec"]["network"]["subdomain"]
    name = f"{jobset['metadata']['name']}-{learner['name']}-0"
    args = job["template"]["spec"]["containers"][0]["args"]

    assert jobset["spec"]["network"]["enableDNSHostnames"]
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == 2
    assert f"--nnodes={job['completions']}" in args
    assert f"--rdzv-endpoint={name}-0.{subdomain}:29400" in args
    assert f"--rank-host={name}-$(RANK_INDEX).{subdomain}" in args
    text = (KUBERNETES / "ranks" / "kustomization.yaml").read_text()
    for index in range(job["completions"]):
        assert f"--name {name}-{index}.{subdomain}" in text


def test_autoscaler_follows_a_metric_that_the_learner_has() -> None:
    (scaler,) = [one for _, one in manifests() if one["kind"] == "HorizontalPodAutoscaler"]
    (metric,) = scaler["spec"]["metrics"]
    text = (KUBERNETES / "ranks" / "autoscaler.yaml").read_text()

    assert f"name: {{as: {metric['external']['metric']['name']}}}" in text
    assert {series.name for series in SERIES} >= set(re.findall(r"impala_storage_fill\w*", text))
