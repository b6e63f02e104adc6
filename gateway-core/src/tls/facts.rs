//! What operators are told of the gateway's own certificate: whose, from when, until when.

use jiff::Timestamp;
use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName},
    server::ParsedCertificate,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What is known of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whose it is, such as `CN=gateway.example`.
    pub subject: String,
    /// From when it counts, in Unix seconds.
    pub not_before: i64,
    /// Until when it counts, in Unix seconds.
    pub not_after: i64,
}

/// What is, or soon will be, wrong with the time of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concern {
    /// Its time has not come.
    NotYet,
    /// It should have been renewed by now.
    EndsSoon,
    /// There is hardly any time left.
    EndsVerySoon,
    /// Its time is over.
    Expired,
}

const DAY: i64 = 24 * 3600;

impl Facts {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| e.to_string())?;
        let validity = parsed.validity();
        Ok(Self {
            subject: super::client::distinguished_name(parsed.subject()),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// What is to be said of it at this time. It is not while renewal is due: certbot and cert-manager
    /// renew one of 90 days with 30 left, and one that lasts for less with a third of its time left.
    pub fn concern(&self, now: i64) -> Option<Concern> {
        let lasts = (self.not_after - self.not_before).max(0);
        let left = self.not_after - now;
        if now < self.not_before {
            Some(Concern::NotYet)
        } else if left <= 0 {
            Some(Concern::Expired)
        } else if left < (7 * DAY).min(lasts / 10) {
            Some(Concern::EndsVerySoon)
        } else if left < (21 * DAY).min(lasts / 4) {
            Some(Concern::EndsSoon)
        } else {
            None
        }
    }

    /// The same, for people.
    pub fn warning(&self, now: i64) -> Option<String> {
        let whose = &self.subject;
        let (from, until) = (date(self.not_before), date(self.not_after));
        Some(match self.concern(now)? {
            Concern::NotYet => {
                format!("the certificate of {whose} is not valid yet, but from {from}")
            }
            Concern::Expired => format!("the certificate of {whose} expired at {until}"),
            Concern::EndsSoon | Concern::EndsVerySoon => {
                let left = left(self.not_after - now);
                format!("the certificate of {whose} expires in {left}, at {until}")
            }
        })
    }
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (from, until) = (date(self.not_before), date(self.not_after));
        write!(f, "{}, valid from {from} until {until}", self.subject)
    }
}

/// A time as people read it: `2026-11-26T03:00:00Z`.
pub(super) fn date(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

fn left(seconds: i64) -> String {
    match (seconds / DAY, seconds / 3600) {
        (0, 0) => format!("{} minutes", seconds / 60),
        (0, 1) => "1 hour".to_owned(),
        (0, hours) => format!("{hours} hours"),
        (1, _) => "1 day".to_owned(),
        (days, _) => format!("{days} days"),
    }
}

/// Whether a client that dials this host would take the certificate for it.
pub(super) fn is_for(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Ok(name) = ServerName::try_from(host.trim_matches(['[', ']'])) else { return true };
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lasting(days: i64) -> Facts {
        Facts { subject: "CN=x".into(), not_before: 0, not_after: days * DAY }
    }

    #[test]
    fn a_certificate_is_warned_of_in_time_for_how_long_it_lasts() {
        for (lasts, left, concern) in [
            (90, 91, Some(Concern::NotYet)),
            (90, 22, None),
            (90, 20, Some(Concern::EndsSoon)),
            (90, 6, Some(Concern::EndsVerySoon)),
            (90, 0, Some(Concern::Expired)),
            (90, -1, Some(Concern::Expired)),
            (30, 8, None),
            (30, 7, Some(Concern::EndsSoon)),
            (30, 2, Some(Concern::EndsVerySoon)),
            (365, 20, Some(Concern::EndsSoon)),
            (365, 8, Some(Concern::EndsSoon)),
            (365, 6, Some(Concern::EndsVerySoon)),
        ] {
            let facts = lasting(lasts);
            let now = (lasts - left) * DAY;
            assert_eq!(facts.concern(now), concern, "{left} of {lasts} days left");
        }
    }

    #[test]
    fn warnings_have_the_dates() {
        let facts = lasting(90);
        assert_eq!(facts.warning(0), None);
        assert_eq!(
            facts.warning(70 * DAY).unwrap(),
            "the certificate of CN=x expires in 20 days, at 1970-04-01T00:00:00Z"
        );
        assert_eq!(
            facts.warning(100 * DAY).unwrap(),
            "the certificate of CN=x expired at 1970-04-01T00:00:00Z"
        );
        assert!(
            facts.warning(-1).unwrap().contains("not valid yet, but from 1970-01-01T00:00:00Z")
        );
    }
}
