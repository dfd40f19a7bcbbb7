//! The ring against a plain map.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use proptest::prelude::*;

fn entry(seq: u64, payload: &[u8]) -> Entry<'_> {
    Entry {
        seq,
        arrival: Instant::from_millis(seq),
        timestamp: 90,
        marker: true,
        payload_type: PayloadType(96),
        info: FrameInfo::WHOLE,
        extensions: Extensions::new(0xbede, &[0x10, 7, 0, 0]),
        payload,
    }
}

#[test]
fn gives_back_what_was_put_in() {
    let mut history = History::new(Limits { packets: 8, bytes: 4000 });
    assert!(history.packet(5).is_none());
    history.insert(&entry(1000, b"one")).unwrap();
    history.insert(&entry(1002, b"three")).unwrap();
    history.insert(&entry(1001, b"two")).unwrap();
    let found = history.packet(1001).unwrap();
    assert_eq!((found.payload, found.arrival, found.marker), (&b"two"[..], Instant::from_millis(1001), true));
    assert_eq!(found.extensions.find(1), Some(&[7][..]));
    assert_eq!(history.insert(&entry(1001, b"two")), Err(DropReason::Duplicate));
    assert_eq!(history.highest(), Some(1002));
    history.clear();
    assert!(history.packet(1001).is_none());
}

#[test]
fn refuses_what_is_too_old_or_too_large() {
    let mut history = History::new(Limits { packets: 8, bytes: 4000 });
    history.insert(&entry(1000, b"x")).unwrap();
    assert_eq!(history.insert(&entry(992, b"x")), Err(DropReason::TooLate));
    assert_eq!(history.insert(&entry(993, b"x")), Ok(()));
    assert_eq!(history.insert(&entry(1001, &[0; MAX_PACKET])), Err(DropReason::TooLarge));
    assert_eq!(history.insert(&entry(1001, &[0; MAX_PACKET - 4])), Ok(()));
}

#[test]
fn takes_no_memory_before_the_first_packet() {
    assert_eq!(History::new(Limits::VIDEO).bytes.len(), 0);
}

proptest! {
    /// Whatever is found is what was put in, and the most recent packets are always found.
    #[test]
    fn never_gives_wrong_bytes(
        packets in proptest::collection::vec((0u64..12, 0usize..1400), 1..300),
    ) {
        let mut history = History::new(Limits { packets: 16, bytes: 6000 });
        let mut put_in = std::collections::BTreeMap::new();
        let mut recent = std::collections::VecDeque::new();
        for (index, (jitter, size)) in packets.into_iter().enumerate() {
            let seq = 100 + index as u64 + jitter;
            let payload = vec![u8::try_from(seq % 251).unwrap(); size];
            if history.insert(&entry(seq, &payload)).is_ok() {
                put_in.insert(seq, payload);
                recent.push_back(seq);
            }
            // Two packets of the largest size, and what a skip at the end wastes, always fit.
            while recent.len() > 2 {
                recent.pop_front();
            }
            for seq in 90..=seq + 20 {
                if let Some(found) = history.packet(seq) {
                    prop_assert_eq!(found.payload, put_in[&seq].as_slice());
                    prop_assert_eq!(found.extensions.block(), &[0x10, 7, 0, 0]);
                }
            }
            for seq in &recent {
                let replaced = history.highest().unwrap() >= seq + 16;
                prop_assert!(replaced || history.packet(*seq).is_some());
            }
        }
    }
}
