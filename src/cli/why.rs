//! `weir why USER`: asks a running weir what it decided about somebody lately.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use super::{Source, print};

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    #[command(flatten)]
    source: Source,
    /// Matrix user id, such as @alice:example.org.
    user: String,
}

/// How long weir may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const MAX_ANSWER: u64 = 16 << 20;

pub(super) fn run(args: &WhyArgs) -> Result<(), String> {
    let config = args.source.read().map_err(|e| e.to_string())?;
    let address = config.admin_address().map_err(|e| e.to_string())?;
    let answer = ask(address, &args.user).map_err(|e| format!("cannot ask weir at {address}: {e}; is it running?"))?;
    if answer.is_empty() {
        print(&format!("Nothing was decided about {} since weir started.\n", args.user));
    } else {
        print(&answer);
    }
    Ok(())
}

fn ask(address: SocketAddr, user: &str) -> std::io::Result<String> {
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("user", user).finish();
    get(address, &format!("/debug/why?{query}"))
}

/// A page of the admin listener, whatever its status.
pub(super) fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: weir\r\n\r\n")?;
    let mut text = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no answer"))?;
    Ok(body.to_owned())
}
