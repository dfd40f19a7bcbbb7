//! Which encoding an unknown SSRC belongs to (RFC 8843, 9.2): declared SSRC first, then mid and rid of the header
//! extensions, then a payload type that only one track can mean.
//!
//! Packets carry mid and rid until the first report has arrived at the publisher, so later ones find the SSRC bound.

use core::time::Duration;

use crate::base::{DropReason, Instant, MediaKind, Ssrc, TrackId};
use crate::rtp::packet::PacketView;
use crate::rtp::{dd, ext};
use crate::shard::Shard;
use crate::shard::parts::{Bound, Publication, Source, Stream, StreamKey};
use crate::transport::TransportKey;
use crate::transport::history::History;
use crate::transport::rx::{self, RxStream};

/// SSRCs a transport may have bound at once, over what its tracks need; beyond, the sender invents them.
const MAX_BOUND: usize = 256;

/// See [`Shard::is_silent`].
const SILENCE: Duration = Duration::from_millis(200);

/// What a packet turned out to be.
struct Found {
    track: TrackId,
    encoding: usize,
    rtx: bool,
}

impl Shard {
    /// Bind the SSRC of `view`, or say that nobody takes it.
    pub(super) fn bind(&mut self, now: Instant, key: TransportKey, view: &PacketView<'_>) -> Result<Bound, DropReason> {
        let line = self.lines.get(key).ok_or(DropReason::Bug)?;
        if line.received.len() >= MAX_BOUND {
            return Err(DropReason::Full);
        }
        let publications = || line.publications.iter().filter_map(|id| Some((*id, self.publications.get(id)?)));
        let name = |id: Option<u8>| id.and_then(|id| view.extension(id)).and_then(ext::name);
        let ids = &line.extensions;
        let mid = name(ids.mid);
        let rid = name(ids.rid);
        let repaired = name(ids.repaired_rid);
        let found = publications()
            .find_map(|(id, publication)| by_ssrc(id, publication, view.ssrc()))
            .or_else(|| {
                let mid = mid?;
                let (id, publication) = publications().find(|(_, publication)| publication.params.mid == mid)?;
                by_names(id, publication, view, rid, repaired)
            })
            .or_else(|| {
                if mid.is_some() {
                    return None;
                }
                let mut candidates = publications().filter(|(_, publication)| takes(publication, view));
                let (id, publication) = candidates.next()?;
                if candidates.next().is_some() { None } else { by_names(id, publication, view, rid, repaired) }
            })
            .ok_or(DropReason::UnknownSsrc)?;
        self.attach(now, key, view.ssrc(), &found)
    }

    fn attach(&mut self, now: Instant, key: TransportKey, ssrc: Ssrc, found: &Found) -> Result<Bound, DropReason> {
        let publication = self.publications.get_mut(&found.track).ok_or(DropReason::Bug)?;
        let slot = publication.streams.get_mut(found.encoding).ok_or(DropReason::Bug)?;
        if found.rtx {
            // Retransmissions of a stream that was never seen: nothing can be done with them yet.
            let stream = slot.ok_or(DropReason::UselessRtx)?;
            let line = self.lines.get_mut(key).ok_or(DropReason::Bug)?;
            line.received.retain(|bound| !(bound.rtx && bound.stream == stream));
            let bound = Bound { ssrc, stream, rtx: true };
            line.bind(bound);
            return Ok(bound);
        }
        if slot.is_some() && !self.is_silent(now, found) {
            return Err(DropReason::UnknownSsrc);
        }
        let publication = self.publications.get_mut(&found.track).ok_or(DropReason::Bug)?;
        let limits = &self.config.limits;
        let stream = new_stream(publication, ssrc, found.encoding, limits)?;
        let stream = self.streams.insert(stream);
        let slot = publication.streams.get_mut(found.encoding).ok_or(DropReason::Bug)?;
        let before = slot.replace(stream);
        let line = self.lines.get_mut(key).ok_or(DropReason::Bug)?;
        if let Some(before) = before {
            // The publisher began this encoding anew under another SSRC.
            line.received.retain(|bound| bound.stream != before);
            self.streams.remove(before);
        }
        let bound = Bound { ssrc, stream, rtx: false };
        line.bind(bound);
        Ok(bound)
    }

