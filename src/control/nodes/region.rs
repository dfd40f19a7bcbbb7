//! In which region a joiner's call is to be: by what the edge says, where the client is, whose user it is, and what must
//! not leave a region. Pure.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName};

use crate::config::{Config, RegionConfig};

/// Where a call is to be, as far as its joiner has a say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::control) struct Wanted {
    /// Empty: nothing says; the node that was reached decides.
    pub(in crate::control) region: String,
    /// In no other.
    pub(in crate::control) only: bool,
}

/// The rules of the configuration.
#[derive(Debug, Default)]
pub(in crate::control) struct Regions {
    header: Option<HeaderName>,
    regions: Vec<RegionConfig>,
}

impl Regions {
    /// Of the configuration.
    pub(super) fn new(config: &Config) -> Self {
        let header = &config.nodes.region_header;
        let header = (!header.is_empty()).then(|| header.parse().ok()).flatten();
        Self { header, regions: config.nodes.regions.clone() }
    }

    /// By where it is: `headers` of a proxy that is trusted, its address.
    pub(in crate::control) fn of_client(&self, headers: Option<&HeaderMap>, address: Option<IpAddr>) -> Wanted {
        let named = self.header.as_ref().zip(headers).and_then(|(name, headers)| headers.get(name)?.to_str().ok());
        let known = named.and_then(|name| self.regions.iter().find(|region| region.name == name));
        let by_network = || {
            let address = address?.to_canonical();
            self.regions.iter().find(|region| region.networks.iter().any(|block| block.0.contains(&address)))
        };
        let region = known.or_else(by_network);
        Wanted { region: region.map_or_else(String::new, |region| region.name.clone()), only: false }
    }

    /// The same of a user of a homeserver: a pin holds whatever else is known.
    pub(in crate::control) fn of_user(&self, server: &str, client: Wanted) -> Wanted {
        let has = |names: &[String]| names.iter().any(|name| name == server);
        if let Some(region) = self.regions.iter().find(|region| has(&region.pinned)) {
            return Wanted { region: region.name.clone(), only: true };
        }
        let home = self.regions.iter().find(|region| has(&region.homeservers));
        match home {
            Some(region) if client.region.is_empty() => Wanted { region: region.name.clone(), only: false },
            _ => client,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use super::*;

    fn regions() -> Regions {
        let region = |name: &str, network: &str, homeserver: &str, pinned: &[&str]| RegionConfig {
            name: name.to_owned(),
            networks: vec![network.parse().unwrap()],
            homeservers: vec![homeserver.to_owned()],
            pinned: pinned.iter().map(|name| (*name).to_owned()).collect(),
        };
        let mut config = Config::new();
        config.nodes.region_header = "X-Region".to_owned();
        config.nodes.regions = vec![
            region("eu", "192.0.2.0/24", "eu.example", &["gov.example"]),
            region("us", "2001:db8::/32", "us.example", &[]),
        ];
        Regions::new(&config)
    }

    #[test]
    fn header_before_network_before_homeserver_and_a_pin_before_all() {
        let regions = regions();
        let in_us: HeaderMap = [("x-region".parse().unwrap(), "us".parse().unwrap())].into_iter().collect();
        let nonsense: HeaderMap = [("x-region".parse().unwrap(), "mars".parse().unwrap())].into_iter().collect();
        let eu = Some("::ffff:192.0.2.7".parse().unwrap());
        assert_eq!(regions.of_client(Some(&in_us), eu).region, "us");
        assert_eq!(regions.of_client(Some(&nonsense), eu).region, "eu");
        assert_eq!(regions.of_client(None, Some("2001:db8::1".parse().unwrap())).region, "us");
        assert_eq!(regions.of_client(None, Some("203.0.113.1".parse().unwrap())), Wanted::default());
        let client = regions.of_client(Some(&in_us), None);
        assert_eq!(regions.of_user("eu.example", client.clone()).region, "us");
        assert_eq!(regions.of_user("eu.example", Wanted::default()).region, "eu");
        let pinned = Wanted { region: "eu".to_owned(), only: true };
        assert_eq!(regions.of_user("gov.example", client), pinned);
        assert_eq!(regions.of_user("elsewhere.example", Wanted::default()), Wanted::default());
    }
}
