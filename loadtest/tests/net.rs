//! The network emulator as a process between two real sockets.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

struct Net {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    client: UdpSocket,
    server: UdpSocket,
}

impl Net {
    fn start(set: &str) -> Self {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        let to = server.local_addr().unwrap().to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir-loadtest"))
            .args(["net", "--control", "--to", &to, "--set", set])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut net = Self { child, input, output, client, server };
        let said = net.hear();
        net.client.connect(said["listening"].as_str().unwrap()).unwrap();
        net
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

#[test]
fn datagrams_pass_both_ways_and_are_counted() {
    let mut net = Net::start("both delay 5");
    let mut buffer = [0; 2000];
    for n in 0..20u8 {
        net.client.send(&[n; 100]).unwrap();
        let (length, from) = net.server.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..length], [n; 100]);
        net.server.send_to(&[n; 200], from).unwrap();
        let length = net.client.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..length], [n; 200]);
    }
    net.tell("nonsense");
    assert!(net.hear()["error"].as_str().unwrap().contains("nonsense"));
    net.tell("stats");
    let said = net.hear();
    assert_eq!((&said["up"]["delivered"], &said["down"]["bytes"]), (&20.into(), &(20 * 228).into()), "{said}");
    // A change while it runs: nothing comes up any more, and that is counted too.
    net.tell("up loss 100");
    net.tell("stats");
    net.hear();
    for _ in 0..5 {
        net.client.send(&[0; 100]).unwrap();
    }
    let lost = (0..200).any(|_| {
        net.tell("stats");
        let said = net.hear();
        assert_eq!(said["up"]["delivered"], 0, "{said}");
        said["up"]["lost"].as_u64().unwrap() > 0
    });
    assert!(lost, "what was sent is lost and counted");
    // It ends with its input, and says goodbye.
    net.input = None;
    assert!(net.hear()["seconds"].is_number());
    assert!(net.child.wait().unwrap().success());
}
