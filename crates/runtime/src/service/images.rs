//! CRI's image service over the image store.

use tonic::{Request, Response};

use cri::v1::image_service_server::ImageService;
use cri::v1::*;

use super::{Answer, Service};
use crate::error::Error;
use crate::image::{self, Credentials, ImageUser};

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let wanted = request.into_inner().filter.and_then(|filter| filter.image).unwrap_or_default().image;
        let images = if wanted.is_empty() {
            self.0.images.list().iter().map(described).collect()
        } else {
            self.0.images.status(&wanted).iter().map(described).collect()
        };
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let wanted = request.into_inner().image.unwrap_or_default().image;
        let image = self.0.images.status(&wanted).as_ref().map(described);
        Ok(Response::new(ImageStatusResponse { image, info: Default::default() }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let request = request.into_inner();
        let wanted = request.image.unwrap_or_default().image;
        let credentials = credentials(request.auth.unwrap_or_default())?;
        let id = self.0.images.pull(&wanted, &credentials).await.map_err(Error::from)?;
        Ok(Response::new(PullImageResponse { image_ref: id.to_string() }))
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        let wanted = request.into_inner().image.unwrap_or_default().image;
        self.0.images.remove(&wanted).await.map_err(Error::from)?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        let info = self.0.images.fs_info().await.map_err(Error::from)?;
        let usage = |usage: image::Usage| FilesystemUsage {
            timestamp: self.0.now(),
            fs_id: Some(FilesystemIdentifier { mountpoint: info.folder.to_string_lossy().into_owned() }),
            used_bytes: Some(UInt64Value { value: usage.bytes }),
            inodes_used: Some(UInt64Value { value: usage.inodes }),
        };
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage(info.images)],
            container_filesystems: vec![usage(info.containers)],
        }))
    }
}

fn described(image: &image::Image) -> Image {
    let (uid, username) = match image.config.image_user() {
        ImageUser::Unset => (None, String::new()),
        ImageUser::Uid(value) => (Some(Int64Value { value }), String::new()),
        ImageUser::Name(name) => (None, name),
    };
    Image {
        id: image.id.to_string(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        size: image.size,
        uid,
        username,
        spec: Some(ImageSpec { image: image.id.to_string(), ..ImageSpec::default() }),
        pinned: false,
    }
}

/// Upstream: containerd's `ParseAuth`.
fn credentials(auth: AuthConfig) -> Result<Credentials, Error> {
    if !auth.registry_token.is_empty() {
        return Ok(Credentials::Bearer(auth.registry_token));
    }
    if !auth.username.is_empty() {
        return Ok(Credentials::Basic { username: auth.username, password: auth.password });
    }
    if !auth.auth.is_empty() {
        let invalid = || Error::Invalid("invalid auth: not a base64 pair of user and password".to_owned());
        let decoded = decode_base64(auth.auth.trim()).ok_or_else(invalid)?;
        let decoded = String::from_utf8(decoded).map_err(|_| invalid())?;
        let (username, password) = decoded.split_once(':').ok_or_else(invalid)?;
        let password = password.trim_end_matches('\0').to_owned();
        return Ok(Credentials::Basic { username: username.to_owned(), password });
    }
    Ok(Credentials::Anonymous)
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_upstream_reads_them() {
        let check = |auth: AuthConfig, expect: Option<Credentials>| assert_eq!(credentials(auth).ok(), expect);
        let basic = || Credentials::Basic { username: "u".into(), password: "p:q".into() };
        check(AuthConfig::default(), Some(Credentials::Anonymous));
        check(AuthConfig { username: "u".into(), password: "p:q".into(), ..Default::default() }, Some(basic()));
        check(AuthConfig { auth: "dTpwOnE=".into(), ..Default::default() }, Some(basic()));
        check(AuthConfig { auth: "!".into(), ..Default::default() }, None);
        check(AuthConfig { registry_token: "t".into(), ..Default::default() }, Some(Credentials::Bearer("t".into())));
    }
}
