"""Reads the reports of bench.sh: prints the table in Markdown and writes table.json beside it."""

import glob
import json
import os
import statistics
import sys

out, systems, rows = sys.argv[1], sys.argv[2].split(), sys.argv[3:]
BUSY_LIMIT = 80
NAMES = {"V": "V 1 to {0}", "A": "A 1 to {0}", "M": "M {0} by {0}"}
# Key, heading, digits.
COLUMNS = [
    ("cpu_us", "CPU us per packet", 2),
    ("times_floor", "times the floor", 2),
    ("kpps_core", "kpackets/s per core", 1),
    ("mbit_core", "Mbit/s per core", 0),
    ("packets", "packets/s", 0),
    ("delivery", "delivery %", 3),
    ("p50", "p50 ms", 2),
    ("p99", "p99 ms", 2),
    ("p999", "p99.9 ms", 2),
    ("added_p50", "added p50", 2),
    ("added_p99", "added p99", 2),
    ("added_p999", "added p99.9", 2),
    ("memory_kb", "kB per subscriber", 0),
    ("join_p50", "join p50 ms", 1),
    ("join_p99", "join p99 ms", 1),
    ("server", "server busy %", 0),
    ("generator", "generator busy %", 0),
]


def load(system, shape, count):
    found = []
    for name in sorted(glob.glob(os.path.join(out, f"{system}-{shape}-{count}-*.json"))):
        try:
            with open(name) as file:
                found.append(json.load(file))
        except ValueError:
            pass  # a run that did not come to its end
    return found


def figures(system, report):
    latency = report["latency_ms"]
    found = {"p50": latency["p50"], "p99": latency["p99"], "p999": latency["p999"]}
    if system == "floor":
        cost = report["cpu_us_per_packet"]
        found |= {
            "delivery": 100 * report["received"] / max(report["sent"], 1),
            "generator": report["receivers_cpu_percent"],
        }
    else:
        cost = report["server_cpu_us_per_packet"]
        found |= {
            "packets": report["packets_per_second"],
            "delivery": report["delivery_percent"],
            "memory_kb": report["server_kb_per_subscriber"],
            "join_p50": report["join_ms"]["p50"],
            "join_p99": report["join_ms"]["p99"],
            "server": report["server_cpu_percent"],
            "generator": report["generator_cpu_percent"],
        }
        if cost and report["packets_per_second"]:
            found["mbit_core"] = report["mbit_per_second"] / report["packets_per_second"] / cost * 1e6
    if cost:
        found |= {"cpu_us": cost, "kpps_core": 1e3 / cost}
    return {key: value for key, value in found.items() if value is not None}


def summary(runs):
    keys = {key for run in runs for key in run}
    values = {key: [run[key] for run in runs if key in run] for key in keys}
    return {key: [statistics.median(all_), min(all_), max(all_)] for key, all_ in values.items()}


def cell(spread, digits):
    if spread is None:
        return "-"
    median, least, most = spread
    if least == most:
        return f"{median:.{digits}f}"
    return f"{median:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"


table = []
for row in rows:
    shape, count = row.split(":")
    floor = None
    # The floor first: the others are measured by it.
    for system in sorted(systems, key=lambda system: system != "floor"):
        reports = load(system, shape, count)
        if not reports:
            if system != "floor" or shape != "M":
                table.append({"row": NAMES[shape].format(count), "system": system, "runs": 0, "void": 0, "figures": {}})
            continue
        everything = [figures(system, report) for report in reports]
        runs = [run for run in everything if run["generator"] <= BUSY_LIMIT]
        found = summary(runs)
        if system == "floor":
            floor = found or None
        elif floor:
            medians = {key: values[0] for key, values in floor.items()}
            for run in runs:
                for key in ["p50", "p99", "p999"]:
                    run[f"added_{key}"] = run[key] - medians[key]
                if "cpu_us" in run and medians.get("cpu_us"):
                    run["times_floor"] = run["cpu_us"] / medians["cpu_us"]
            found = summary(runs)
        table.append({
            "row": NAMES[shape].format(count), "system": system, "runs": len(runs),
            "void": len(everything) - len(runs), "figures": found,
        })

with open(os.path.join(out, "machine.txt")) as file:
    machine = file.read().splitlines()
with open(os.path.join(out, "table.json"), "w") as file:
    json.dump({"machine": machine, "spread": "median, least, most", "rows": table}, file, indent=1)
print("| row | system | runs | " + " | ".join(heading for _, heading, _ in COLUMNS) + " |")
print("|---" * (3 + len(COLUMNS)) + "|")
for line in table:
    runs = f"{line['runs']}" + (f", {line['void']} void" if line["void"] else "")
    cells = [cell(line["figures"].get(key), digits) for key, _, digits in COLUMNS]
    print(f"| {line['row']} | {line['system']} | {runs} | " + " | ".join(cells) + " |")
