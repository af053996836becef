"""The files that start a cluster agree with each other, with the jobs, and with the schema that Ray checks them by."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysparse.job import load_train_job

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
KUBERAY_FILES = ["kuberay-raycluster.yaml", "kuberay-rayjob.yaml"]


def load(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def load_kuberay(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The volume claim, the Ray resource, and the cluster spec inside the latter."""
    claim, resource = yaml.safe_load_all((CLUSTER / name).read_text())
    return claim, resource, resource["spec"].get("rayClusterSpec", resource["spec"])


def pod_specs(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def containerfile() -> str:
    return (CLUSTER / "Containerfile").read_text()


def copied_paths() -> set[str]:
    """What the Containerfile copies from the checkout."""
    lines = re.findall(r"^COPY (.+)$", containerfile(), re.MULTILINE)
    return {source for line in lines for source in line.split()[:-1]}


def pinned_ray() -> str:
    found = re.search(r'"ray\[[a-z,]+\]==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert found
    return found[1]


def submitted_commands() -> list[str]:
    """Every `raysparse train ...` in the cluster files, in comments as well as in keys."""
    texts = [path.read_text() for path in sorted(CLUSTER.glob("*.yaml"))]
    return [command for text in texts for command in re.findall(r"raysparse train [^\n`]+", text)]


def test_ray_accepts_the_cluster_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = load("ray-cluster.yaml")
    prepared = prepare_config(config)
    validate_config(prepared)
    node_type = prepared["available_node_types"]["local.cluster.node"]
    num_workers = len(config["provider"]["worker_ips"])
    assert (node_type["min_workers"], node_type["max_workers"]) == (num_workers, num_workers)


def test_ray_refuses_a_misspelt_key():
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = load("ray-cluster.yaml") | {"setup_command": []}
    with pytest.raises(jsonschema.ValidationError, match="setup_command"):
        validate_config(prepare_config(config))


def test_every_machine_installs_by_the_script_and_starts_with_a_token():
    config = load("ray-cluster.yaml")
    assert sum("cluster/install.sh" in command for command in config["setup_commands"]) == 1
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = config[key][-1]
        assert "ray start" in start
        assert "RAY_AUTH_MODE=token" in start


def test_machines_and_image_get_the_same_files():
    mounted = {source for source in load("ray-cluster.yaml")["file_mounts"].values() if not source.startswith("~")}
    assert mounted == copied_paths()
    # LICENSE and README.md belong to the package's metadata: pip reads them when it installs.
    assert {"pyproject.toml", "raysparse", "jobs", "cluster"} <= mounted
    assert [path for path in mounted if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", KUBERAY_FILES)
def test_kuberay_pods_run_the_image_with_the_shared_volume(name: str):
    claim, resource, cluster = load_kuberay(name)
    image = re.search(r"build .*-t (\S+) \.", containerfile())
    folder = re.search(r"^WORKDIR (\S+)$", containerfile(), re.MULTILINE)
    user = re.search(r"^USER (\d+):(\d+)$", containerfile(), re.MULTILINE)
    assert image
    assert folder
    assert user
    assert resource["apiVersion"] == "ray.io/v1"
    assert cluster["rayVersion"] == pinned_ray()
    assert cluster["authOptions"] == {"mode": "token"}
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pod_specs(cluster):
        (container,) = pod["containers"]
        assert container["image"] == image[1]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"] == container["resources"]["requests"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert mounts == {f"{folder[1]}/data": "shared", f"{folder[1]}/runs": "shared"}
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert str(pod["securityContext"]["fsGroup"]) == user[2]


def test_both_manifests_describe_the_same_cluster():
    clusters = [load_kuberay(name)[2] for name in KUBERAY_FILES]
    groups = [(cluster["headGroupSpec"], cluster["workerGroupSpecs"]) for cluster in clusters]
    assert groups[0] == groups[1]
    assert load_kuberay(KUBERAY_FILES[0])[0] == load_kuberay(KUBERAY_FILES[1])[0]


def test_the_job_resumes_after_a_lost_cluster():
    spec = load_kuberay("kuberay-rayjob.yaml")[1]["spec"]
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["backoffLimit"] >= 1
    assert "--resume" in shlex.split(spec["entrypoint"])


@pytest.mark.parametrize("command", submitted_commands())
def test_submitted_jobs_are_valid_and_keep_their_run_on_the_volume(command: str):
    words = shlex.split(command)[2:]
    overrides = tuple(word for word in words[1:] if not word.startswith("--"))
    job = load_train_job(ROOT / words[0], overrides)
    assert job.run_folder.startswith("runs/")
    assert job.data.path.startswith("data/")


def test_the_workers_of_the_job_fit_its_pods():
    spec = load_kuberay("kuberay-rayjob.yaml")[1]["spec"]
    words = shlex.split(spec["entrypoint"])
    scaling = load_train_job(ROOT / words[2], tuple(word for word in words[3:] if "=" in word)).scaling
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    num_cpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert group["replicas"] == scaling.num_workers
    assert scaling.threads_per_worker == num_cpus
