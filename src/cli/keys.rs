//! `weir keys`: an API key with a secret nobody can guess.

use std::fmt::Write;

use super::print;

/// Characters of a key: no two look alike.
const ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
/// Characters after `API`.
const KEY_LENGTH: usize = 12;
/// Bytes of a secret, before it is written in hexadecimal.
const SECRET_BYTES: usize = 32;

pub(super) fn run() -> Result<(), String> {
    let mut random = [0_u8; KEY_LENGTH + SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gives no randomness".to_owned())?;
    let (key, secret) = random.split_at(KEY_LENGTH);
    // 256 is a multiple of 32: every character is as likely as any other.
    let key: String =
        key.iter().filter_map(|byte| ALPHABET.get(usize::from(byte % 32))).map(|c| char::from(*c)).collect();
    let mut hex = String::new();
    for byte in secret {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    print(&format!("keys:\n  API{key}: {hex}\n"));
    Ok(())
}
