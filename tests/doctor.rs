//! `weir doctor` against a world that is well, and against the same world with one fault planted: the fault is named by
//! its right name, and nothing else is called wrong but what follows from it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests may fail by panicking")]

#[path = "doctor/world.rs"]
mod world;

use world::{Fault, World};

/// The hops called wrong.
async fn wrong(fault: Fault) -> Vec<String> {
    let world = World::start(fault).await;
    let report = world.examine().await;
    let hops = report["hops"].as_array().unwrap().iter();
    let wrong = hops.filter(|line| line["state"] == "wrong");
    for line in wrong.clone() {
        let mend = line["mend"].as_str().unwrap_or_default();
        assert!(mend.len() > 10, "{fault:?}: no help for {line}");
    }
    let names: Vec<String> = wrong.map(|line| line["hop"].as_str().unwrap().to_owned()).collect();
    assert_eq!(report["well"], names.is_empty(), "{report:#}");
    if fault == Fault::None {
        assert!(names.is_empty(), "{report:#}");
        let states = |hop: &str| {
            let mut lines = report["hops"].as_array().unwrap().iter().filter(|line| line["hop"] == hop);
            lines.next().unwrap_or_else(|| panic!("{hop} was not looked at: {report:#}"))["state"].clone()
        };
        for hop in [
            "configuration",
            "weir",
            "well-known",
            "client-api",
            "delayed-events",
            "transports",
            "openid",
            "federation",
            "openid-others",
            "registration",
            "push",
            "service",
            "token-endpoints",
            "websocket",
            "request-size",
            "join",
            "advertised",
            "udp",
            "tcp",
            "call",
        ] {
            assert_eq!(states(hop), "ok", "{hop}: {report:#}");
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_world_that_is_well_is_called_so() {
    assert_eq!(wrong(Fault::None).await, Vec::<String>::new());
}

/// Each fault with the hop that has to be named first.
const FAULTS: &[(Fault, &str)] = &[
    (Fault::NoWellKnown, "well-known"),
    (Fault::WellKnownNotJson, "well-known"),
    (Fault::WellKnownWithoutHomeserver, "well-known"),
    (Fault::WellKnownWithoutCors, "well-known"),
    (Fault::NoTransports, "transports"),
    (Fault::TransportsWithoutTls, "transports"),
    (Fault::ServiceElsewhere, "service-url"),
    (Fault::CertificateExpired, "well-known"),
    (Fault::CertificateOfAnother, "well-known"),
    (Fault::CertificateSelfSigned, "well-known"),
    (Fault::HomeserverClock, "homeserver-clock"),
    (Fault::NoDelayedEvents, "delayed-events"),
    (Fault::SomeWorkersWithoutDelayedEvents, "delayed-events"),
    (Fault::DelayedEventsOff, "delayed-leave"),
    (Fault::NoOpenId, "openid"),
    (Fault::NoRegistration, "registration"),
    (Fault::OtherRegistrationId, "push"),
    (Fault::OtherHsToken, "push"),
    (Fault::HomeserverCannotReachWeir, "push"),
    (Fault::WeirStopped, "weir"),
    (Fault::ServicePathMissing, "service"),
    (Fault::ProxyWithoutUpstream, "service"),
    (Fault::ProxyDropsCors, "service"),
    (Fault::TokenPathMissing, "token-endpoints"),
    (Fault::ProxyDropsUpgrade, "websocket"),
    (Fault::ProxyCutsLongLines, "request-size"),
    (Fault::OtherKeys, "join"),
    (Fault::WrongAddress, "udp"),
    (Fault::TwoNodes, "call"),
];

async fn all(faults: &[(Fault, &str)]) {
    assert!(FAULTS.len() >= 15);
    for (fault, hop) in faults {
        let names = wrong(*fault).await;
        assert_eq!(names.first().map(String::as_str), Some(*hop), "{fault:?}: {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_names_and_certificates_are_named() {
    all(&FAULTS[..10]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_homeserver_are_named() {
    all(&FAULTS[10..20]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_proxies_and_networks_are_named() {
    all(&FAULTS[20..]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_configuration_it_looks_from_outside_and_speaks_to_people() {
    let world = World::start(Fault::None).await;
    let text = world.outside().await;
    for line in ["ok       well-known", "ok       service", "ok       websocket", "skipped  join", "0 wrong"] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
