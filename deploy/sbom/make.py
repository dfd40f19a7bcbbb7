#!/usr/bin/env python3
"""Prints the software bill of materials of weir as CycloneDX 1.5 JSON: every crate that is linked into the program, with
version, licence, checksum and what it needs, from `cargo metadata` and Cargo.lock. Needs cargo and Python 3.11, nothing else.

The same sources give the same text: deploy/sbom/make.py > weir.cdx.json
"""

import json
import pathlib
import subprocess
import sys
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
REGISTRY = "registry+"


def cargo(*arguments: str) -> str:
    return subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout


def purl(package: dict) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def linked(metadata: dict, root: str) -> dict[str, list[str]]:
    """Ids of all that is linked into the root, each with what it needs itself: no tools, no tests."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found: dict[str, list[str]] = {}
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        needs = [
            need["pkg"] for need in nodes[one]["deps"] if any(kind["kind"] is None for kind in need["dep_kinds"])
        ]
        found[one] = sorted(set(needs))
        waiting.extend(needs)
    return found


def component(package: dict, checksums: dict[tuple[str, str], str]) -> dict:
    is_ours = not (package["source"] or "").startswith(REGISTRY)
    one = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    }
    if package["license"]:
        # Older crates write a slash where SPDX has OR.
        one["licenses"] = [{"expression": " ".join(package["license"].replace("/", " OR ").split())}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum and not is_ours:
        one["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return one


def main() -> None:
    host = next(line for line in cargo("--version", "--verbose").splitlines() if line.startswith("host: "))
    target = sys.argv[1] if len(sys.argv) > 1 else host.removeprefix("host: ")
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    packages = {package["id"]: package for package in metadata["packages"]}
    root = next(
        package["id"] for package in packages.values() if package["name"] == "weir" and package["source"] is None
    )
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(one["name"], one["version"]): one["checksum"] for one in lock["package"] if "checksum" in one}
    graph = linked(metadata, root)
    in_order = sorted(graph, key=lambda one: purl(packages[one]))
    libraries = [component(packages[one], checksums) for one in in_order if one != root]
    whole = {**component(packages[root], {}), "type": "application"}
    needs = [
        {"ref": purl(packages[one]), "dependsOn": sorted(purl(packages[need]) for need in graph[one])}
        for one in in_order
    ]
    content = json.dumps([whole, libraries, needs, target], sort_keys=True)
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {"component": whole, "properties": [{"name": "weir:target", "value": target}]},
        "components": libraries,
        "dependencies": needs,
    }
    json.dump(bom, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
