//! Wire formats of RTP and RTCP, stateless: bytes in, values out, and back.