    /// Whether an encoding has been silent long enough to believe that it goes on under another SSRC. Every change costs
    /// a history: an SSRC per packet must not.
    fn is_silent(&self, now: Instant, found: &Found) -> bool {
        let Some(publication) = self.publications.get(&found.track) else { return false };
        let track = self.rooms.get(publication.room).and_then(|(room, _)| room.tracks.get(publication.track));
        let last = track.and_then(|track| track.layers.get(found.encoding)?.last_packet());
        last.is_none_or(|at| now.since(at) >= SILENCE)
    }

    /// Forget the received streams of a track.
    pub(super) fn unbind_streams(&mut self, publication: &Publication) {
        for stream in publication.streams.iter().flatten() {
            self.unbind_stream(publication.source, *stream);
        }
    }

    fn unbind_stream(&mut self, source: Source, stream: StreamKey) {
        if let Source::Line(key) = source
            && let Some(line) = self.lines.get_mut(key)
        {
            line.received.retain(|bound| bound.stream != stream);
        }
        self.streams.remove(stream);
    }
}

pub(super) fn new_stream(
    publication: &Publication,
    ssrc: Ssrc,
    encoding: usize,
    limits: &super::Limits,
) -> Result<Stream, DropReason> {
    let params = &publication.params;
    let history = match params.kind {
        MediaKind::Audio => limits.history_audio,
        MediaKind::Video => limits.history_video,
    };
    let clock_rate = params.codecs.first().map_or(90_000, |codec| codec.clock_rate);
    Ok(Stream {
        room: publication.room,
        track: publication.track,
        spatial: u8::try_from(encoding).map_err(|_| DropReason::Bug)?,
        rx: RxStream::new(rx::Config { ssrc, clock_rate, nack: params.nack }),
        history: History::new(history),
        codecs: params.codecs.clone(),
        extensions: params.extensions,
        dependency: dd::Reader::new(),
        fresh: true,
        since_flush: (0, 0, 0),
        flush_limits: (u32::try_from(history.packets / 2).unwrap_or(u32::MAX), history.bytes / 2),
    })
}

fn by_ssrc(track: TrackId, publication: &Publication, ssrc: Ssrc) -> Option<Found> {
    publication.params.encodings.iter().enumerate().find_map(|(encoding, params)| {
        let rtx = params.rtx_ssrc == Some(ssrc);
        (rtx || params.ssrc == Some(ssrc)).then_some(Found { track, encoding, rtx })
    })
}

fn by_names(
    track: TrackId,
    publication: &Publication,
    view: &PacketView<'_>,
    rid: Option<&str>,
    repaired: Option<&str>,
) -> Option<Found> {
    let encodings = &publication.params.encodings;
    let rtx = publication.params.codecs.iter().any(|codec| codec.rtx == Some(view.payload_type()));
    let wanted = if rtx { repaired.or(rid) } else { rid };
    let named = wanted.and_then(|wanted| encodings.iter().position(|e| e.rid.as_deref() == Some(wanted)));
    let encoding = match named {
        Some(encoding) => encoding,
        // One encoding needs no name. Several without rids are told apart by declared SSRCs only.
        None if encodings.len() == 1 => 0,
        None => return None,
    };
    Some(Found { track, encoding, rtx })
}

fn takes(publication: &Publication, view: &PacketView<'_>) -> bool {
    let payload_type = view.payload_type();
    publication.params.codecs.iter().any(|c| c.payload_type == payload_type || c.rtx == Some(payload_type))
}
