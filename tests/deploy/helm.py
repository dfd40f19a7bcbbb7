"""Lints and renders the chart as operators set it, checks what comes out against the schemas of Kubernetes, and lets
weir read its own configuration. helm.py CHART WEIR"""

import os
import pathlib
import subprocess
import sys
import tempfile

import helm_python as helm
import kubernetes_validate
import ruamel.yaml

KEYS = "key: 0123456789abcdef0123456789abcdef"
VALUES = {
    "defaults": {"keys": KEYS},
    "several": {"keys": KEYS, "replicaCount": 3, "config": {"nodes": {"directory": ["nats://nats:4222"]}}},
    "everything": {
        "existingSecret": "mine",
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls"},
        "autoscaling": {"enabled": True},
        "roomsKeptTogether": True,
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True},
        "extraEnv": [{"name": "RUST_BACKTRACE", "value": "1"}],
        "extraVolumes": [{"name": "scratch", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        "nodeSelector": {"media": "yes"},
        "tolerations": [{"key": "media", "operator": "Exists"}],
    },
    "matrix": {
        "keys": KEYS,
        "state": {"persistentVolumeClaim": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Mi"}}}},
        "secretFiles": [{"secret": "weir-homeserver", "path": "/run/weir/homeserver"}],
        "config": {
            "room": {"auto_create": False},
            "matrix": {
                "url": "wss://rtc.example.org",
                "homeservers": [
                    {
                        "server_name": "example.org",
                        "client_api_url": "http://synapse:8008",
                        "as_token_file": "/run/weir/homeserver/as_token",
                        "hs_token_file": "/run/weir/homeserver/hs_token",
                    }
                ],
            },
        },
    },
    "turn": {
        "keys": KEYS,
        "secretFiles": [{"secret": "turn-certificate", "path": "/run/weir/turn"}],
        "config": {
            "turn": {
                "enabled": True,
                "domain": "turn.example.org",
                "cert_file": "/run/weir/turn/tls.crt",
                "key_file": "/run/weir/turn/tls.key",
            }
        },
    },
    "tls": {
        "keys": KEYS,
        "state": {"existingClaim": "mine"},
        "secretFiles": [{"secret": "certificate", "path": "/run/weir/tls"}],
        "config": {"tls": {"cert_file": "/run/weir/tls/tls.crt", "key_file": "/run/weir/tls/tls.key"}},
    },
}
REFUSED = [
    {},
    {"keys": KEYS, "replicaCount": 2},
    {"keys": KEYS, "replicaCount": 2, "roomsKeptTogether": True, "state": {"existingClaim": "mine"}},
]
# Of another project: there is no schema for them.
FOREIGN = ["ServiceMonitor", "PrometheusRule"]


def rendered(chart, values):
    """All objects of the chart with these values."""
    yaml = ruamel.yaml.YAML(typ="safe")
    with helm.Chart.load(chart) as loaded:
        texts = loaded.render(values=values, name="demo", namespace="calls")
    return [item for text in texts.values() for item in yaml.load_all(text) if item]


def check_weir(weir, config_map):
    """Weir takes its configuration, with the files of secrets where the chart puts them."""
    with tempfile.TemporaryDirectory() as folder:
        text = config_map["data"]["weir.yaml"].replace("/run/weir/", f"{folder}/")
        for kind in ["homeserver/as_token", "homeserver/hs_token"]:
            path = pathlib.Path(folder, kind)
            path.parent.mkdir(exist_ok=True)
            path.write_text("0123456789abcdef0123456789abcdef")
        file = pathlib.Path(folder, "weir.yaml")
        file.write_text(text)
        command = [weir, "token", "--config", file, "--identity", "a", "--room", "r"]
        environment = os.environ | {"WEIR_KEYS": KEYS, "WEIR_NODE_ADDRESS": "10.0.0.5"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def check_pods(name, values, stateful):
    """What is mounted is there, by one name each, and state outlives a pod where that was asked for."""
    pod = stateful["spec"]["template"]["spec"]
    claims = [claim["metadata"]["name"] for claim in stateful["spec"].get("volumeClaimTemplates", [])]
    volumes = [volume["name"] for volume in pod["volumes"]] + claims
    assert len(volumes) == len(set(volumes)), volumes
    container = pod["containers"][0]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert sorted(mounts) == sorted(volumes), (mounts, volumes)
    environment = {variable["name"]: variable for variable in container["env"]}
    assert environment["STATE_DIRECTORY"]["value"] == mounts["state"], environment
    assert ("WEIR_NODE_ADDRESS" in environment) == (name == "several"), environment
    for secret in values.get("secretFiles", []):
        assert secret["path"] in mounts.values(), mounts
    assert claims == (["state"] if name == "matrix" else []), claims


def check_monitoring(objects):
    """The job that alerts go by is what the monitor calls weir, and all alerts and dashboards come along."""
    of = {item["kind"]: item for item in objects}
    label = of["ServiceMonitor"]["spec"]["jobLabel"]
    services = [item for item in objects if item["kind"] == "Service"]
    assert {item["metadata"]["labels"][label] for item in services} == {"weir"}, services
    yaml = ruamel.yaml.YAML(typ="safe")
    deploy = pathlib.Path(__file__).parents[2] / "deploy"
    assert of["PrometheusRule"]["spec"] == yaml.load(deploy / "prometheus/weir.rules.yml")
    dashboards = next(item for item in objects if item["metadata"]["name"].endswith("-dashboards"))
    assert dashboards["data"] == {path.name: path.read_text() for path in (deploy / "grafana").glob("*.json")}


def main(chart, weir):
    for name, values in VALUES.items():
        report = helm.lint(chart, values=values, strict=True)
        wrong = [message for message in report["messages"] if message["severity"] >= 2]
        assert not wrong and not report["errors"], report
        objects = rendered(chart, values)
        kinds = sorted(item["kind"] for item in objects)
        print(name, kinds)
        for item in objects:
            if item["kind"] not in FOREIGN:
                kubernetes_validate.validate(item, "1.34", strict=True)
        check_pods(name, values, next(item for item in objects if item["kind"] == "StatefulSet"))
        check_weir(weir, next(item for item in objects if "weir.yaml" in item.get("data", {})))
        if name == "everything":
            check_monitoring(objects)
        assert ("HorizontalPodAutoscaler" in kinds) == (name == "everything"), kinds
    for values in REFUSED:
        try:
            rendered(chart, values)
        except helm.HelmError as error:
            print("refused:", str(error).splitlines()[0][-120:])
        else:
            raise AssertionError(f"accepted {values}")


main(*sys.argv[1:])
