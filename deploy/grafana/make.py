#!/usr/bin/env python3
"""Writes the dashboards beside it: `deploy/grafana/make.py`. With `--check` it only says whether they are up to date.

Panels are kept here because the JSON of Grafana is long and says the same things again and again. Each panel is a title,
a unit, and queries with their legends; `$node` is the instance chosen on top.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
RATE = "$__rate_interval"


def quantile(q, metric, by="", of="instance=~\"$node\""):
    group = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({group}) (rate({metric}_bucket{{{of}}}[{RATE}])))"


def rate(metric, by, extra=""):
    return f"sum by ({by}) (rate({metric}{{instance=~\"$node\"{extra}}}[{RATE}]))"


def gauge(metric, by, extra=""):
    return f"sum by ({by}) ({metric}{{instance=~\"$node\"{extra}}})"


OVERVIEW = [
    ("Load of each node", "percentunit", "How much of what a node can do it does. New rooms are refused from `limit.max_load`.",
     [("max by (instance) (weir_load)", "{{instance}}")]),
    ("Nodes that take new calls", "short", "/readyz of a node says why it does not.",
     [("sum(weir_ready)", "ready"), ("count(weir_ready)", "all")]),
    ("Rooms", "short", "", [("sum by (instance) (weir_control_rooms)", "{{instance}}")]),
    ("Participants", "short", "", [("sum by (instance) (weir_shard_objects{kind=\"participant\"})", "{{instance}}")]),
    ("Traffic", "bps", "At the UDP level.",
     [(f"sum by (direction) (rate(weir_shard_bytes_total[{RATE}])) * 8", "{{direction}}")]),
    ("Joins by answer", "reqps", "", [(f"sum by (result) (rate(weir_control_joins_total[{RATE}]))", "{{result}}")]),
    ("Time to join", "s", "From the request to media being connected.",
     [(f"histogram_quantile(0.5, sum by (le) (rate(weir_control_join_seconds_bucket[{RATE}])))", "half"),
      (f"histogram_quantile(0.95, sum by (le) (rate(weir_control_join_seconds_bucket[{RATE}])))", "95 of 100")]),
    ("Rooms by participants", "short", "", [("sum by (size) (weir_control_rooms_by_size)", "{{size}}")]),
    ("Rooms not made for want of room", "short", "By what was exhausted, over the last hour.",
     [("sum by (limit) (increase(weir_control_full_total[1h]))", "{{limit}}")]),
    ("Nodes that know of each other", "short", "With a directory each should know all; alone, a node knows itself.",
     [("max by (instance) (weir_nodes)", "{{instance}}")]),
    ("Silence of the directory", "s", "Calls go on, and joins go by what was known last.",
     [("max by (instance) (weir_directory_silent_seconds)", "{{instance}}")]),
    ("Passed on to other nodes", "reqps", "Requests that reached a node which had not the call, by what they were.",
     [(f"sum by (what) (rate(weir_passed_total[{RATE}]))", "{{what}}")]),
    ("Versions", "short", "", [("sum by (version) (weir_build_info)", "{{version}}")]),
]

NODE = [
    ("Load by what could be exhausted", "percentunit", "The largest is the load of the node.",
     [(gauge("weir_load_part", "part"), "{{part}}")]),
    ("Media threads at work", "percentunit", "One at 100 % makes the rooms on it stutter; large rooms may be on several (room.participants_per_thread).",
     [(gauge("weir_media_thread_load", "thread"), "thread {{thread}}")]),
    ("Time of a loop turn", "s", "", [(quantile(0.5, "weir_media_turn_seconds"), "half"),
                                      (quantile(0.99, "weir_media_turn_seconds"), "99 of 100")]),
    ("Time copies are inside weir", "s", "At most; the kernel's queue is not in it.",
     [(quantile(0.5, "weir_media_forward_seconds"), "half"), (quantile(0.99, "weir_media_forward_seconds"), "99 of 100")]),
    ("Packets", "pps", "Offered are received packets times their takers; forwarded and dropped add up to them.",
     [(rate("weir_shard_packets_received_total", "instance"), "received"),
      (rate("weir_shard_packets_offered_total", "instance"), "offered"),
      (rate("weir_shard_packets_forwarded_total", "instance"), "forwarded"),
      (rate("weir_shard_packets_dropped_total", "instance"), "dropped")]),
    ("Copies not sent, by reason", "pps", "Layers nobody wants are dropped on purpose.",
     [(rate("weir_shard_packets_dropped_total", "reason") + " > 0 or " +
       rate("weir_shard_packets_dropped_total", "reason", ', reason="other_layer"'), "{{reason}}")]),
    ("Datagrams refused, by reason", "pps", "What ended before anybody was offered it.",
     [(rate("weir_shard_datagrams_dropped_total", "reason") + " > 0 or " +
       rate("weir_shard_datagrams_dropped_total", "reason", ', reason="unknown_route"'), "{{reason}}")]),
    ("Datagrams per system call", "short", "The more, the cheaper.",
     [(rate("weir_media_datagrams_total", "direction") + " / " +
       "clamp_min(" + rate("weir_media_system_calls_total", "direction") + ", 0.001)", "{{direction}}")]),
    ("Datagrams the kernel did not take", "pps", "full: raise net.core.wmem_max, or the line is too small.",
     [(rate("weir_media_unsent_datagrams_total", "reason"), "{{reason}}")]),
    ("Commands that wait for a media thread", "short", "", [(gauge("weir_media_waiting_commands", "thread"), "thread {{thread}}")]),
    ("What media threads hold", "short", "", [(gauge("weir_shard_objects", "kind"), "{{kind}}")]),
    ("Signalling connections", "short", "", [(gauge("weir_control_connections", "instance"), "WebSockets"),
                                             (gauge("weir_media_tcp_connections", "instance"), "media over TCP")]),
    ("CPU", "short", "Cores in use by the whole process.", [(rate("process_cpu_seconds_total", "instance"), "cores")]),
    ("Memory", "bytes", "", [(gauge("process_resident_memory_bytes", "instance"), "in use")]),
    ("Open files", "short", "", [(gauge("process_open_fds", "instance"), "open"),
                                 (gauge("process_max_fds", "instance"), "limit")]),
]

CALLS = [
    ("Time to join", "s", "From the request to media being connected.",
     [(quantile(0.5, "weir_control_join_seconds"), "half"), (quantile(0.95, "weir_control_join_seconds"), "95 of 100")]),
    ("Time to the first packet", "s", "From a subscription; waiting for a silent publisher counts.",
     [(quantile(0.5, "weir_shard_first_packet_seconds"), "half"),
      (quantile(0.95, "weir_shard_first_packet_seconds"), "95 of 100")]),
    ("Joined, and never connected", "short", "Over five minutes. Who never connects has a firewall in between.",
     [("sum(increase(weir_control_participants_joined_total{instance=~\"$node\"}[5m]))", "connected"),
      ("sum(increase(weir_control_participants_aborted_total{instance=~\"$node\"}[5m]))", "never connected")]),
    ("Left, by reason", "short", "Over five minutes.",
     [("sum by (reason) (increase(weir_control_participants_left_total{instance=~\"$node\"}[5m])) > 0 or "
       "sum by (reason) (increase(weir_control_participants_left_total{instance=~\"$node\", reason=\"CLIENT_INITIATED\"}[5m]))",
       "{{reason}}")]),
    ("Packets asked for again", "percentunit", "Of those sent: what subscribers lost. Of those received: what publishers lost.",
     [(rate("weir_shard_nacks_total", "instance", ', direction="received"') + " / clamp_min(" +
       rate("weir_shard_packets_forwarded_total", "instance") + ", 1)", "on the way to subscribers"),
      (rate("weir_shard_nacks_total", "instance", ', direction="sent"') + " / clamp_min(" +
       rate("weir_shard_packets_received_total", "instance") + ", 1)", "on the way from publishers")]),
    ("Retransmissions", "pps", "", [(rate("weir_shard_retransmissions_total", "direction"), "{{direction}}")]),
    ("Key frame requests", "reqps", "", [(rate("weir_shard_keyframe_requests_total", "direction"), "{{direction}}")]),
    ("Tracks sent, by what flows", "short", "video_paused: too little bandwidth. video_idle: muted or waiting.",
     [(gauge("weir_shard_downtracks", "flow"), "{{flow}}")]),
    ("Bandwidth of subscribers", "bps", "Of those whose bandwidth is known: what they could take, and what they get.",
     [(gauge("weir_shard_bitrate_bps", "what"), "{{what}}")]),
    ("Tracks published", "short", "", [(gauge("livekit_track_published_total", "kind"), "{{kind}}")]),
    ("How long rooms last", "s", "", [(quantile(0.5, "livekit_room_duration_seconds"), "half")]),
    ("Clients that did not read", "short", "Cut because their connection was too slow; over five minutes.",
     [("sum(increase(weir_control_slow_readers_total{instance=~\"$node\"}[5m]))", "cut")]),
]

MATRIX = [
    ("Token requests by answer", "reqps", "", [(rate("weir_matrix_token_requests_total", "result"), "{{result}}")]),
    ("Homeservers that answer", "short", "", [("min by (homeserver) (weir_matrix_homeserver_up{instance=~\"$node\"})", "{{homeserver}}")]),
    ("Age of the last push", "s", "A homeserver pushes when something happens in its rooms; at night that may be long ago.",
     [("time() - max by (homeserver) (weir_matrix_last_push_timestamp_seconds{instance=~\"$node\"})", "{{homeserver}}")]),
    ("Delayed leaves looked after", "short", "", [(gauge("weir_matrix_delayed_leaves", "instance"), "{{instance}}")]),
    ("Ejections by cause", "short", "Because of what happened in the Matrix room, or on a moderation list; over an hour.",
     [("sum by (reason) (increase(weir_matrix_ejections_total{instance=~\"$node\"}[1h]))", "{{reason}}")]),
    ("Stale memberships", "short", "Cleared after somebody, not cleared, or left alone; over an hour.",
     [("sum by (result) (increase(weir_matrix_memberships_cleared_total{instance=~\"$node\"}[1h]))", "{{result}}")]),
    ("Remote video kept low", "short", "Calls and servers at a ceiling of matrix.remote_users.",
     [(gauge("weir_matrix_remote_video_lowered", "kind"), "{{kind}}")]),
    ("Removed from calls", "short", "By room state or the server API; over an hour.",
     [("sum(increase(weir_control_participants_left_total{instance=~\"$node\", reason=\"PARTICIPANT_REMOVED\"}[1h]))", "removed")]),
    ("Joins by answer", "reqps", "", [(rate("weir_control_joins_total", "result"), "{{result}}")]),
    ("Webhooks", "reqps", "", [(rate("weir_control_webhooks_total", "result"), "{{result}}")]),
]

DASHBOARDS = {
    "weir-overview.json": ("weir: all nodes", "weir-overview", OVERVIEW),
    "weir-node.json": ("weir: one node", "weir-node", NODE),
    "weir-calls.json": ("weir: health of calls", "weir-calls", CALLS),
    "weir-matrix.json": ("weir: Matrix", "weir-matrix", MATRIX),
}


def panel(number, title, unit, description, queries):
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + at), "expr": expr, "legendFormat": legend} for at, (expr, legend) in enumerate(queries)
        ],
    }


def variables():
    return [
        {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "node", "label": "Node", "type": "query", "datasource": {"type": "prometheus", "uid": "${source}"},
            "query": {"query": "label_values(weir_build_info, instance)", "refId": "node"}, "refresh": 2,
            "includeAll": True, "multi": True, "current": {"text": "All", "value": "$__all"}, "sort": 1,
        },
    ]


def dashboard(title, uid, panels):
    return {
        "uid": uid, "title": title, "tags": ["weir"], "schemaVersion": 39, "version": 1, "editable": True,
        "timezone": "", "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "graphTooltip": 1,
        "templating": {"list": variables()},
        "links": [{"title": "weir", "type": "dashboards", "tags": ["weir"], "asDropdown": True}],
        "panels": [panel(number, *it) for number, it in enumerate(panels)],
    }


def main():
    stale = []
    for name, it in DASHBOARDS.items():
        text = json.dumps(dashboard(*it), indent=1, ensure_ascii=False) + "\n"
        path = HERE / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text)
    if "--check" in sys.argv and stale:
        sys.exit(f"not as make.py would write them: {', '.join(stale)}; run deploy/grafana/make.py")


if __name__ == "__main__":
    main()
