//! Nodes that have the pod's images already are preferred, the larger the images the more.

use crate::framework::{Cycle, MAX_SCORE, Plugin, Scorer};
use crate::node::NodeInfo;

/// Less than this is not worth anything; for each container, more than the second is worth no more.
const LEAST: i64 = 23 << 20;
const MOST: i64 = 1000 << 20;

pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn Scorer + 'a>> {
        let nodes = cycle.snapshot.len() as f64;
        let shared = |image: &'a String| {
            let having = cycle.snapshot.nodes_with_image(image);
            (having > 0).then_some((image.as_str(), having as f64 / nodes))
        };
        let images = &cycle.pod.images;
        Some(Box::new(Locality { count: images.len(), shared: images.iter().filter_map(shared).collect() }))
    }
}

struct Locality<'a> {
    /// How many images the pod has.
    count: usize,
    /// Those that any node has, each with the part of the nodes that do.
    shared: Vec<(&'a str, f64)>,
}

impl Scorer for Locality<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        // What few nodes have would draw all its pods to those: it counts less.
        let worth = |(image, part): &(&str, f64)| Some((node.image(image)? as f64 * part) as i64);
        let sum: i64 = self.shared.iter().filter_map(worth).sum();
        let most = MOST * self.count as i64;
        MAX_SCORE * (sum.min(most).max(LEAST) - LEAST) / (most - LEAST)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::tests::{Try, named, pod};

    #[test]
    fn present_images_score() {
        let with = |name: &str, mebibytes: i64| {
            let images = json!([{"names": ["web:1"], "sizeBytes": mebibytes << 20}]);
            let full = json!({"metadata": {"name": name}, "status": {"images": images}});
            NodeInfo::new(serde_json::from_value(full).unwrap())
        };
        let spec = json!({"containers": [{"name": "c", "image": "web:1"}]});
        let nodes = [with("a", 1000), with("b", 500), named("c", json!({})), with("d", 20)];
        // Three of four nodes have it: 750 and 375 MiB count.
        let expect = [(750 - 23) * 100 / (1000 - 23), (375 - 23) * 100 / (1000 - 23), 0, 0];
        assert_eq!(Try::new(&ImageLocality, pod(spec)).scores(&nodes.each_ref()), expect);
    }
}
