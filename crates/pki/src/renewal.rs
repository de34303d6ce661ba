//! Renewal: certificates are replaced long before they end, without a restart.

use std::time::Duration;

use env::Env;
use jiff::Timestamp;

/// How often the clock is looked at: it may be set, and machines sleep.
const LOOK: Duration = Duration::from_secs(3600);
/// The pause after a renewal that failed, and the shortest one.
const AGAIN: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_secs(1);

/// Calls `renew` when `due` has passed, and again when the time that it returns has; what fails is tried again a minute later. Never
/// returns.
pub async fn keep_fresh<E: std::fmt::Display>(
    env: Env,
    mut due: Timestamp,
    mut renew: impl FnMut() -> Result<Timestamp, E>,
) {
    loop {
        let left = Duration::try_from(due.duration_since(env.now())).unwrap_or_default();
        env.sleep(left.clamp(SHORTEST, LOOK)).await;
        while env.now() >= due {
            match renew() {
                // Whatever the certificate says: not again and again.
                Ok(next) => due = next.max(env.now().saturating_add(SHORTEST).unwrap_or(next)),
                Err(error) => {
                    tracing::warn!("a certificate was not renewed: {error:#}");
                    env.sleep(AGAIN).await;
                }
            }
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
        assert!(tokio::time::timeout(Duration::from_secs(86_400 + 120), renewing).await.is_err());
        assert_eq!(calls, 2, "a minute later at the latest");
        let renewing = keep_fresh(env.clone(), day(3), || {
            calls += 1;
            Ok::<_, std::io::Error>(day(5))
        });
        assert!(tokio::time::timeout(Duration::from_secs(86_000), renewing).await.is_err());
        assert_eq!(calls, 2, "tried again soon, then not before the third day");
    }
}
