#!/bin/bash
# Runs Janus (the Debian package) in the foreground, with nothing but VideoRoom over a WebSocket on ADDRESS:PORT.
#
#   loadtest/peers/janus.sh ADDRESS PORT FOLDER
#
# FOLDER takes the configuration. Janus gathers no candidates on loopback: ADDRESS must be one of another interface.
set -euo pipefail
address=$1 port=$2 folder=$3
libraries=$(dirname "$(find /usr/lib -maxdepth 3 -path '*/janus/plugins' | head -1)")
mkdir -p "$folder"
cat > "$folder/janus.jcfg" <<CFG
general: {
    configs_folder = "$folder"
    plugins_folder = "$libraries/plugins"
    transports_folder = "$libraries/transports"
    events_folder = "$libraries/events"
    loggers_folder = "$libraries/loggers"
    debug_level = 3
    session_timeout = 0
}
media: { rtp_port_range = "20000-40000" }
nat: {
    ice_enforce_list = "$address"
}
plugins: {
    disable = "libjanus_audiobridge.so,libjanus_duktape.so,libjanus_echotest.so,libjanus_lua.so,libjanus_nosip.so,libjanus_recordplay.so,libjanus_sip.so,libjanus_streaming.so,libjanus_textroom.so,libjanus_videocall.so,libjanus_voicemail.so"
}
transports: {
    disable = "libjanus_http.so,libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_rabbitmq.so"
}
CFG
cat > "$folder/janus.transport.websockets.jcfg" <<CFG
general: {
    json = "plain"
    ws = true
    ws_ip = "$address"
    ws_port = $port
    wss = false
}
admin: { admin_ws = false, admin_wss = false }
CFG
echo 'general: { }' > "$folder/janus.plugin.videoroom.jcfg"
exec janus --configs-folder="$folder" --disable-colors
