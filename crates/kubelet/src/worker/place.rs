//! The pod's place on the node: its folders, mounts and control group.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

/// Lets one piece of work at a time at the place, none after it was cleared. A pass that is given up leaves its work running on a
/// thread: it would mount a volume in what is being taken away.
#[derive(Clone, Default)]
pub(super) struct Place(Arc<Mutex<bool>>);

impl Place {
    /// Makes something there, on a thread for blocking work; an error once the place is cleared.
    pub(super) async fn make<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let place = self.0.clone();
        let work = move || {
            let cleared = place.lock();
            if *cleared { Err(io::Error::other("the pod has ended")) } else { work() }
        };
        tokio::task::spawn_blocking(work).await?
    }

    /// Takes everything away, once what is being made is done. Again is fine.
    pub(super) async fn clear(&self, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let place = self.0.clone();
        let work = move || {
            let mut cleared = place.lock();
            *cleared = true;
            work()
        };
        tokio::task::spawn_blocking(work).await?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_a_given_up_pass_makes_is_cleared_too() {
        let place = Place::default();
        let folder = tempfile::tempdir().unwrap();
        let (made, dir) = (folder.path().join("made"), folder.path().to_owned());
        let (begun, has_begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let path = made.clone();
        let pass = place.make(move || {
            begun.send(()).unwrap();
            may_go_on.recv().unwrap();
            std::fs::create_dir(path)
        });
        assert!(pass.now_or_never().is_none());
        has_begun.recv().unwrap();
        let path = made.clone();
        let clearing = place.clear(move || std::fs::remove_dir(path));
        tokio::pin!(clearing);
        assert!((&mut clearing).now_or_never().is_none());
        go_on.send(()).unwrap();
        clearing.await.unwrap();
        assert!(place.make(move || std::fs::create_dir(made)).await.is_err());
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
    }
}
