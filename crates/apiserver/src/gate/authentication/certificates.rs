//! Client certificates, each checked once: a signature costs more than all the rest of a small request.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use jiff::Timestamp;
use parking_lot::RwLock;
use pki::{ClientVerifier, PkiError};
use rustls::pki_types::CertificateDer;

use super::{CREDENTIAL_ID, with_authenticated};
use crate::UserInfo;

/// More users than this are forgotten together, and checked anew.
const MAX_KNOWN: usize = 4096;

/// The verifier of client certificates, and the users whom it knows by theirs.
pub(super) struct Certificates {
    verifier: ClientVerifier,
    known: RwLock<HashMap<Box<[u8]>, Known>>,
}

struct Known {
    user: UserInfo,
    valid: RangeInclusive<Timestamp>,
}

impl Certificates {
    pub(super) fn new(verifier: ClientVerifier) -> Certificates {
        Certificates { verifier, known: RwLock::default() }
    }

    /// Whose certificate leads `chain`. What was valid once is valid until it expires, as the authorities don't change.
    pub(super) fn identify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<UserInfo, PkiError> {
        let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let own: Option<&[u8]> = chain.first().map(|own| &**own);
        if let Some(own) = own
            && let Some(known) = self.known.read().get(own)
            && known.valid.contains(&second)
        {
            return Ok(known.user.clone());
        }
        // Others of a chain have times of their own; mostly the authority itself was sent, and isn't needed.
        let alone = chain.get(..1).and_then(|own| self.verifier.identify(own, now).ok());
        let own = own.filter(|_| alone.is_some());
        let identity = match alone {
            Some(identity) => identity,
            None => self.verifier.identify(chain, now)?,
        };
        let mut user = UserInfo { name: identity.user, uid: identity.uid, ..UserInfo::default() };
        user.groups = identity.groups;
        user.extra.insert(CREDENTIAL_ID.to_owned(), vec![identity.credential_id]);
        let user = with_authenticated(user);
        if let Some(own) = own {
            let mut known = self.known.write();
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            known.insert(own.into(), Known { user: user.clone(), valid: identity.valid });
        }
        Ok(user)
    }
}
