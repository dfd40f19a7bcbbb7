//! The table against a simple model, and its caps.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests may panic")]

use super::*;
use crate::base::Rng;
use slotmap::SlotMap;

fn route(port: u16) -> Route {
    Route::Udp { local: "127.0.0.1:7882".parse().unwrap(), remote: ([10, 0, 0, 1], port).into() }
}

fn keys(count: usize) -> Vec<TransportKey> {
    let mut slots: SlotMap<TransportKey, ()> = SlotMap::with_key();
    (0..count).map(|_| slots.insert(())).collect()
}

#[test]
fn finds_what_a_btreemap_finds() {
    let keys = keys(16);
    let mut rng = Rng::new(7);
    let mut map = RouteMap::new(1);
    let mut model = BTreeMap::new();
    for _ in 0..20_000 {
        let route = route(rng.below(300) as u16);
        if rng.below(2) == 0 {
            let key = keys[rng.below(16) as usize];
            map.insert(route, key);
            model.insert(route, key);
        } else {
            map.remove(&route);
            model.remove(&route);
        }
        assert_eq!(map.len(), model.len());
    }
    for port in 0..300 {
        assert_eq!(map.find(&route(port)), model.get(&route(port)).copied());
    }
}

#[test]
fn refuses_more_pending_transports_than_the_cap_until_one_passes() {
    let config = Config { max_pending: 2, ..Config::default() };
    let mut table = TransportTable::new(&config, 0);
    let keys = keys(4);
    table.insert(keys[0], "aaaa").unwrap();
    table.insert(keys[1], "bbbb").unwrap();
    assert_eq!(table.insert(keys[2], "cccc"), Err(DropReason::Full));
    table.bind(route(1), keys[0]);
    table.insert(keys[2], "cccc").unwrap();
    table.remove(keys[1]);
    table.insert(keys[3], "dddd").unwrap();
    assert_eq!(table.pending(), 2);
}

#[test]
fn another_transport_takes_a_route_over() {
    let mut table = TransportTable::new(&Config::default(), 0);
    let keys = keys(2);
    table.insert(keys[0], "aaaa").unwrap();
    table.insert(keys[1], "bbbb").unwrap();
    assert_eq!(table.bind(route(1), keys[0]), None);
    assert_eq!(table.bind(route(1), keys[1]), Some(keys[0]));
    assert_eq!(table.find(&route(1)), Some(keys[1]));
    table.remove(keys[0]);
    assert_eq!(table.find(&route(1)), Some(keys[1]), "removing the former owner leaves the route alone");
    table.remove(keys[1]);
    assert_eq!(table.find(&route(1)), None);
}

#[test]
fn never_holds_more_routes_of_a_transport_than_the_cap() {
    let mut table = TransportTable::new(&Config { max_routes: 3, ..Config::default() }, 0);
    let keys = keys(1);
    table.insert(keys[0], "aaaa").unwrap();
    for port in 0..100 {
        table.bind(route(port), keys[0]);
    }
    assert_eq!((0..100).filter(|port| table.find(&route(*port)).is_some()).count(), 3);
}

#[test]
fn a_ufrag_belongs_to_one_transport() {
    let mut table = TransportTable::new(&Config::default(), 0);
    let keys = keys(2);
    table.insert(keys[0], "aaaa").unwrap();
    assert_eq!(table.insert(keys[1], "aaaa"), Err(DropReason::Duplicate));
    table.insert(keys[1], "bbbb").unwrap();
    assert_eq!(table.add_ufrag(keys[1], "aaaa"), Err(DropReason::Duplicate));
    table.remove_ufrag(keys[1], "aaaa");
    table.add_ufrag(keys[0], "cccc").unwrap();
    table.remove_ufrag(keys[0], "aaaa");
    table.add_ufrag(keys[1], "aaaa").unwrap();
}
