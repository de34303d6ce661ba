//! Many hands at one store: whatever they do at once, what is listed works, and nothing is left when all is removed.

use testkit::image::oci_layout;
use testkit::registry::Registry;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn everything_at_once() {
    let mut place = Place::new().await;
    let registry = Registry::start(&place.env).await.unwrap();
    let shared = Layer::new().file("shared", 0o644, vec![5; 10_000]);
    let images: Vec<Image> = (0..3)
        .map(|n| {
            Image::new()
                .layer(shared.clone(), Packing::Gzip)
                .layer(Layer::new().file("own", 0o644, format!("{n}")), Packing::Zstd)
        })
        .collect();
    let references: Vec<String> =
        images.iter().enumerate().map(|(n, image)| registry.put(&format!("app:{n}"), image)).collect();
    let archives: Vec<Vec<u8>> =
        references.iter().zip(&images).map(|(name, image)| oci_layout(&[(name.as_str(), image)])).collect();

    let mut hands = Vec::new();
    for hand in 0..6_u64 {
        let (store, references, archives) = (place.store().clone(), references.clone(), archives.clone());
        let chance = Env::seeded(hand, place.env.now());
        hands.push(place.env.spawn(async move {
            for round in 0..25 {
                let n = chance.random_below(3) as usize;
                match chance.random_below(6) {
                    0 => drop(
                        store
                            .pull(&references[n], &Credentials::Anonymous)
                            .await
                            .unwrap_or_else(|error| panic!("{}", error.report())),
                    ),
                    1 => drop(
                        store
                            .load(std::io::Cursor::new(archives[n].clone()))
                            .await
                            .unwrap_or_else(|error| panic!("{}", error.report())),
                    ),
                    2 => store.remove(&references[n]).await.unwrap(),
                    3 => store.collect_garbage().await.unwrap(),
                    _ => {
                        let id = format!("c-{hand}-{round}");
                        match store.prepare(&id, &references[n], Access::ReadWrite).await {
                            Ok(root) => {
                                assert_eq!(std::fs::read_to_string(root.join("own")).unwrap(), n.to_string());
                                assert_eq!(std::fs::read(root.join("shared")).unwrap().len(), 10_000);
                                store.remove_rootfs(&id).await.unwrap();
                            }
                            Err(ImageError::NoSuchImage(_)) => {}
                            Err(error) => panic!("{}", error.report()),
                        }
                    }
                }
            }
        }));
    }
    for hand in hands {
        hand.await.unwrap();
    }
    place.reopen().await;
    for image in place.store().list() {
        let root = place.store().prepare("check", &image.id.to_string(), Access::ReadOnly).await.unwrap();
        assert_eq!(names(&root), ["own", "shared"]);
        place.store().remove_rootfs("check").await.unwrap();
        place.store().remove(&image.id.to_string()).await.unwrap();
    }
    place.assert_empty("at the end");
}
