//! Binds pods through the API.

use client::{Client, Error};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::framework::Plugin;
use crate::pod::PodInfo;

pub struct DefaultBinder;

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }

    fn bind<'a>(
        &'a self,
        client: &'a Client,
        pod: &'a PodInfo,
        node: &'a str,
    ) -> Option<BoxFuture<'a, Result<(), Error>>> {
        Some(client.bind(&pod.key, &pod.uid, node).boxed())
    }
}
