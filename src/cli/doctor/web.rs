//! HTTP requests as the doctor makes them: bounded, and when they fail, with the reason in words a person can act on.

use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

use reqwest::{Certificate, Client, Method, RequestBuilder};
use rustls::CertificateError;
use serde_json::Value;

use super::certificate;
use crate::media::clock::unix_now;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;

/// Makes requests.
#[derive(Debug)]
pub(super) struct Web {
    client: Client,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) allows_all_origins: bool,
    pub(super) location: Option<String>,
    /// How far the clock of the far end is from ours, seconds; positive: it is ahead.
    pub(super) clock_ahead: Option<i64>,
    /// Seconds its certificate is still good.
    pub(super) certificate_left: Option<i64>,
}

/// Why there was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The name has no address.
    Name,
    /// Nothing listens.
    Refused,
    /// No answer in time.
    Silent,
    /// The certificate, with what is wrong.
    Certificate(String),
    /// Anything else.
    Other(String),
}

impl Web {
    /// With further certificate authorities.
    pub(super) fn new(authorities: Vec<Certificate>) -> Result<Self, String> {
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .tls_info(true)
            .http1_only()
            .user_agent(concat!("weir-doctor/", env!("CARGO_PKG_VERSION")));
        if !authorities.is_empty() {
            builder = builder.tls_certs_merge(authorities);
        }
        Ok(Self { client: builder.build().map_err(|e| e.to_string())? })
    }

    /// To add headers to.
    pub(super) fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// GET.
    pub(super) async fn get(&self, url: &str) -> Result<Answer, Trouble> {
        self.send(self.request(Method::GET, url)).await
    }

    /// POST JSON.
    pub(super) async fn post(&self, url: &str, body: &str) -> Result<Answer, Trouble> {
        let request = self.request(Method::POST, url).header("content-type", "application/json");
        self.send(request.body(body.to_owned())).await
    }

    /// Any.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Answer, Trouble> {
        let mut response = request.send().await.map_err(|error| Trouble::of(&error))?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let ours = i64::try_from(unix_now().as_secs()).unwrap_or(i64::MAX);
        let clock_ahead = header("date").and_then(|date| certificate::http_date(&date)).map(|theirs| theirs - ours);
        let certificate_left = response
            .extensions()
            .get::<reqwest::tls::TlsInfo>()
            .and_then(|tls| certificate::not_after(tls.peer_certificate()?))
            .map(|until| until - ours);
        let mut answer = Answer {
            status: response.status().as_u16(),
            body: String::new(),
            allows_all_origins: header("access-control-allow-origin").is_some_and(|origin| origin == "*"),
            location: header("location"),
            clock_ahead,
            certificate_left,
        };
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Trouble::of(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER {
                break;
            }
        }
        answer.body = String::from_utf8_lossy(&bytes).into_owned();
        Ok(answer)
    }
}

impl Answer {
    /// The body, where it is JSON.
    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.body).ok()
    }

    /// The error code of Matrix in it.
    pub(super) fn errcode(&self) -> Option<String> {
        Some(self.json()?.get("errcode")?.as_str()?.to_owned())
    }
}

impl Trouble {
    /// What a failed request says about itself, deep inside.
    fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Silent;
        }
        let mut cause: Option<&dyn Error> = Some(error);
        let mut last = String::new();
        while let Some(it) = cause {
            if let Some(tls) = it.downcast_ref::<rustls::Error>() {
                return Self::of_tls(tls);
            }
            if let Some(io) = it.downcast_ref::<std::io::Error>() {
                match io.kind() {
                    ErrorKind::ConnectionRefused => return Self::Refused,
                    ErrorKind::TimedOut => return Self::Silent,
                    _ => {}
                }
                if let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                    return Self::of_tls(tls);
                }
            }
            last = it.to_string();
            if last.contains("lookup address") || last.contains("dns error") {
                return Self::Name;
            }
            cause = it.source();
        }
        Self::Other(last)
    }

    fn of_tls(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(wrong) = error else {
            return Self::Certificate(format!("TLS fails: {error}"));
        };
        Self::Certificate(match wrong {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "it is not valid yet".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "it is for another name".to_owned()
            }
            CertificateError::UnknownIssuer => {
                "nobody trusts who issued it (self-signed, or the chain is not complete)".to_owned()
            }
            other => format!("{other:?}"),
        })
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Name => "the name has no address".to_owned(),
            Self::Refused => "nothing listens there (connection refused)".to_owned(),
            Self::Silent => "no answer within 10 seconds".to_owned(),
            Self::Certificate(what) => format!("bad certificate: {what}"),
            Self::Other(what) => what.clone(),
        }
    }

    /// What to do about it.
    pub(super) fn mend(&self, what: &str) -> String {
        match self {
            Self::Name => format!("give the name of {what} an A or AAAA record, or correct the name"),
            Self::Refused => format!("start {what}, and let its port through the firewall"),
            Self::Silent => format!("let the port of {what} through firewall and NAT; look whether it hangs"),
            Self::Certificate(_) => {
                format!("renew the certificate of {what}, for this very name, with its whole chain")
            }
            Self::Other(_) => format!("look into the log of {what} and of the proxy in front of it"),
        }
    }
}
