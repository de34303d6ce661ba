//! Renewal: certificates are replaced long before they end, without a restart.

use std::time::Duration;

use env::Env;
use jiff::Timestamp;

/// How often the clock is looked at: it may be set, and machines sleep.
const LOOK: Duration = Duration::from_secs(3600);

/// Calls `renew` when `due` has passed, and again when the time that it returns has; what fails is tried again at the next look. Never
/// returns.
pub async fn keep_fresh<E: std::fmt::Display>(
    env: Env,
    mut due: Timestamp,
    mut renew: impl FnMut() -> Result<Timestamp, E>,
) {
    loop {
        env.sleep(LOOK).await;
        if env.now() < due {
            continue;
        }
        match renew() {
            Ok(next) => due = next,
            Err(error) => tracing::warn!("a certificate was not renewed: {error:#}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_renewed() {
        let env = Env::seeded(1, Timestamp::UNIX_EPOCH);
        let mut calls = 0;
        let day = |n: i64| Timestamp::from_second(n * 86_400).unwrap();
        let renewing = keep_fresh(env.clone(), day(1), || {
            calls += 1;
            if calls == 1 { Err(std::io::Error::other("once")) } else { Ok(day(3)) }
        });
        assert!(tokio::time::timeout(Duration::from_secs(2 * 86_400), renewing).await.is_err());
        assert_eq!(calls, 2, "tried again an hour later, then not before the third day");
    }
}
