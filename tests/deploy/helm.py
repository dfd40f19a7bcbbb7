"""Lints and renders the chart as operators set it, checks what comes out against the schemas of Kubernetes, and lets
weir read its own configuration. helm.py CHART WEIR"""

import os
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
        "serviceMonitor": {"enabled": True},
        "nodeSelector": {"media": "yes"},
        "tolerations": [{"key": "media", "operator": "Exists"}],
    },
}


def rendered(chart, values):
    """All objects of the chart with these values."""
    yaml = ruamel.yaml.YAML(typ="safe")
    with helm.Chart.load(chart) as loaded:
        texts = loaded.render(values=values, name="demo", namespace="calls")
    return [item for text in texts.values() for item in yaml.load_all(text) if item]


def check_weir(weir, config_map):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(config_map["data"]["weir.yaml"])
        file.flush()
        command = [weir, "token", "--config", file.name, "--identity", "a", "--room", "r"]
        subprocess.run(command, env=os.environ | {"WEIR_KEYS": KEYS, "WEIR_NODE_ADDRESS": "10.0.0.5"}, check=True, stdout=subprocess.DEVNULL)


def main(chart, weir):
    for name, values in VALUES.items():
        report = helm.lint(chart, values=values, strict=True)
        wrong = [message for message in report["messages"] if message["severity"] >= 2]
        assert not wrong and not report["errors"], report
        objects = rendered(chart, values)
        kinds = sorted(item["kind"] for item in objects)
        print(name, kinds)
        for item in objects:
            # Of another project: there is no schema for it.
            if item["kind"] != "ServiceMonitor":
                kubernetes_validate.validate(item, "1.34", strict=True)
        pods = str(next(item for item in objects if item["kind"] == "StatefulSet"))
        assert ("status.podIP" in pods) == (name == "several"), pods
        check_weir(weir, next(item for item in objects if item["kind"] == "ConfigMap"))
        assert ("HorizontalPodAutoscaler" in kinds) == (name == "everything"), kinds
    for values in [{}, {"keys": KEYS, "replicaCount": 2}]:
        try:
            rendered(chart, values)
        except helm.HelmError as error:
            print("refused:", str(error).splitlines()[0][-120:])
        else:
            raise AssertionError(f"accepted {values}")


main(*sys.argv[1:])
