//! Images as volumes.

use cri::v1::*;

use crate::support::*;

fn volume(path: &str, image: &str, sub_path: &str) -> Mount {
    Mount {
        container_path: path.to_owned(),
        readonly: true,
        image: Some(ImageSpec { image: image.to_owned(), ..Default::default() }),
        image_sub_path: sub_path.to_owned(),
        ..Default::default()
    }
}

pub async fn images_are_mounted_as_volumes(mut node: Node) {
    let sandbox = node.sandbox("volumes").await;
    let with = |name: &str, script: &str, mounts: Vec<Mount>| {
        let mut config = shell(name, script);
        config.mounts = mounts;
        config
    };
    let script =
        "grep web /all/etc/passwd; cat /part/group | head -n1; touch /all/x 2>&1; touch /part/x 2>&1; ls /all/bin/sh";
    let mounts = vec![volume("/all", "busybox:latest", ""), volume("/part", "busybox:latest", "etc")];
    let (text, _) = node.output(&sandbox, with("main", script, mounts.clone())).await;
    let expect = "web:x:1000:1001::/home/web:/bin/sh\nroot:x:0:\ntouch: /all/x: Read-only file system\n\
        touch: /part/x: Read-only file system\n/all/bin/sh\n";
    assert_eq!(text, expect);
    for (mount, message) in [
        (volume("/v", "nosuch:1", ""), "not found"),
        (volume("/v", "busybox:latest", "no/such"), "no such file or directory"),
        (volume("/v", "busybox:latest", "../.."), "image sub path"),
        (volume("/v", "busybox:latest", "etc/passwd"), "is not a directory"),
    ] {
        let error = node.create(&sandbox, with("bad", "true", vec![mount])).await.unwrap_err();
        assert!(error.message().to_lowercase().contains(message), "{}", error.message());
    }
    // A new daemon knows whose they are, and takes away those of containers that are gone.
    let id = node.run(&sandbox, with("stays", "sleep 1000", mounts)).await;
    node.restart().await;
    let answer = node.exec(&id, &["ls", "/part/passwd"], 10).await.unwrap();
    assert_eq!(answer.stdout, b"/part/passwd\n");
    node.finish().await;
}
