"""cluster/: what Ray's launcher and autoscaler, EC2, KubeRay and Serve would accept. No cloud is asked."""

import copy
import importlib
import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from jsonschema import Draft202012Validator, validators
from yolov7_ray.program import VERSION

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
REFERENCE = Path(os.environ.get("YOLOV7_TEST_REFERENCE", ROOT.parent / "shared" / "reference"))
LAUNCHERS = ("aws.yaml", "gcp.yaml")
MANIFESTS = {"ray-cluster.yaml": "rayclusters", "ray-job.yaml": "rayjobs", "ray-service.yaml": "rayservices"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def launcher(name: str) -> dict:
    """The launcher file as `ray up` sees it: filled with the defaults of its provider."""
    from ray.autoscaler._private.util import prepare_config

    return prepare_config(yaml.safe_load((CLUSTER / name).read_text()))


def manifest(name: str) -> dict:
    return yaml.safe_load((CLUSTER / "kuberay" / name).read_text())


def ray_cluster(name: str) -> dict:
    """The RayCluster spec inside any of the manifests."""
    spec = manifest(name)["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


# --- Ray's launcher ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAUNCHERS)
def test_ray_accepts_the_launcher_file(name):
    from ray.autoscaler._private.util import validate_config

    validate_config(launcher(name))
    misspelt = launcher(name) | {"idle_timeout_minute": 1}
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute"):
        validate_config(misspelt)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_nothing_is_installed_over_the_image(name):
    config = launcher(name)
    assert config["setup_commands"] == [] and not config["worker_setup_commands"]
    assert not any("ray" in command for command in config["head_setup_commands"])


def test_ec2_accepts_every_node_type():
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    shape = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for node_type in launcher("aws.yaml")["available_node_types"].values():
        request = node_type["node_config"] | {"MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), report.generate_report()


@pytest.mark.parametrize("name", LAUNCHERS)
def test_gpu_workers_come_on_spot_and_fall_back_to_on_demand(name):
    """Ray's own autoscaler decides, for one GPU that is wanted, before and after a failed spot request."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    config = launcher(name)
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert all(kind["min_workers"] == 0 for kind in types.values())

    def launched(**availabilities) -> dict[str, int]:
        request = SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=AutoscalingConfig(config, skip_content_hash=True).get_node_type_configs(),
            max_num_nodes=config["max_workers"] + 1,
            resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make({"GPU": 1, "CPU": 1})]),
            **availabilities,
        )
        launches = ResourceDemandScheduler().schedule(request).to_launch
        return {launch.instance_type: launch.count for launch in launches if launch.instance_type != "head"}

    assert launched() == {"gpu-spot": 1}
    assert launched(recoverable_resource_availabilities={"gpu-spot": 0.0}) == {"gpu-on-demand": 1}


def test_spot_types_are_spot_types():
    types = launcher("aws.yaml")["available_node_types"]
    assert [name for name, kind in types.items() if "InstanceMarketOptions" in kind["node_config"]] == ["gpu-spot"]
    types = launcher("gcp.yaml")["available_node_types"]
    models = {name: kind["node_config"].get("scheduling", {}).get("provisioningModel") for name, kind in types.items()}
    assert models == {"head": None, "cpu": None, "gpu-spot": "SPOT", "gpu-on-demand": "STANDARD"}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_workers_keep_shards_on_local_disk(name):
    config = launcher(name)
    options = " ".join(config["docker"]["worker_run_options"])
    host_dir, container_dir = re.search(r"--volume (\S+):(\S+)", options).groups()
    assert f"--env YOLOV7_CACHE_DIR={container_dir}" in options
    for node_type, kind in config["available_node_types"].items():
        if node_type != "head":
            assert any(host_dir in command for command in kind["initialization_commands"]), node_type


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launcher_shares_the_token_and_keeps_the_dashboard_on_loopback(name):
    config = launcher(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = " ".join(config["head_start_ray_commands"] + config["worker_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in starts
    assert starts.count("ray start") == starts.count("--disable-usage-stats") == 2
    assert "RAY_AUTH_MODE=disabled" not in (CLUSTER / name).read_text()


def test_no_port_is_open_to_the_world():
    for path in sorted(CLUSTER.rglob("*")):
        if path.is_file():
            text = path.read_text()
            for opening in ("0.0.0.0/0", "::/0", "--dashboard-host=0.0.0.0", "LoadBalancer", "NodePort", "hostNetwork"):
                assert opening not in text, f"{path.name} holds {opening}"
    group = launcher("aws.yaml")["provider"]["security_group"]
    assert set(group) == {"GroupName"}, "rules added here would be open beside those of the group"
    for kind in launcher("gcp.yaml")["available_node_types"].values():
        subnets = [interface["subnetwork"] for interface in kind["node_config"]["networkInterfaces"]]
        assert subnets and not any("default" in subnet for subnet in subnets)


# --- KubeRay ----------------------------------------------------------------------------------------


def as_json_schema(schema):
    """Kubernetes prunes fields that a CRD does not name; here they are errors, so that a typo is seen."""
    if isinstance(schema, list):
        return [as_json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties"):  # the keys below are field names, not keywords
            strict[key] = {field: as_json_schema(sub) for field, sub in value.items()}
        elif key not in ("format", "default", "example"):  # int32 and the like constrain nothing here
            strict[key] = as_json_schema(value)
    if schema.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
        strict["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("nullable"):
        strict = {"anyOf": [{"type": "null"}, strict]}
    closed = "properties" in schema and "additionalProperties" not in schema
    if closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict["additionalProperties"] = False
    return strict


def _list_map_keys(validator, keys, instance, schema):
    """Items of a list-map are told apart by these keys, e.g. two variables of one name."""
    seen = set()
    for item in instance if isinstance(instance, list) else ():
        identity = tuple(item.get(key) for key in keys)
        if identity in seen:
            yield jsonschema.ValidationError(f"{dict(zip(keys, identity))} occurs twice")
        seen.add(identity)


def _list_type(validator, kind, instance, schema):
    if kind == "set" and isinstance(instance, list) and len(set(instance)) < len(instance):
        yield jsonschema.ValidationError(f"{instance} holds something twice")


CRDValidator = validators.extend(
    Draft202012Validator, {"x-kubernetes-list-map-keys": _list_map_keys, "x-kubernetes-list-type": _list_type})
_validators = {}


def crd_validator(plural: str, version: str):
    folder = REFERENCE / "kuberay-crds"
    if not folder.is_dir():
        pytest.skip(f"no KubeRay definitions in {folder}; YOLOV7_TEST_REFERENCE names their parent folder")
    if (plural, version) not in _validators:
        definition = yaml.load((folder / f"{plural}.yaml").read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        schemas = {v["name"]: v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["served"]}
        kind = definition["spec"]["names"]["kind"]
        _validators[plural, version] = CRDValidator(as_json_schema(schemas[version])), kind
    return _validators[plural, version]


def crd_errors(document: dict, plural: str) -> list[str]:
    group, version = document["apiVersion"].split("/")
    validator, kind = crd_validator(plural, version)
    assert (group, document["kind"]) == ("ray.io", kind)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("name, plural", MANIFESTS.items())
def test_kuberay_accepts_the_manifest(name, plural):
    assert crd_errors(manifest(name), plural) == []


def _typo(group, old, new):
    group[new] = group.pop(old)


@pytest.mark.parametrize("spoil, message", [
    (lambda spec: _typo(spec, "authOptions", "authOption"), "authOption"),
    (lambda spec: spec["authOptions"].update(mode="tokens"), "tokens"),
    (lambda spec: spec["workerGroupSpecs"][0].update(minReplicas="none"), "none"),
    (lambda spec: spec["workerGroupSpecs"][0].pop("maxReplicas"), "maxReplicas"),
    (lambda spec: _typo(spec["headGroupSpec"]["template"]["spec"], "containers", "container"), "container"),
    (lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"].update(
        limits={"memory": "16 GB"}), "16 GB"),
    (lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"][0].pop("containerPort"),
     "containerPort"),
    (lambda spec: spec["workerGroupSpecs"][-1]["template"]["spec"]["volumes"].append(
        copy.deepcopy(spec["workerGroupSpecs"][-1]["template"]["spec"]["volumes"][0])), "occurs twice"),
])
def test_mistakes_in_a_manifest_are_seen(spoil, message):
    document = copy.deepcopy(manifest("ray-cluster.yaml"))
    spoil(document["spec"])
    assert any(message in error for error in crd_errors(document, "rayclusters"))


@pytest.mark.parametrize("name", MANIFESTS)
def test_pods_are_unprivileged_authenticated_and_autoscaled(name):
    cluster = ray_cluster(name)
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    gpu_groups = 0
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        mounts = {mount["name"] for mount in container.get("volumeMounts", ())}
        assert mounts == {volume["name"] for volume in pod.get("volumes", ())}
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        gpus = resources["limits"].get("nvidia.com/gpu", 0)
        assert gpus == resources["requests"].get("nvidia.com/gpu", 0)
        gpu_groups += bool(gpus) and group["minReplicas"] < group["maxReplicas"]
    assert gpu_groups == 1
    assert "nvidia.com/gpu" not in cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_the_job_of_the_ray_job_fits_its_cluster():
    from yolov7_ray.jobs.job_file import load_job

    words = shlex.split(manifest("ray-job.yaml")["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "yolov7_ray"]
    path = ROOT / Path(words[3]).relative_to("/opt/yolov7")
    overrides = [value for flag, value in zip(words[4:], words[5:]) if flag == "--set"]
    assert len(overrides) * 2 == len(words[4:])
    job = load_job(str(path), overrides)
    (group,) = ray_cluster("ray-job.yaml")["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert job.resources.workers * job.resources.gpus_per_worker <= group["maxReplicas"] * limits["nvidia.com/gpu"]


def serve_config() -> dict:
    return yaml.safe_load(manifest("ray-service.yaml")["spec"]["serveConfigV2"])


def test_serve_accepts_the_config_and_its_arguments_are_a_serve_job():
    from ray.serve.schema import ServeDeploySchema
    from yolov7_ray.serve.spec import ServeSpec

    config = serve_config()
    ServeDeploySchema.model_validate(config)
    (application,) = config["applications"]
    spec = ServeSpec.model_validate(application["args"])
    assert all(found.min >= 2 for found in spec.autoscaling.values()) and spec.token_env
    module, builder = application["import_path"].split(":")
    assert callable(getattr(importlib.import_module(module), builder))


def test_service_is_ready_after_a_real_inference():
    cluster, port = ray_cluster("ray-service.yaml"), serve_config()["http_options"]["port"]
    (group,) = cluster["workerGroupSpecs"]
    (worker,) = group["template"]["spec"]["containers"]
    assert worker["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port}
    assert {"name": "serve", "containerPort": port} in worker["ports"]
    assert group["minReplicas"] >= 2
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert {"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "1"} in group["template"]["spec"]["containers"][0]["env"]
    routes = (ROOT / "platform/yolov7_ray/serve").rglob("*.py")
    assert any("/readyz" in path.read_text() for path in routes)


# --- the image --------------------------------------------------------------------------------------


def dockerfile() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile in order: (name, rest of the logical line)."""
    text = re.sub(r"^\s*#.*\n", "", (CLUSTER / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def test_image_is_built_on_an_argument_and_runs_without_root():
    instructions = dockerfile()
    names = [name for name, _ in instructions]
    argument, default = instructions[0][1].split("=")
    assert names[:2] == ["ARG", "FROM"] and instructions[1][1] == f"${{{argument}}}"
    assert default.startswith("nvidia/cuda:")
    users = [rest for name, rest in instructions if name == "USER"]
    assert users == ["ray"]
    commands = dict(instructions[names.index("USER"):])
    assert commands["CMD"] and "apt-get" not in commands["RUN"]


def test_image_authenticates_and_reports_nothing():
    environment = dict(re.findall(r"(\w+)=(\S+)", " ".join(rest for name, rest in dockerfile() if name == "ENV")))
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert environment["HOME"] == "/home/ray"  # the launcher reads it from the image to place the token


@pytest.mark.parametrize(("host", "metrics"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "*"), ("10.1.2.3", "10.1.2.3")])
def test_statistics_of_haproxy_are_not_open_to_everyone(host, metrics, tmp_path):
    """The image's HAProxy with the configuration that Ray Serve writes for it."""
    from ray.serve._private.haproxy import HAProxyApi, HAProxyConfig
    from ray.serve.config import HTTPOptions

    config = tmp_path / "haproxy.cfg"
    HAProxyApi(HAProxyConfig(http_options=HTTPOptions(host=host, port=8123)), {},
               str(config))._generate_config_file_internal()
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for _ in range(2):  # Ray starts it again with the same file
        checked = subprocess.run([CLUSTER / "haproxy.sh", "-c", "-f", config], env=environment, capture_output=True,
                                 text=True, timeout=300)
    assert checked.returncode == 0 and "Configuration file is valid" in checked.stdout, checked.stderr
    assert re.findall(r"^ *bind (.*)", config.read_text(), re.M) == [f"{metrics}:9101", f"{metrics}:8123",
                                                                     "127.0.0.1:8404"]
    defaults = re.search(r"^defaults\n(.*?)^frontend", config.read_text(), re.M | re.S)[1]
    assert defaults.count("option http-buffer-request") == defaults.count("timeout http-request 20s") == 1
    image = dict(re.findall(r"(\w+)=(\S+)", " ".join(rest for name, rest in dockerfile() if name == "ENV")))
    assert image["RAY_SERVE_HAPROXY_BINARY_PATH"] == "/opt/yolov7/cluster/haproxy.sh"
    assert image["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"] == "524288", "what is whole in the buffer can be repeated"
    assert 'RAY_SERVE_HAPROXY_RETRY_ON="conn-failure empty-response"' in (CLUSTER / "Dockerfile").read_text()
    assert ("COPY", "--chown=ray:ray cluster/haproxy.sh ./cluster/haproxy.sh") in dockerfile()


def test_image_holds_what_pyproject_pins(capsys, monkeypatch):
    """The Dockerfile names no version itself: it reads pyproject.toml, with this very program."""
    commands = " ".join(rest for name, rest in dockerfile() if name == "RUN")
    assert "==" not in commands
    program = re.search(r'python -c "(.*?)"', commands).group(1)
    monkeypatch.chdir(ROOT)
    exec(program, {})
    assert capsys.readouterr().out.splitlines() == PROJECT["dependencies"]


def test_image_holds_every_part_of_the_project():
    copied = {word for name, rest in dockerfile() if name == "COPY" for word in rest.split()[:-1]}
    assert {"pyproject.toml", "README.md", "LICENSE", "submit.py", "yolov7", "platform", "jobs"} <= copied


def test_versions_agree():
    (ray,) = [pin for pin in PROJECT["dependencies"] if pin.startswith("ray[")]
    version = ray.split("==")[1]
    assert version == importlib.metadata.version("ray")
    images = set()
    for name in MANIFESTS:
        cluster = ray_cluster(name)
        assert cluster["rayVersion"] == version
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            images.add(group["template"]["spec"]["containers"][0]["image"])
    images |= {launcher(name)["docker"]["image"] for name in LAUNCHERS}
    assert images == {f"REGISTRY/yolov7-ray:{VERSION}"}
