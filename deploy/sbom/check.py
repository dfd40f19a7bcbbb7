#!/usr/bin/env python3
"""Whether a bill of materials (on stdin) is whole: the format's fields are there, every reference leads somewhere, every
crate of a registry has checksum and licence, what weir stands on is in it, and what only its tests need is not."""

import json
import re
import sys

EXPECTED = ["tokio", "axum", "rustls", "aws-lc-rs", "aws-lc-sys", "rtc-dtls", "rtc-sctp", "rusqlite", "libsqlite3-sys", "signalling"]
TESTS_ONLY = ["criterion", "proptest", "weir-loadtest"]


def main() -> None:
    bom = json.load(sys.stdin)
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.5")
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bom["serialNumber"])
    assert bom["metadata"]["component"]["name"] == "weir"
    components = {one["bom-ref"]: one for one in [bom["metadata"]["component"], *bom["components"]]}
    assert len(components) == len(bom["components"]) + 1, "a reference is there twice"
    for one in bom["components"]:
        assert one["licenses"], f"{one['name']} has no licence"
        if one["name"] != "signalling":
            assert re.fullmatch(r"[0-9a-f]{64}", one["hashes"][0]["content"]), f"{one['name']} has no checksum"
    for one in bom["dependencies"]:
        assert {one["ref"], *one["dependsOn"]} <= components.keys(), f"{one['ref']} leads nowhere"
    names = {one["name"] for one in bom["components"]}
    assert names >= set(EXPECTED), f"missing: {set(EXPECTED) - names}"
    assert not names & set(TESTS_ONLY), f"not in the program: {names & set(TESTS_ONLY)}"
    print(f"{len(names)} crates")


if __name__ == "__main__":
    main()
