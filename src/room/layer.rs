//! What is known of one encoding of a track: whether it flows, and how much it costs.
//!
//! Encodings come and go (a publisher stops those nobody wants, or cannot afford the large ones); silence never removes
//! one. Owned by the track, fed with every packet, asked on ticks.

use core::time::Duration;

use crate::base::{Bitrate, Instant};

/// An encoding of a camera is taken for stopped after this silence; shorter would take a lost burst for a stop.
const SILENCE_CAMERA: Duration = Duration::from_millis(1000);
/// Screens stand still for seconds.
const SILENCE_SCREEN: Duration = Duration::from_secs(4);
/// Bytes below RTP that every packet costs a subscriber: UDP, IP, the tag of SRTP, what we add to the header.
const OVERHEAD: u64 = 48;
/// Bitrate is measured over windows of this length.
const WINDOW: Duration = Duration::from_millis(1000);

/// One encoding.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layer {
    flowing: bool,
    last_packet: Option<Instant>,
    window_start: Instant,
    window_bytes: u64,
    bitrate: Option<Bitrate>,
    /// Packets received.
    pub packets: u64,
}

impl Layer {
    /// A packet arrived. True when the encoding began to flow with it.
    pub fn on_packet(&mut self, now: Instant, size: u16) -> bool {
        let began = !self.flowing;
        if began {
            self.flowing = true;
            self.window_start = now;
            self.window_bytes = 0;
        }
        self.last_packet = Some(now);
        self.packets += 1;
        self.window_bytes += u64::from(size) + OVERHEAD;
        let elapsed = now.since(self.window_start);
        if elapsed >= WINDOW {
            let measured = Bitrate::of(self.window_bytes, elapsed);
            // A slow mean: one key frame must not make a layer look dear.
            let mean = self
                .bitrate
                .map_or(measured, |old| Bitrate::from_bps((old.as_bps().saturating_add(measured.as_bps())) / 2));
            self.bitrate = Some(mean);
            self.window_start = now;
            self.window_bytes = 0;
        }
        began
    }

    /// Time has passed. True when the encoding has stopped by now and had not before.
    pub fn on_tick(&mut self, now: Instant, screen_share: bool) -> bool {
        let patience = if screen_share { SILENCE_SCREEN } else { SILENCE_CAMERA };
        let stopped = self.flowing && self.last_packet.is_none_or(|at| now.since(at) > patience);
        if stopped {
            self.flowing = false;
        }
        stopped
    }

    /// Packets arrive.
    pub const fn is_flowing(&self) -> bool {
        self.flowing
    }

    /// When the last packet arrived.
    pub const fn last_packet(&self) -> Option<Instant> {
        self.last_packet
    }

    /// Measured rate, kept while it does not flow; `None` before a second of packets.
    pub const fn bitrate(&self) -> Option<Bitrate> {
        self.bitrate
    }
}

/// Cost of a spatial layer before it was measured: the usual ladder of clients.
pub fn default_cost(spatial: u8) -> Bitrate {
    Bitrate::from_kbps(match spatial {
        0 => 150,
        1 => 500,
        _ => 1700,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_the_first_packet_and_stops_after_silence() {
        let mut layer = Layer::default();
        assert!(layer.on_packet(Instant::from_millis(5000), 1000));
        assert!(!layer.on_packet(Instant::from_millis(5900), 1000));
        assert!(!layer.on_tick(Instant::from_millis(6800), false));
        assert!(layer.on_tick(Instant::from_millis(6901), false));
        assert!(!layer.on_tick(Instant::from_millis(7000), false), "stops once");
        assert!(layer.on_packet(Instant::from_millis(8000), 1000), "and starts again");
    }

    #[test]
    fn a_still_screen_has_not_stopped() {
        let mut layer = Layer::default();
        layer.on_packet(Instant::from_millis(1000), 1000);
        assert!(!layer.on_tick(Instant::from_millis(4900), true));
    }

    #[test]
    fn measures_its_rate() {
        let mut layer = Layer::default();
        for n in 0..100u64 {
            layer.on_packet(Instant::from_millis(n * 20), 1250);
        }
        let kbps = layer.bitrate().unwrap_or_default().as_bps() / 1000;
        assert!((500..=540).contains(&kbps), "{kbps}");
    }
}
