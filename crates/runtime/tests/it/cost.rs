//! What containers cost: time to create and start, memory of a shim. Prints what it measures.

use crate::support::*;

/// Kilobytes of `name` in a process' memory, as the kernel sums it up.
fn memory(pid: i64, name: &str) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

pub async fn starting_is_quick_and_shims_are_small(mut node: Node) {
    let sandbox = node.sandbox("cost").await;
    let (mut create, mut start) = (Vec::new(), Vec::new());
    for number in 0..40 {
        let at = node.env.monotonic();
        let id = node.create(&sandbox, command(&format!("c{number}"), &["sleep", "1000"])).await.unwrap();
        create.push(at.elapsed().as_micros() as u64);
        let at = node.env.monotonic();
        node.start_container(&id).await.unwrap();
        start.push(at.elapsed().as_micros() as u64);
        if number % 10 != 0 {
            node.stop(&id, 0).await;
        }
    }
    let mut sum: Vec<u64> = create.iter().zip(&start).map(|(create, start)| create + start).collect();
    let middle = |times: &mut Vec<u64>| {
        times.sort();
        times[times.len() / 2]
    };
    let pid = node.shim_pid(&sandbox).await;
    let private = memory(pid, "Private_Dirty") + memory(pid, "Private_Clean");
    let dirty = memory(pid, "Private_Dirty");
    // In hundredths of a second: the shim's own and that of all it reaped, the containers' programs included.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Times are the 14th to 17th field, the second being the name in parentheses.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(14 - 3).take(4);
    let cpu: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
    println!("{} us of processor per start in the shim and its helpers", cpu * 10_000 / 40);
    println!(
        "create p50 {} us, start p50 {} us, both {} us; shim with 40 containers: private {private} kB, dirty {dirty} kB, pss {} kB",
        middle(&mut create),
        middle(&mut start),
        middle(&mut sum),
        memory(pid, "Pss"),
    );
    // A machine under load, and a program without optimisation: the floor is far from what is usual.
    assert!(middle(&mut sum) < 500_000, "{sum:?}");
    assert!(dirty < 2048, "{dirty} kB");
    node.finish().await;
}
