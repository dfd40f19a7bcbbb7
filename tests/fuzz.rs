//! Every parser of network input, run over a small corpus and seeded mutations of it: no panic, no endless loop, and
//! what the bodies themselves assert. The same bodies serve as cargo-fuzz targets.
//!
//! A new body: a `pub fn name(data: &[u8])` in a module below, one line in [`BODIES`], inputs in
//! `tests/fuzz/corpus/<name>/`. `WEIR_FUZZ_ROUNDS` sets the mutations per input.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;

use weir::base::Rng;

#[path = "fuzz/transport.rs"]
mod transport;
#[path = "fuzz/turn.rs"]
mod turn;
#[path = "fuzz/wire.rs"]
mod wire;

pub(crate) type Body = fn(&[u8]);

/// Name (also of its corpus folder and of its target in `tests/fuzz/cargo`) and function.
pub(crate) const BODIES: &[(&str, Body)] = &[
    ("demux", wire::demux),
    ("rtp_packet", wire::rtp_packet),
    ("rtp_header", wire::rtp_header),
    ("codec", wire::codec),
    ("dependency_descriptor", wire::dependency_descriptor),
    ("rtcp", wire::rtcp),
    ("twcc", wire::twcc),
    ("twcc_generator", wire::twcc_generator),
    ("rx_stream", wire::rx_stream),
    ("history", wire::history),
    ("stun", transport::stun),
    ("stun_signed", transport::stun_signed),
    ("dtls_first", transport::dtls_first),
    ("srtp", transport::srtp),
    ("sctp", transport::sctp),
    ("turn", turn::turn),
    ("turn_stream", turn::turn_stream),
    ("turn_signed", turn::turn_signed),
    ("turn_calls", turn::turn_calls),
];

/// A few seconds in all on one core; a night takes a million.
const ROUNDS: usize = 500;
/// Longest mutated input: a datagram.
const MAX_INPUT: usize = 1500;

#[test]
fn bodies_survive_corpus_and_mutations() {
    #[expect(clippy::disallowed_methods, reason = "a knob of this test alone")]
    let rounds = std::env::var("WEIR_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    std::thread::scope(|scope| {
        for (name, body) in BODIES {
            scope.spawn(move || run(name, *body, rounds));
        }
    });
}

#[test]
fn every_body_is_a_cargo_fuzz_target() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/cargo/Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let targets: Vec<_> = manifest.split("[[bin]]").skip(1).filter_map(|bin| bin.split('"').nth(1)).collect();
    assert_eq!(targets, BODIES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}

fn run(name: &str, body: Body, rounds: usize) {
    let corpus = corpus(name);
    for input in &corpus {
        try_one(name, body, input);
    }
    let mut rng = Rng::new(name.bytes().fold(1, |seed, byte| seed.wrapping_mul(31) + u64::from(byte)));
    for _ in 0..rounds {
        for input in &corpus {
            let mut mutated = input.clone();
            mutate(&mut mutated, &corpus, &mut rng);
            try_one(name, body, &mutated);
        }
    }
}

/// The folder's files in order of their names, and nothing at all.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).chain([Vec::new()]).collect()
}

fn try_one(name: &str, body: Body, input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| body(input));
    if outcome.is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("body {name} failed on {hex}");
    }
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut Rng) {
    for _ in 0..=rng.below(4) {
        let at = usize::try_from(rng.below(input.len() as u64 + 1)).unwrap();
        match rng.below(6) {
            0 => input.truncate(at),
            1 => input.insert(at, rng.next_u64().to_le_bytes()[0]),
            2 => {
                let other = &corpus[usize::try_from(rng.below(corpus.len() as u64)).unwrap()];
                input.truncate(at);
                input.extend(other.iter().skip(usize::try_from(rng.below(64)).unwrap()));
            }
            3 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][usize::try_from(rng.below(5)).unwrap()],
            4 if at < input.len() => input[at] ^= 1 << rng.below(8),
            _ if at < input.len() => input[at] = rng.next_u64().to_le_bytes()[0],
            _ => {}
        }
    }
    input.truncate(MAX_INPUT);
}
