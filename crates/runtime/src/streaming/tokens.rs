//! Tokens that open one stream once.

use std::collections::HashMap;
use std::time::Duration;

use env::Env;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Purpose;

/// How long a token is good for, and how many may be out at a time (upstream: the kubelet's streaming library).
const LIFETIME: Duration = Duration::from_secs(60);
const MAX_WAITING: usize = 1000;

pub(crate) struct Tokens {
    env: Env,
    waiting: Mutex<HashMap<String, (Instant, Purpose)>>,
}

impl Tokens {
    pub(crate) fn new(env: Env) -> Tokens {
        Tokens { env, waiting: Mutex::default() }
    }

    /// A token for `purpose`; `None` when too many are out.
    pub(crate) fn issue(&self, purpose: Purpose) -> Option<String> {
        let now = self.env.monotonic();
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, (expires, _)| *expires > now);
        if waiting.len() >= MAX_WAITING {
            return None;
        }
        let mut secret = [0; 16];
        self.env.secret(&mut secret);
        let token: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        waiting.insert(token.clone(), (now + LIFETIME, purpose));
        Some(token)
    }

    /// What the token is for; it is used up by this.
    pub(crate) fn redeem(&self, token: &str) -> Option<Purpose> {
        let (expires, purpose) = self.waiting.lock().remove(token)?;
        (expires > self.env.monotonic()).then_some(purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purpose() -> Purpose {
        Purpose::PortForward { sandbox: "s".into(), ports: vec![] }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_once_and_for_a_minute() {
        let env = Env::seeded(1, jiff::Timestamp::UNIX_EPOCH);
        let tokens = Tokens::new(env.clone());
        let token = tokens.issue(purpose()).unwrap();
        assert!(tokens.redeem(&token).is_some());
        assert!(tokens.redeem(&token).is_none());
        let token = tokens.issue(purpose()).unwrap();
        env.sleep(LIFETIME).await;
        assert!(tokens.redeem(&token).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_out() {
        let env = Env::seeded(1, jiff::Timestamp::UNIX_EPOCH);
        let tokens = Tokens::new(env.clone());
        assert!((0..MAX_WAITING).all(|_| tokens.issue(purpose()).is_some()));
        assert!(tokens.issue(purpose()).is_none());
        env.sleep(LIFETIME).await;
        assert!(tokens.issue(purpose()).is_some());
    }
}
